"""Predictions of classifiers from .keras and .tflite files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kzoo.recipes.prediction import (
    Found,
    Prediction,
    Predictor,
    label_of,
    open_model,
    require_names,
)
from kzoo.recipes.training.run_folder import labels_of


def class_predictor(file: Path, top: int) -> Predictor:
    """Return a predictor of the `top` classes of images, by the classifier in a file."""
    classifier, labels = open_model(file), labels_of(file)

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
