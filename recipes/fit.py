"""Training in stages that survive being killed.

After every epoch a stage keeps its model with the optimizer's state, its best weights and its
history in one folder, which gets its name when it is whole. Called again, it goes on from there.
"""

import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo.recipes.augment import Batches
from kzoo.tflite.files import replacing

Row = dict[str, Any]  # one epoch: stage, epoch, loss, val_loss, what else was measured, seconds


def lowest_loss(row: Row) -> tuple[float, ...]:
    """Ranks epochs by the loss on the validation pictures."""
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


def compile_stage(model: keras.Model, stage: Stage, steps: int) -> None:
    """Optimizer, loss and metrics of a stage that takes `steps` steps in all."""
    warmup = max(1, int(steps * stage.warmup))
    schedule = keras.optimizers.schedules.CosineDecay(
        stage.learning_rate / warmup,
        max(1, steps - warmup),
        warmup_target=stage.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.Adam(schedule)
    model.compile(
        optimizer,
        loss=stage.loss,
        metrics=list(stage.metrics) or None,
        jit_compile=keras.backend.backend() == "jax",
    )
    # Else its variables come about in the first step, and TensorFlow traces that one twice.
    optimizer.build(model.trainable_variables)


def fit(
    model: keras.Model,
    stage: Stage,
    train: Callable[[int], keras.utils.PyDataset],
    val: keras.utils.PyDataset,
    folder: Path,
    *,
    class_weight: Mapping[int, float] | None = None,
    measure: Callable[[keras.Model], Mapping[str, float]] = lambda model: {},
) -> tuple[keras.Model, list[Row]]:
    """(The model with the weights of its best epoch, the history): trained, or taken up again.

    `train(epoch)` gives that epoch's batches. `stage.rank` says which epoch was the best; what
    `measure` finds after each joins its row. What is kept in `folder` goes before `model`.
    """
    kept = latest(folder, stage)
    if kept:
        model = keras.saving.load_model(kept / "model.keras")
        history = json.loads((kept / "history.json").read_text())
    else:
        history = []
    fresh = True
    for epoch in range(len(history), stage.epochs):
        if history and len(history) - 1 - best_epoch(history, stage) >= stage.patience:
            break
        start = time.perf_counter()
        shown = train(epoch)
        if epoch == 0:
            compile_stage(model, stage, stage.epochs * len(shown))
        if fresh:
            # Builds metrics and optimizer. Else fit takes a batch for it, and under JAX it is gone.
            model.test_on_batch(*val[0])
            fresh = False
        fitted = model.fit(
            shown,
            validation_data=val,
            epochs=epoch + 1,
            initial_epoch=epoch,
            class_weight=dict(class_weight) if class_weight else None,
            shuffle=False,  # of batches, by a generator that no seed here reaches
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=partial(reseed, model))],
            verbose=1 if sys.stderr.isatty() else 2,
        )
        values = {key: float(value[-1]) for key, value in fitted.history.items()}
        if not np.isfinite(values["loss"]):
            raise ValueError(f"Stage {stage.name}: the loss is {values['loss']}. Lower the rate.")
        values |= measure(model)
        seconds = round(time.perf_counter() - start, 2)
        history.append({"stage": stage.name, "epoch": epoch, **values, "seconds": seconds})
        better = best_epoch(history, stage) == epoch
        kept = keep(model, history, folder / f"{stage.name}-{epoch:04d}", kept, better)
    if kept:
        model.load_weights(kept / "best.weights.h5")
    return model, history


def reseed(model: keras.Model, epoch: int, _: Any = None) -> None:
    """Gives dropout the random numbers of that epoch; a saved model forgets its place in them."""
    for i, layer in enumerate(model.layers):
        if hasattr(layer, "seed_generator"):
            layer.seed_generator.state.assign([epoch, i])


def best_epoch(history: list[Row], stage: Stage) -> int:
    return max(range(len(history)), key=lambda i: stage.rank(history[i]))


def latest(folder: Path, stage: Stage) -> Path | None:
    """The last epoch of a stage that was kept whole."""
    kept = sorted(folder.glob(f"{stage.name}-[0-9][0-9][0-9][0-9]"))
    return kept[-1] if kept else None


def keep(
    model: keras.Model, history: list[Row], target: Path, previous: Path | None, better: bool
) -> Path:
    """Writes one epoch's state; the folder gets its name when all is in it."""
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.save(part / "model.keras")
    if previous is None or better:
        model.save_weights(part / "best.weights.h5")
    else:
        shutil.copy2(previous / "best.weights.h5", part)
    (part / "history.json").write_text(json.dumps(history, indent=1))
    os.replace(part, target)
    if previous:
        shutil.rmtree(previous, ignore_errors=True)
    return target


def once(
    path: Path, make: Callable[[], tuple[keras.Model, list[Row]]]
) -> tuple[keras.Model, list[Row]]:
    """What `make` gives, made once: from then on read from `path` and the .json beside it."""
    record = path.with_suffix(".json")
    if not path.exists():
        model, history = make()
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(history, indent=1))
        with replacing(path) as part:
            model.save(part)
    return keras.saving.load_model(path, compile=False), json.loads(record.read_text())


def balanced(targets: np.ndarray, classes: int) -> dict[int, float]:
    """The class weights that give every class the same share of the loss."""
    counts = np.bincount(targets, minlength=classes)
    return {i: len(targets) / (classes * max(1, count)) for i, count in enumerate(counts.tolist())}


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
    """What a frozen body makes of the examples, computed once and kept in `file`."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        values = body.predict(examples, verbose=1 if sys.stderr.isatty() else 2)
        with replacing(file) as part, part.open("wb") as out:
            np.save(out, values)
    return np.load(file)
