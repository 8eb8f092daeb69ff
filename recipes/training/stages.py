"""Training in stages that survive being killed.

After every epoch, and within one every so many minutes, a stage keeps its model with the
optimizer's state, its best weights and its history in one folder, which gets its name when it is
whole. Called again, it goes on from there, also with another number of processes.
"""

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo.files import replacing
from kzoo.recipes import distributed as distribute
from kzoo.recipes.data.augment import Batches, Epoch
from kzoo.recipes.training import checkpoints as states
from kzoo.recipes.training.checkpoints import Row


def lowest_loss(row: Row) -> tuple[float, ...]:
    """Ranks epochs by the loss on the validation images."""
    return (-row["val_loss"],)


def highest(key: str) -> Callable[[Row], tuple[float, ...]]:
    """Ranks epochs by a figure, those of an equal one by the loss."""
    return lambda row: (row[key], -row["val_loss"])


@dataclasses.dataclass(frozen=True)
class Stage:
    """One leg of a training run: Adam on a cosine from `learning_rate` to 0 after a warm-up."""

    name: str
    epochs: int
    learning_rate: float
    loss: Any = None  # as `keras.Model.compile` takes it; None where the model computes its own
    metrics: Sequence[Any] = ()
    rank: Callable[[Row], tuple[float, ...]] = lowest_loss  # of the best epoch it is the largest
    warmup: float = 0.1  # fraction of all steps
    patience: int = 10  # epochs without a better one before the stage ends
    accumulate: int = 1  # steps whose gradients make one update
    save_every: float = 0.0  # minutes between states kept within an epoch; 0: at its end only
    # Momentum, by step, of the mean of the weights that is measured and kept; 0: the weights.
    ema: float = 0.0


