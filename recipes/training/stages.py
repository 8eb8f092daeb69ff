"""Training in stages that resume after an interruption.

After every epoch, and every few minutes within it, a stage writes a checkpoint: its model with the
optimizer's state, its best weights and its history. The same call resumes from there, also with
another number of processes.
"""

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from kzoo.files import replacing, save_model, write_json
from kzoo.recipes import distributed as distribute
from kzoo.recipes import progress
from kzoo.recipes.data.augment import Batches, Epoch
from kzoo.recipes.task import Run
from kzoo.recipes.training import checkpoints
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.display import Advance, StageDisplay
from kzoo.recipes.training.memory import KeepFreedMemory
from kzoo.recipes.training.optimizer import Adam
from kzoo.recipes.training.stage import Stage, best_epoch
from kzoo.recipes.training.user_callbacks import CallbackList, StageCallbacks, no_callbacks
from kzoo.weights.saved_model import load_model

Measure = Callable[[keras.Model], Mapping[str, float]]


def no_figures(model: keras.Model) -> Mapping[str, float]:
    """Return no further figures beside loss and metrics."""
    return {}


@dataclasses.dataclass(frozen=True)
class TrainingStage:
    """A stage of a run: `train(model, stage, fit)` returns (model, history).

    The argument `fit` is `fit` or `training.int8.fit_int8`, to be called as
    `fit(model, stage, train, val, measure=...)`.
    """

    stage: Stage
    train: Callable[[keras.Model, Stage, Any], tuple[keras.Model, list[Row]]]
    quantized: bool = False  # whether it trains the int8 model


@dataclasses.dataclass(frozen=True)
class TransferStages:
    """The stages of transfer learning: the new head, the whole network, the whole in int8.

    Each task has a subclass with `stage`, `fit` and `whole`.
    """

    run: Run
    rates: ClassVar[tuple[float, float]]  # learning rates of head and int8; the config has whole's

    def all(self) -> list[TrainingStage]:
        """Return the stages in order, including those with 0 epochs."""
        config, (head_rate, int8_rate) = self.run.config, self.rates
        head_epochs = config.head_epochs if config.weights != "none" else 0
        head = self.stage("head", head_epochs, head_rate, title="the new head")
        whole = self.stage(
            "whole", config.epochs, config.learning_rate, title="the whole network", ema=config.ema
        )
        int8 = self.stage(
            "qat", config.qat_epochs, int8_rate, title="quantization-aware training", cost=2
        )
        return [
            TrainingStage(head, self.head),
            TrainingStage(whole, self.whole),
            TrainingStage(int8, self.fit, quantized=True),
        ]

    def stage(self, name: str, epochs: int, learning_rate: float, **options: Any) -> Stage:
        raise NotImplementedError

    def head(self, net: Any, stage: Stage, fit: Any) -> tuple[Any, list[Row]]:
        """Train only the new layers."""
        for layer in net.layers:
            layer.trainable = not layer.name.startswith("row")
        return self.fit(net, stage, fit)

    def whole(self, net: Any, stage: Stage, fit: Any) -> tuple[Any, list[Row]]:
        raise NotImplementedError

    def fit(self, net: Any, stage: Stage, fit: Any) -> tuple[Any, list[Row]]:
        raise NotImplementedError


def compile_stage(model: keras.Model, stage: Stage, steps: int) -> None:
    """Compile the model with the optimizer, loss and metrics of a stage of `steps` steps."""
    optimizer = Adam(
        stage.schedule(steps),
        gradient_accumulation_steps=stage.accumulate if stage.accumulate > 1 else None,
        use_ema=stage.ema > 0,
        ema_momentum=stage.ema,
    )
    model.compile(
        optimizer,
        loss=stage.loss,
        weighted_metrics=list(stage.metrics) or None,  # weighted by class and example
        jit_compile=keras.backend.backend() == "jax",
    )
    # Otherwise they are created in the first step, and TensorFlow traces that one twice.
    optimizer.build(model.trainable_variables)


