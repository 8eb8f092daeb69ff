"""Training in stages that survive being killed.

After every epoch, and within one every so many minutes, a stage writes a checkpoint: its model with
the optimizer's state, its best weights and its history. Called again it resumes from there, also
with another number of processes.
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
from kzoo.recipes.training.memory import KeepFreedMemory, release_freed_memory
from kzoo.recipes.training.optimizer import Adam
from kzoo.recipes.training.stage import Stage, best_epoch
from kzoo.recipes.training.user_callbacks import CallbackList, StageCallbacks, no_callbacks
from kzoo.weights.saved_model import load_model

Measure = Callable[[keras.Model], Mapping[str, float]]


def no_figures(model: keras.Model) -> Mapping[str, float]:
    """Measure nothing of a model beside its loss and metrics."""
    return {}


@dataclasses.dataclass(frozen=True)
class TrainingStage:
    """A stage of a task's run: `train(model, stage, fit)` returns (model, history).

    `fit(model, stage, train, val, measure=...)` is how: `fit`, or `training.int8.fit_int8`.
    """

    stage: Stage
    train: Callable[[keras.Model, Stage, Any], tuple[keras.Model, list[Row]]]
    quantized: bool = False  # whether it trains the int8 model


@dataclasses.dataclass(frozen=True)
class TransferStages:
    """The stages of a model with a new head: the head, all of it, all of it in int8.

    A task says what a `stage` is and how `fit` trains a model, and what else `whole` needs.
    """

    run: Run
    rates: ClassVar[tuple[float, float]]  # of the head and of int8; the config has the whole's

    def all(self) -> list[TrainingStage]:
        """Return the stages in their order, those without epochs too."""
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
        """Train the new layers alone."""
        for layer in net.layers:
            layer.trainable = not layer.name.startswith("row")
        return self.fit(net, stage, fit)

    def whole(self, net: Any, stage: Stage, fit: Any) -> tuple[Any, list[Row]]:
        raise NotImplementedError

    def fit(self, net: Any, stage: Stage, fit: Any) -> tuple[Any, list[Row]]:
        raise NotImplementedError


def compile_stage(model: keras.Model, stage: Stage, steps: int) -> None:
    """Optimizer, loss and metrics of a stage that takes `steps` steps in all."""
    optimizer = Adam(
        stage.schedule(steps),
        gradient_accumulation_steps=stage.accumulate if stage.accumulate > 1 else None,
        use_ema=stage.ema > 0,
        ema_momentum=stage.ema,
    )
    model.compile(
        optimizer,
        loss=stage.loss,
        weighted_metrics=list(stage.metrics) or None,  # of what counts, by class
        jit_compile=keras.backend.backend() == "jax",
    )
    # Else its variables come about in the first step, and TensorFlow traces that one twice.
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

    `train(epoch)` gives that epoch's batches. What `measure` finds after each epoch joins its row
    of the history. A checkpoint of the stage in `folder` goes before `model`. `callbacks` returns
    Keras callbacks for the stage's name; one that sets `model.stop_training` ends the stage.
    `compiled`: `compile_stage` was called for the whole stage already.
    """
    display = display or StageDisplay(stage)
    own = (distribute.process(), distribute.processes(), distribute.devices())
    val = val.shared(*own)
    kept = checkpoints.agreed(folder, stage.name)
    if not kept:
        if not compiled:
            compile_stage(model, stage, stage.epochs * len(train(0)))
        if distribute.devices() > 1:  # all go on from what one of them has made
            kept = checkpoints.keep(
                model, [], checkpoints.after(folder, stage.name, 0), None, model.get_weights()
            )
    elif checkpoints.place(kept)[0] < stage.epochs:
        display.resuming(*checkpoints.place(kept))
    with distribute.scope():
        if kept:
            model = load_model(kept / "model.keras", compile=True)
        # Builds metrics and optimizer. Else fit takes a batch for it, and under JAX it is gone.
        # TensorFlow keeps what it traces here for all validation, unlike that of test_on_batch.
        model.evaluate(val.only(val.order[: val.batch_size]), verbose=0)
    history = checkpoints.read_history(kept) if kept else []
    theirs = StageCallbacks(callbacks(stage.name), model, stage.epochs)
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
                    shuffle=False,  # of batches, by a generator that no seed here reaches
                    callbacks=[callback, shown, KeepFreedMemory(), theirs],
                    verbose=0,
                )
            values = {key: float(value[-1]) for key, value in fitted.history.items()}
            require_finite(values["loss"], stage)
            best = None
            if distribute.first():  # the others read what it has found
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
    """Raise ValueError where the loss is nan or infinite; the last checkpoint stays as it is."""
    if not np.isfinite(loss):
        raise ValueError(
            f"Stage {stage.name}: the loss is {loss}. Lower the learning rate of "
            f"{stage.learning_rate:g}, in a run with another --out."
        )


