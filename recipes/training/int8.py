"""From a trained float model to int8, as every task does it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

import kzoo
from kzoo.recipes import distributed as distribute
from kzoo.recipes.data.augment import Epoch
from kzoo.recipes.data.images import Images, Source
from kzoo.recipes.progress import track
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.display import StageDisplay
from kzoo.recipes.training.stage import Stage
from kzoo.recipes.training.stages import Measure, fit, no_figures

CALIBRATION_IMAGES = 256


def for_calibration(
    paths: Sequence[Source], size: int, *, seed: int, count: int = CALIBRATION_IMAGES
) -> np.ndarray:
    """Return some of the training images, (N, size, size, 3) uint8."""
    chosen = np.random.default_rng(seed).permutation(len(paths))[:count]
    images = Images([paths[i] for i in chosen], size)
    return np.stack(list(track(images, "reading calibration images")))


def fit_int8(
    model: keras.Model,
    stage: Stage,
    train: Callable[[int], Epoch],
    val: Epoch,
    folder: Path,
    *,
    teacher: keras.Model,
    measure: Measure = no_figures,
    display: StageDisplay | None = None,
) -> tuple[keras.Model, list[Row]]:
    """Train an int8 model towards what the float one, `teacher`, says; as `training.stages.fit`.

    Calibration alone often loses nothing, and then there is nothing for training to win: the model
    is returned as it came where no epoch was a better one. The first row of the history is of the
    model as it came, in the stage "ptq"; those of training have "distillation_loss" in place of
    "loss".
    """
    display = display or StageDisplay(stage)
    before = model.get_weights()
    taught = kzoo.distill(model, teacher)
    taught.compile(loss=stage.loss, weighted_metrics=list(stage.metrics) or None)
    found = taught.evaluate(val, return_dict=True, verbose=0)
    values = {f"val_{name}": float(value) for name, value in found.items()} | dict(measure(model))
    untrained: Row = {"stage": "ptq", "epoch": 0, **values, "seconds": 0.0}
    display.before_training(untrained)
    taught, rows = fit(
        taught, stage, train, val, folder, measure=lambda m: measure(m.student), display=display
    )
    won = any(stage.rank(row) > stage.rank(untrained) for row in rows)
    if not distribute.agreed(won):  # each process has measured it: one decides
        taught.student.set_weights(before)
    names = {"loss": "distillation_loss"}  # in another unit than the losses of the stages before
    rows = [{names.get(key, key): value for key, value in row.items()} for row in rows]
    return taught.student, [untrained, *rows]