def fit(
    model: keras.Model,
    stage: Stage,
    train: Callable[[int], Epoch],
    val: Epoch,
    folder: Path,
    *,
    measure: Measure = no_figures,
    display: StageDisplay | None = None,
    callbacks: Callable[[str], CallbackList] = no_callbacks,
    compiled: bool = False,
) -> tuple[keras.Model, list[Row]]:
    """Train a stage, or resume it; return (model with the weights of the best epoch, history).

    model: used unless `folder` has a checkpoint of the stage.
    train: returns the batches of an epoch. val: the validation batches.
    folder: of the checkpoints.
    measure: called with the model after each epoch; returns further figures for the history.
    callbacks: returns Keras callbacks for the stage's name; `model.stop_training` ends the stage.
    compiled: whether `compile_stage` was called already.

    Raises ValueError if the loss becomes nan or infinite.
    """
    display = display or StageDisplay(stage)
    own = (distribute.process(), distribute.processes(), distribute.devices())
    val = val.shared(*own)
    kept = checkpoints.agreed(folder, stage.name)
    if not kept:
        if not compiled:
            compile_stage(model, stage, stage.epochs * len(train(0)))
        if distribute.devices() > 1:  # all processes load what the first has written
            kept = checkpoints.keep(
                model, [], checkpoints.after(folder, stage.name, 0), None, model.get_weights()
            )
    elif checkpoints.place(kept)[0] < stage.epochs:
        display.resuming(*checkpoints.place(kept))
    with distribute.scope():
        if kept:
            model = load_model(kept / "model.keras", compile=True)
        # Builds metrics and optimizer. Otherwise fit uses up a batch for that under JAX.
        # TensorFlow reuses this trace in all validation, unlike that of test_on_batch.
        model.evaluate(val.only(val.order[: val.batch_size]), verbose=0)
    history = checkpoints.read_history(kept) if kept else []
    theirs = StageCallbacks(callbacks(stage.name), model, stage.epochs)
    memory = KeepFreedMemory()
    for epoch in range(len(history), stage.epochs):
        if history and len(history) - 1 - best_epoch(history, stage) >= stage.patience:
            display.out_of_patience()
            break
        start = time.perf_counter()
        callback = CheckpointCallback(stage, folder, history, kept)
        batches = train(epoch).shared(*own).after(callback.steps)
        with display.epoch(epoch, len(batches)) as shown:
            with distribute.scope():
                fitted = model.fit(
                    batches,
                    validation_data=val,
                    epochs=epoch + 1,
                    initial_epoch=epoch,
                    shuffle=False,  # it would shuffle batches, independently of the seed
                    callbacks=[callback, shown, memory, theirs],
                    verbose=0,
                )
            values = {key: float(value[-1]) for key, value in fitted.history.items()}
            require_finite(values["loss"], stage)
            best = None
            if distribute.first():  # the other processes read its history
                values |= measure(undistributed(model))
                seconds = round(time.perf_counter() - start, 2)
                history.append({"stage": stage.name, "epoch": epoch, **values, "seconds": seconds})
                if best_epoch(history, stage) == epoch:
                    best = model.get_weights()
        theirs.epoch_ended(epoch, values)
        callback.put_back_weights()
        kept = checkpoints.keep(
            model, history, checkpoints.after(folder, stage.name, epoch + 1), callback.kept, best
        )
        history = checkpoints.read_history(kept)
        display.ended(history)
        if theirs.stopped:
            break
    theirs.stage_ended()
    if kept:
        if distribute.devices() > 1:
            model = load_model(kept / "model.keras", compile=True)
        with np.load(kept / checkpoints.BEST) as best:
            model.set_weights(list(best.values()))
    return model, history


def require_finite(loss: float, stage: Stage) -> None:
    """Raise ValueError if the loss is nan or infinite; the last checkpoint stays unchanged."""
    if not np.isfinite(loss):
        raise ValueError(
            f"Stage {stage.name}: the loss is {loss}. Lower the learning rate of "
            f"{stage.learning_rate:g}, in a run with another --out."
        )


