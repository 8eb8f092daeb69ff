"""Calibration images and quantization-aware training, the same for all tasks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kzoo
from kzoo.qat import FakeQuant
from kzoo.recipes import distributed as distribute
from kzoo.recipes.data.augment import Epoch
from kzoo.recipes.data.images import Images, Source
from kzoo.recipes.progress import track
from kzoo.recipes.training import checkpoints
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.display import StageDisplay
from kzoo.recipes.training.stage import Stage
from kzoo.recipes.training.stages import (
    Measure,
    compile_stage,
    fit,
    no_figures,
    undistributed,
)
from kzoo.recipes.training.user_callbacks import CallbackList, no_callbacks
from kzoo.sizes import Size
from kzoo.tflite.xnnpack import LARGEST_SOUND

CALIBRATION_IMAGES = 256
QAT, PTQ = "qat", "ptq"
WEIGHTS = {QAT: "of quantization-aware training", PTQ: "of calibration alone"}
LARGEST_LOSS = 0.02  # of the mean quality, its standard error included, that may be chance
# (int8 model, outputs for a batch, of it or of its float model, batches, index of the batch) ->
# (n,): the quality of the prediction for each image, larger is better; nan if an image has none.
ImageQuality = Callable[[keras.Model, Any, Any, int], np.ndarray]


def for_calibration(
    paths: Sequence[Source], size: Size, *, seed: int, count: int = CALIBRATION_IMAGES
) -> np.ndarray:
    """Return up to `count` random training images, (N, H, W, 3) uint8."""
    chosen = np.random.default_rng(seed).permutation(len(paths))[:count]
    images = Images([paths[i] for i in chosen], size, keep=False)
    return np.stack(list(track(images, "reading calibration images")))


def divergence(int8: keras.Model, learning_rate: float) -> str | None:
    """Return a remark if activations of a quantized model are so large that training diverged.

    None otherwise. learning_rate: the highest of the whole network, for the advice.
    """
    ranges = [layer for layer in int8.layers if isinstance(layer, FakeQuant)]
    reached = [float(keras.ops.maximum(-layer.low, layer.high)) for layer in ranges]
    largest = max(reached, default=0.0)
    if largest <= LARGEST_SOUND:
        return None
    name = ranges[reached.index(largest)].name.removesuffix("_quant")
    stage = " in the stage of the whole network" if name.startswith("row") else ""  # else frozen
    return (
        f"Activations reach {largest:.2g} at {name}, those of sound networks 2,000 at the most: "
        f"most likely training diverged{stage}, and the int8 file will be poor or refused. Start "
        f"again with a --learning-rate below {learning_rate:g}, in another --out"
    )


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
    image_quality: ImageQuality | None = None,
    always: bool = False,
    callbacks: Callable[[str], CallbackList] = no_callbacks,
) -> tuple[keras.Model, list[Row]]:
    """Train an int8 model with the float model `teacher` as `training.stages.fit` does.

    Calibration alone often loses nothing, and training costs twice an epoch of the float model:
    unless `always`, it is left out where `calibration_suffices`. After it, `choose` decides between
    the trained and the given weights. The first row of the history is of the given model, in the
    stage "ptq", and has "chosen" and "reason"; the rows of training have "distillation_loss"
    instead of "loss".
    """
    display = display or StageDisplay(stage)
    before = model.get_weights()
    taught = kzoo.distill(model, teacher)
    compile_stage(taught, stage, stage.epochs * len(train(0)))
    found = taught.evaluate(val, return_dict=True, verbose=0)
    values = {f"val_{name}": float(value) for name, value in found.items()} | dict(measure(model))
    untrained: Row = {"stage": "ptq", "epoch": 0, **values, "seconds": 0.0}
    display.before_training(untrained)
    if not (always or checkpoints.agreed(folder, stage.name)):
        enough = None
        if distribute.first():  # one process decides for all
            enough = calibration_suffices(undistributed(taught), val, image_quality)
        if distribute.agreed(enough is not None):
            if enough:
                display.show(f": {enough}")
                untrained |= dataclasses.asdict(enough)
            return model, [untrained]
    taught, rows = fit(
        taught, stage, train, val, folder, measure=lambda m: measure(m.student), display=display,
        callbacks=callbacks, compiled=True,
    )  # fmt: skip
    trained = True
    if distribute.first():  # one process decides for all
        choice = choose(undistributed(taught), before, val, image_quality)
        untrained |= dataclasses.asdict(choice)
        display.show(f": {choice}")
        trained = choice.chosen == QAT
    if not distribute.agreed(trained):
        taught.student.set_weights(before)
    names = {"loss": "distillation_loss"}  # not comparable with the loss of the earlier stages
    rows = [{names.get(key, key): value for key, value in row.items()} for row in rows]
    return taught.student, [untrained, *rows]


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which weights of an int8 model are used, and why."""

    chosen: str  # "qat" or "ptq"
    reason: str

    def __str__(self) -> str:
        return f"the weights {WEIGHTS[self.chosen]} are kept: {self.reason}"


