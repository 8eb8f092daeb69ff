"""A classifier, from whatever file it is in, as a function from images to probabilities."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

from kzoo.recipes.prediction import Found, Prediction, Predictor, label_of, require_names
from kzoo.recipes.training.run_folder import labels_of
from kzoo.sizes import Size, simplest
from kzoo.tflite import Runner
from kzoo.weights.saved_model import load_model


@dataclasses.dataclass(frozen=True)
class LoadedClassifier:
    """`classifier(images)`: probabilities (N, classes) of images (N, H, W, 3) uint8."""

    run: Callable[[np.ndarray], np.ndarray]
    size: Size

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.run(images)


def load_classifier(model: keras.Model | Path) -> LoadedClassifier:
    """Return the classifier of a model, or of a .keras or .tflite file.

    A .tflite file that takes floats is given what its metadata say, or pixels in [0, 255].
    """
    if isinstance(model, Path) and model.suffix == ".keras":
        model = load_model(model)
    if isinstance(model, keras.Model):
        predict, size = model.predict, model.input_shape[1:3]
        # As bytes, as `compare` does: TensorFlow traces a model for each type of images.
        return LoadedClassifier(lambda images: predict(images, verbose=0), size)
    runner = Runner(model)
    return LoadedClassifier(runner.on_pixels, simplest(*runner.input.shape[1:3]))


def class_predictor(file: Path, top: int) -> Predictor:
    """Return what names the `top` classes of images, by the classifier of a file."""
    classifier, labels = load_classifier(file), labels_of(file)

    def run(paths: Sequence[Path], images: np.ndarray) -> list[Prediction]:
        scores = classifier(images)
        if labels:
            require_names(scores.shape[1], labels)
        return [
            Prediction(path, tuple(
                Found(label_of(labels, i), float(row[i])) for i in np.argsort(-row)[:top]
            ))
            for path, row in zip(paths, scores, strict=True)
        ]  # fmt: skip

    return Predictor(classifier.size, run)
