"""Predictions of images as values and as text, and models as functions of pixels."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo.sizes import Size, simplest
from kzoo.tflite import Runner
from kzoo.weights.saved_model import load_model

DRAWN = "predicted"  # the folder beside a model's file that drawings go to


@dataclasses.dataclass(frozen=True)
class Found:
    """A predicted class, object or region of an image."""

    label: str
    score: float  # in [0, 1]: probability, score of the object, or share of the image
    box: tuple[float, float, float, float] | None = None  # ymin, xmin, ymax, xmax in px

    def __str__(self) -> str:
        where = " at {:.0f}, {:.0f} to {:.0f}, {:.0f} px".format(*self.box) if self.box else ""
        return f"{self.label} {self.score:.0%}{where}"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one image; `problem` says why it could not be read, or is ""."""

    image: Path
    found: tuple[Found, ...] = ()  # the best first
    drawn: Path | None = None  # the file that shows it
    problem: str = ""
    remark: str = ""  # on how the image was read

    def __str__(self) -> str:
        if self.problem:
            return f"{self.image} cannot be read: {self.problem}"
        words = ("; " if any(one.box for one in self.found) else ", ").join(map(str, self.found))
        drawn = f" (drawn in {self.drawn})" if self.drawn else ""
        remark = f" ({self.remark})" if self.remark else ""
        return f"{self.image}: {words or 'nothing found'}{drawn}{remark}"


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A loaded model of some task."""

    size: Size  # of the images that it takes
    run: Callable[[Sequence[Path], np.ndarray], list[Prediction]]
    # ^ (paths, images (N, H, W, 3) uint8) -> a prediction for each


def require_names(classes: int, labels: Sequence[str]) -> None:
    """Raise ValueError unless there is a label for each of a model's classes."""
    if classes != len(labels):
        raise ValueError(
            f"The model gives {classes} scores, and its labels name {len(labels)} classes: name "
            "all of them in the model's order (a net of TF-slim has a background first)."
        )


def label_of(labels: Sequence[str] | None, index: Any) -> str:
    """Return the name of a class, or "class INDEX" if it has none."""
    index = int(index)
    return labels[index] if labels and index < len(labels) else f"class {index}"


@dataclasses.dataclass(frozen=True)
class PixelModel:
    """`model(images)` returns the outputs for images (N, H, W, 3) uint8 of its input size."""

    run: Callable[[np.ndarray], Any]
    size: Size

    def __call__(self, images: np.ndarray) -> Any:
        return self.run(images)


def open_model(model: keras.Model | Path) -> PixelModel:
    """Return a Keras model, or that of a .keras or .tflite file, as a function of pixels.

    A float input of a .tflite file gets pixels normalized by its metadata, else in [0, 255].
    """
    if isinstance(model, Path) and model.suffix == ".keras":
        model = load_model(model)
    if not isinstance(model, keras.Model):
        runner = Runner(model)
        return PixelModel(runner.on_pixels, simplest(*runner.input.shape[1:3]))
    net = model

    def run(images: np.ndarray) -> Any:
        floats = images.astype("float32")
        return net.predict_on_batch(floats) if len(floats) == 1 else net.predict(floats, verbose=0)

    return PixelModel(run, simplest(*net.input_shape[1:3]))