def calibration_suffices(
    taught: Any, val: Epoch, image_quality: ImageQuality | None
) -> Choice | None:
    """Return the choice of the weights as they are if they lose no more than chance, else None.

    They do if the mean loss of quality against the float model over the validation images is
    within twice its standard error, and small enough: with the error at most LARGEST_LOSS.
    `taught` is a result of `kzoo.distill`.
    """
    if image_quality is None:
        return None
    losses = [np.zeros(0)]
    for i in range(len(val)):
        images = val[i][0]
        of_float, of_int8 = (  # a plain model computes as the teacher: the student has the anchors
            image_quality(taught.student, predictions(model, images, val.batch_size), val, i)
            for model in (taught.teacher, taught.student)
        )
        losses.append(np.asarray(of_float, float) - of_int8)
    n, loss, error = mean_and_error(np.concatenate(losses))
    error = error or 1 / n  # a few images that all agree prove little
    if loss > 2 * error or loss + error > LARGEST_LOSS:
        return None
    lost = f"loses {loss:.4f}" if loss > 0 else f"gains {-loss:.4f}" if loss else "loses nothing"
    return Choice(
        PTQ,
        f"calibration {lost} on average over {n} validation images, within twice the standard "
        f"error of {error:.4f}, so that training was left out (--qat always trains)",
    )


def mean_and_error(values: np.ndarray) -> tuple[int, float, float]:
    """Return (number, mean, standard error of the mean) of the values that are finite."""
    values = values[np.isfinite(values)]
    n = len(values)
    error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else np.inf
    return n, float(values.mean()) if n else 0.0, error


def choose(
    taught: Any, before: Sequence[np.ndarray], val: Epoch, image_quality: ImageQuality | None
) -> Choice:
    """Choose between the weights of a trained int8 model and those that it had `before`.

    The weights with the better quality on the validation images are used if the mean difference
    over images is above its standard error. Otherwise those with outputs nearer to the float
    model's are used. `taught` is a result of `kzoo.distill`.
    """
    after = taught.student.get_weights()
    if [weight.shape for weight in before] != [weight.shape for weight in after]:
        return Choice(QAT, "another version of kzoo began to train them, and quantized otherwise")
    weights = {QAT: after, PTQ: before}
    (trained, far_trained), (untrained, far_untrained) = judged(taught, weights, val, image_quality)
    taught.student.set_weights(after)
    n, mean, error = mean_and_error(trained - untrained)
    if abs(mean) > error:
        return Choice(
            QAT if mean > 0 else PTQ,
            f"better by {abs(mean):.4f} on average over {n} validation images, more than the "
            f"standard error of {error:.4f}",
        )
    nearer = far_trained < far_untrained
    measured = (
        f"trained and untrained differ by {abs(mean):.4f} on average over {n} validation images, "
        f"within the standard error of {error:.4f}; " if mean else
        f"trained and untrained are equally good on {n} validation images; " if n > 1 else ""
    )  # fmt: skip
    near, far = sorted([far_trained, far_untrained])
    return Choice(
        QAT if nearer else PTQ,
        f"{measured}these are nearer to the float model (divergence {near:.4g} against {far:.4g})",
    )


def judged(
    taught: Any, weights: Mapping[str, Sequence[np.ndarray]], val: Epoch,
    image_quality: ImageQuality | None,
) -> list[tuple[np.ndarray, float]]:  # fmt: skip
    """Return (quality of each validation image (n,), divergence) for each of `weights` in order.

    The quality is empty without `image_quality`. The divergence is the mean of
    `taught.differences` between the outputs of student and teacher, usually the squared difference
    divided by the variance, which training minimizes (with that of the residual blocks). The
    student keeps the last of the weights.
    """
    qualities, divergences = ({name: [np.zeros(0)] for name in weights} for _ in range(2))
    for i in range(len(val)):
        images = val[i][0]
        wanted = predictions(taught.teacher, images, val.batch_size)
        for name, values in weights.items():
            taught.student.set_weights(values)
            found = predictions(taught.student, images, val.batch_size)
            each = taught.differences(*map(as_tensors, (wanted, found)))
            divergences[name].append(keras.ops.convert_to_numpy(sum(each) / len(each)))
            if image_quality:
                quality = image_quality(taught.student, found, val, i)
                qualities[name].append(np.asarray(quality, float))
    return [
        (np.concatenate(qualities[name]), float(np.concatenate(divergences[name]).mean()))
        for name in weights
    ]


def predictions(model: keras.Model, images: np.ndarray, batch_size: int) -> Any:
    """Return the outputs for a batch, padded to `batch_size`: TensorFlow traces for each size."""
    filled = np.resize(images, (batch_size, *images.shape[1:]))
    outputs = model.predict_on_batch(filled)
    return keras.tree.map_structure(lambda values: values[: len(images)], outputs)


def as_tensors(arrays: Any) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_tensor, arrays)