class CheckpointCallback(keras.callbacks.Callback):
    """Begins an epoch, or resumes it from the checkpoint `kept`, and writes others within it."""

    def __init__(self, stage: Stage, folder: Path, history: list[Row], kept: Path | None):
        super().__init__()
        self.stage, self.folder, self.history, self.kept = stage, folder, history, kept
        self.steps = checkpoints.place(kept)[1] if kept else 0
        self.trained: Sequence[np.ndarray] = ()  # weights that their mean stands in for

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.since = epoch, time.monotonic()
        if self.kept and self.steps:
            checkpoints.restore_epoch(self.model, self.kept)
        else:
            reseed(self.model, epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        require_finite((logs or {}).get("loss", 0.0), self.stage)  # before it is written
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
        """From here to the end of the epoch the mean stands in for the weights, as in Keras."""
        if self.stage.ema:
            self.trained = copies(self.model)
            self.put_mean_weights()

    def on_train_end(self, logs: Any = None) -> None:
        self.put_mean_weights()

    def put_mean_weights(self) -> None:
        if self.stage.ema:
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
            # JAX has made one array of a weight and its mean, and frees it with the weight's.
            assign(self.model, copies(self.model))

    def put_back_weights(self) -> None:
        """Put the trained weights back in place of their mean: training goes on with them."""
        if self.stage.ema:
            assign(self.model, self.trained)


def copies(model: keras.Model) -> list[np.ndarray]:
    """Return the values of the trainable variables."""
    return [np.array(keras.ops.convert_to_numpy(v)) for v in model.trainable_variables]


def assign(model: keras.Model, values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(model.trainable_variables, values, strict=True):
        variable.assign(value)


def reseed(model: keras.Model, epoch: int) -> None:
    """Give dropout the random numbers of that epoch; a saved model forgets its place in them."""
    for i, state in enumerate(checkpoints.seeds(model)):
        state.assign([epoch, i])


def undistributed(model: keras.Model) -> keras.Model:
    """Return the model, or a copy that this process can use without the others."""
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
    """Return what `train` returns: (model, history), reading them where that was done before.

    The model is kept in `path`, a .keras file, and the history in the .json beside it.
    """
    record = path.with_suffix(".json")
    if not distribute.agreed(path.exists()):
        model, history = train()
        release_freed_memory()
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
    """Let all layers learn.

    `model.trainable = True` does nothing under TensorFlow where it is True of the model already,
    however many layers are frozen: TensorFlow takes setting an attribute to itself for done.
    """
    for layer in model.layers:
        layer.trainable = True


def split_at(model: keras.Model, name: str) -> tuple[keras.Model, keras.Model]:
    """Return (the model up to layer `name`, a copy of the chain of layers from there on)."""
    cut = model.get_layer(name)
    body = keras.Model(model.input, cut.input)
    tail = keras.Sequential([keras.Input(cut.input.shape[1:])])
    for layer in model.layers[model.layers.index(cut) :]:
        copy = type(layer).from_config(layer.get_config())
        tail.add(copy)
        copy.set_weights(layer.get_weights())
    return body, tail


def features(body: keras.Model, examples: Batches, file: Path) -> np.ndarray:
    """Return what a frozen body makes of the examples, computed once and kept in `file`.

    Every process computes its share; the array stays on disk and is read from there.
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
    """Write arrays of .npy files one after the other into one file; the parts are deleted."""
    arrays = [np.load(share, mmap_mode="r") for share in shares]
    shape = (count, *arrays[0].shape[1:])
    joined = np.lib.format.open_memmap(whole, "w+", arrays[0].dtype, shape)
    np.concatenate(arrays, out=joined)
    joined.flush()
    for share in shares:
        share.unlink()