def compile_stage(model: keras.Model, stage: Stage, steps: int) -> None:
    """Optimizer, loss and metrics of a stage that takes `steps` steps in all."""
    warmup = max(1, int(steps * stage.warmup))
    schedule = keras.optimizers.schedules.CosineDecay(
        stage.learning_rate / warmup,
        max(1, steps - warmup),
        warmup_target=stage.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.Adam(
        schedule,
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
    measure: Callable[[keras.Model], Mapping[str, float]] = lambda model: {},
) -> tuple[keras.Model, list[Row]]:
    """(The model with the weights of its best epoch, the history): trained, or taken up again.

    `train(epoch)` gives that epoch's batches. `stage.rank` says which epoch was the best; what
    `measure` finds after each joins its row. What is kept in `folder` goes before `model`.
    """
    own = (distribute.process(), distribute.processes(), distribute.devices())
    val = val.shared(*own)
    kept = states.agreed(folder, stage.name)
    if not kept:
        compile_stage(model, stage, stage.epochs * len(train(0)))
        if distribute.devices() > 1:  # all go on from what one of them has made
            kept = states.keep(
                model, [], states.after(folder, stage.name, 0), None, model.get_weights()
            )
    with distribute.scope():
        if kept:
            model = keras.saving.load_model(kept / "model.keras")
        # Builds metrics and optimizer. Else fit takes a batch for it, and under JAX it is gone.
        model.test_on_batch(*val[0])
    history = states.read_history(kept) if kept else []
    for epoch in range(len(history), stage.epochs):
        if history and len(history) - 1 - best_epoch(history, stage) >= stage.patience:
            break
        start = time.perf_counter()
        keeper = Keeper(stage, folder, history, kept)
        with distribute.scope():
            fitted = model.fit(
                train(epoch).shared(*own).after(keeper.steps),
                validation_data=val,
                epochs=epoch + 1,
                initial_epoch=epoch,
                shuffle=False,  # of batches, by a generator that no seed here reaches
                callbacks=[keeper],
                verbose=progress(),
            )
        values = {key: float(value[-1]) for key, value in fitted.history.items()}
        if not np.isfinite(values["loss"]):
            raise ValueError(f"Stage {stage.name}: the loss is {values['loss']}. Lower the rate.")
        best = None
        if distribute.first():  # the others read what it has found
            values |= measure(alone(model))
            seconds = round(time.perf_counter() - start, 2)
            history.append({"stage": stage.name, "epoch": epoch, **values, "seconds": seconds})
            if best_epoch(history, stage) == epoch:
                best = model.get_weights()
        keeper.put_back()
        kept = states.keep(
            model, history, states.after(folder, stage.name, epoch + 1), keeper.kept, best
        )
        history = states.read_history(kept)
    if kept:
        if distribute.devices() > 1:
            model = keras.saving.load_model(kept / "model.keras")
        with np.load(kept / states.BEST) as best:
            model.set_weights(list(best.values()))
    return model, history


class Keeper(keras.callbacks.Callback):
    """Sets an epoch on its way, from its beginning or from `kept`, and keeps states within it."""

    def __init__(self, stage: Stage, folder: Path, history: list[Row], kept: Path | None):
        super().__init__()
        self.stage, self.folder, self.history, self.kept = stage, folder, history, kept
        self.steps = states.place(kept)[1] if kept else 0
        self.own: Sequence[np.ndarray] = ()  # weights that their mean stands in for

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.since = epoch, time.monotonic()
        if self.kept and self.steps:
            states.take_up(self.model, self.kept)
        else:
            reseed(self.model, epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        every = 60 * self.stage.save_every
        due = every and time.monotonic() - self.since >= every
        if due and distribute.first() and batch + 1 < self.params["steps"]:
            target = states.after(self.folder, self.stage.name, self.epoch, self.steps + batch + 1)
            with distribute.apart():
                self.kept = states.write_state(self.model, self.history, target, self.kept, None)
            self.since = time.monotonic()

    def on_test_begin(self, logs: Any = None) -> None:
        """From here to the end of the epoch the mean stands in for the weights, as in Keras."""
        if self.stage.ema:
            self.own = copies(self.model)
            self.put_mean()

    def on_train_end(self, logs: Any = None) -> None:
        self.put_mean()

    def put_mean(self) -> None:
        if self.stage.ema:
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
            # JAX has made one array of a weight and its mean, and frees it with the weight's.
            assign(self.model, copies(self.model))

    def put_back(self) -> None:
        """The weights that training goes on with."""
        if self.stage.ema:
            assign(self.model, self.own)


def copies(model: keras.Model) -> list[np.ndarray]:
    """The values of what is trained."""
    return [np.array(keras.ops.convert_to_numpy(v)) for v in model.trainable_variables]


def assign(model: keras.Model, values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(model.trainable_variables, values, strict=True):
        variable.assign(value)


def reseed(model: keras.Model, epoch: int) -> None:
    """Gives dropout the random numbers of that epoch; a saved model forgets its place in them."""
    for i, state in enumerate(states.seeds(model)):
        state.assign([epoch, i])


def alone(model: keras.Model) -> keras.Model:
    """The model, to be used by this process alone."""
    if distribute.devices() == 1:
        return model
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        return keras.saving.load_model(Path(folder) / "model.keras", compile=False)


def best_epoch(history: list[Row], stage: Stage) -> int:
    return max(range(len(history)), key=lambda i: stage.rank(history[i]))


def once(
    path: Path, make: Callable[[], tuple[keras.Model, list[Row]]]
) -> tuple[keras.Model, list[Row]]:
    """What `make` gives, made once: from then on read from `path` and the .json beside it."""
    record = path.with_suffix(".json")
    if not distribute.agreed(path.exists()):
        model, history = make()
        if distribute.first():
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps(history, indent=1))
            with replacing(path) as part:
                model.save(part)
        distribute.together()
    return keras.saving.load_model(path, compile=False), json.loads(record.read_text())


def balanced(targets: np.ndarray, classes: int) -> np.ndarray:
    """The class weights (classes,) that give every class the same share of the loss."""
    counts = np.bincount(targets, minlength=classes)
    return len(targets) / (classes * np.maximum(1, counts))


def unfreeze(model: keras.Model) -> None:
    """Lets all layers learn.

    `model.trainable = True` does nothing under TensorFlow where it is True of the model already,
    however many layers are frozen: TensorFlow takes setting an attribute to itself for done.
    """
    for layer in model.layers:
        layer.trainable = True


def split_at(model: keras.Model, name: str) -> tuple[keras.Model, keras.Model]:
    """(The model up to layer `name`, a copy of the chain of layers from there on)."""
    cut = model.get_layer(name)
    body = keras.Model(model.input, cut.input)
    tail = keras.Sequential([keras.Input(cut.input.shape[1:])])
    for layer in model.layers[model.layers.index(cut) :]:
        copy = type(layer).from_config(layer.get_config())
        tail.add(copy)
        copy.set_weights(layer.get_weights())
    return body, tail


def features(body: keras.Model, examples: Batches, file: Path) -> np.ndarray:
    """What a frozen body makes of the examples, computed once and kept in `file`.

    Every process computes its share; the array stays on disk and is read from there.
    """
    if not distribute.agreed(file.exists()):
        file.parent.mkdir(parents=True, exist_ok=True)
        shares = [file.with_name(f"{file.stem}-{i}.npy") for i in range(distribute.processes())]
        own = distribute.process()
        mine = np.array_split(examples.order, len(shares))[own]
        values = body.predict(examples.only(mine), verbose=progress())
        with replacing(shares[own]) as part, part.open("wb") as out:
            np.save(out, values)
        distribute.together()
        if distribute.first():
            with replacing(file) as part:
                join_arrays(shares, part, len(examples.order))
        distribute.together()
    return np.load(file, mmap_mode="r")


def join_arrays(shares: Sequence[Path], whole: Path, count: int) -> None:
    """Arrays in .npy files one after the other in one file; the parts go."""
    arrays = [np.load(share, mmap_mode="r") for share in shares]
    shape = (count, *arrays[0].shape[1:])
    joined = np.lib.format.open_memmap(whole, "w+", arrays[0].dtype, shape)
    np.concatenate(arrays, out=joined)
    joined.flush()
    for share in shares:
        share.unlink()


def progress() -> int:
    """Keras' `verbose`: a bar on a terminal, else a line an epoch; of one process."""
    if not distribute.first():
        return 0
    return 1 if sys.stderr.isatty() else 2
