"""From a trained float net to int8, as every recipe does it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

import kzoo
from kzoo.recipes import distributed as distribute
from kzoo.recipes.data.augment import Epoch
from kzoo.recipes.data.images import Images, Source
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.stages import Stage, fit, progress

CALIBRATION_IMAGES = 256


def for_calibration(
    paths: Sequence[Source], size: int, *, seed: int, count: int = CALIBRATION_IMAGES
) -> np.ndarray:
    """Some of the training images, (N, size, size, 3) uint8."""
    chosen = np.random.default_rng(seed).permutation(len(paths))[:count]
    return Images([paths[i] for i in chosen], size)[:]


def fit_or_leave(
    int8: keras.Model,
    stage: Stage,
    train: Callable[[int], Epoch],
    val: Epoch,
    folder: Path,
    *,
    teacher: keras.Model,
    measure: Callable[[keras.Model], Mapping[str, float]] = lambda model: {},
) -> tuple[keras.Model, list[Row]]:
    """`fit` towards what `teacher` says, and the model as it came where no epoch was a better one.

    Calibration alone often loses nothing, and then there is nothing for training to win. The first
    row of the history is of the model as it came, in the stage "ptq"; those of training have
    "distillation_loss" in place of "loss".
    """
    before = int8.get_weights()
    taught = kzoo.distill(int8, teacher)
    taught.compile(loss=stage.loss, weighted_metrics=list(stage.metrics) or None)
    found = taught.evaluate(val, return_dict=True, verbose=progress())
    values = {f"val_{name}": float(value) for name, value in found.items()} | dict(measure(int8))
    untrained: Row = {"stage": "ptq", "epoch": 0, **values, "seconds": 0.0}
    taught, rows = fit(taught, stage, train, val, folder, measure=lambda m: measure(m.student))
    won = any(stage.rank(row) > stage.rank(untrained) for row in rows)
    if not distribute.agreed(won):  # each process has measured it: one decides
        taught.student.set_weights(before)
    names = {"loss": "distillation_loss"}  # in another unit than the losses of the stages before
    rows = [{names.get(key, key): value for key, value in row.items()} for row in rows]
    return taught.student, [untrained, *rows]