class CheckpointCallback(keras.callbacks.Callback):
    """Starts an epoch, or resumes it from the checkpoint `kept`; writes checkpoints within it."""

    def __init__(self, stage: Stage, folder: Path, history: list[Row], kept: Path | None):
        super().__init__()
        self.stage, self.folder, self.history, self.kept = stage, folder, history, kept
        self.steps = checkpoints.place(kept)[1] if kept else 0
        self.trained: Sequence[np.ndarray] = ()  # the weights while their average replaces them

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.since = epoch, time.monotonic()
        if self.kept and self.steps:
            checkpoints.restore_epoch(self.model, self.kept)
        else:
            reseed(self.model, epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        require_finite((logs or {}).get("loss", 0.0), self.stage)  # before a checkpoint is written
        every = 60 * self.stage.save_every
        due = every and time.monotonic() - self.since >= every
        if due and distribute.first() and batch + 1 < self.params["steps"]:
            target = checkpoints.after(
                self.folder, self.stage.name, self.epoch, self.steps + batch + 1
            )
            with distribute.apart():
                self.kept = checkpoints.write_checkpoint(
                    self.model, self.history, target, self.kept, None
                )
            self.since = time.monotonic()

    def on_test_begin(self, logs: Any = None) -> None:
        """Use the averaged weights until the end of the epoch, as Keras does."""
        if self.stage.ema:
            self.trained = copies(self.model)
            self.put_mean_weights()

    def on_train_end(self, logs: Any = None) -> None:
        self.put_mean_weights()

    def put_mean_weights(self) -> None:
        if self.stage.ema:
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
            # In JAX weight and average share an array, which is freed with the weight's.
            assign(self.model, copies(self.model))

    def put_back_weights(self) -> None:
        """Restore the weights in place of their average, to continue training."""
        if self.stage.ema:
            assign(self.model, self.trained)


def copies(model: keras.Model) -> list[np.ndarray]:
    """Return the values of the trainable variables."""
    return [np.array(keras.ops.convert_to_numpy(v)) for v in model.trainable_variables]


def assign(model: keras.Model, values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(model.trainable_variables, values, strict=True):
        variable.assign(value)


def reseed(model: keras.Model, epoch: int) -> None:
    """Seed dropout for an epoch, since a saved model does not contain its generators' states."""
    for i, state in enumerate(checkpoints.seeds(model)):
        state.assign([epoch, i])


def undistributed(model: keras.Model) -> keras.Model:
    """Return the model, or a copy that this process can use alone."""
    if distribute.devices() == 1:
        return model
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        return load_model(Path(folder) / "model.keras")


def finished_stage(
    path: Path,
    train: Callable[[], tuple[keras.Model, list[Row]]],
    *,
    display: StageDisplay | None = None,
) -> tuple[keras.Model, list[Row]]:
    """Return (model, history) of `train`, or read them if the stage has finished before.

    The model is stored in `path`, a .keras file, and the history in a .json beside it.
    """
    record = path.with_suffix(".json")
    if not distribute.agreed(path.exists()):
        model, history = train()
        if distribute.first():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(record, history)
            save_model(model, path)
        distribute.together()
    elif display:
        display.show(": done before")
    return load_model(path), json.loads(record.read_text())


def balanced(targets: np.ndarray, classes: int) -> np.ndarray:
    """Return the class weights (classes,) that give every class the same share of the loss."""
    counts = np.bincount(targets, minlength=classes)
    return len(targets) / (classes * np.maximum(1, counts))


def unfreeze(model: keras.Model) -> None:
    """Make all layers trainable.

    `model.trainable = True` has no effect under TensorFlow if it is True already, even if layers
    are frozen, since TensorFlow skips setting an attribute to its value.
    """
    for layer in model.layers:
        layer.trainable = True


def split_at(model: keras.Model, name: str) -> tuple[keras.Model, keras.Model]:
    """Return (the model up to layer `name`, a copy of the sequence of layers from there on)."""
    cut = model.get_layer(name)
    body = keras.Model(model.input, cut.input)
    tail = keras.Sequential([keras.Input(cut.input.shape[1:])])
    for layer in model.layers[model.layers.index(cut) :]:
        copy = type(layer).from_config(layer.get_config())
        tail.add(copy)
        copy.set_weights(layer.get_weights())
    return body, tail


def features(body: keras.Model, examples: Batches, file: Path) -> np.ndarray:
    """Return the outputs of a frozen body for all examples, computed once and stored in `file`.

    Every process computes its share. The array is memory-mapped.
    """
    if not distribute.agreed(file.exists()):
        file.parent.mkdir(parents=True, exist_ok=True)
        shares = [file.with_name(f"{file.stem}-{i}.npy") for i in range(distribute.processes())]
        own = distribute.process()
        mine = np.array_split(examples.order, len(shares))[own]
        batches = examples.only(mine)
        with progress.bar("running the frozen layers once", len(batches)) as bar:
            values = body.predict(batches, verbose=0, callbacks=[Advance(bar), KeepFreedMemory()])
        with replacing(shares[own]) as part, part.open("wb") as out:
            np.save(out, values)
        distribute.together()
        if distribute.first():
            with replacing(file) as part:
                join_arrays(shares, part, len(examples.order))
        distribute.together()
    return np.load(file, mmap_mode="r")


def join_arrays(shares: Sequence[Path], whole: Path, count: int) -> None:
    """Concatenate the arrays of .npy files into one file, and delete the parts."""
    arrays = [np.load(share, mmap_mode="r") for share in shares]
    shape = (count, *arrays[0].shape[1:])
    joined = np.lib.format.open_memmap(whole, "w+", arrays[0].dtype, shape)
    np.concatenate(arrays, out=joined)
    joined.flush()
    for share in shares:
        share.unlink()
