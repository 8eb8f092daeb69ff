"""Class names of published weights, and decoding of ImageNet predictions."""

import functools
import importlib.resources
from typing import Any

import keras
import numpy as np

from kzoo.arguments import is_whole, require
from kzoo.weights.published import PublishedWeights

FILES = {"ImageNet-1k": "imagenet", "COCO 2017": "coco", "COCO 2017, VOC classes": "voc"}


@functools.cache
def lines(name: str) -> tuple[str, ...]:
    file = importlib.resources.files("kzoo.weights") / "data" / f"{name}.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())


def labels(dataset: str) -> tuple[str, ...]:
    """Return the class names of "imagenet" (1,000), "coco" (90) or "voc" (21), in output order.

    COCO's ids go from 1 to 90 and leave ten out, which are called "N/A" here; VOC's first class is
    "background". Raises ValueError for other names.
    """
    require("dataset", dataset, dataset in FILES.values(), f"one of {', '.join(FILES.values())}")
    if dataset == "imagenet":
        return tuple(line.partition(" ")[2].replace("_", " ") for line in lines(dataset))
    return lines(dataset)


def labels_of(row: PublishedWeights) -> tuple[str, ...]:
    """Return the class names of a published file."""
    return labels(FILES[row.dataset])


def decode_predictions(probabilities: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Return the `top` classes of each image as (WordNet id, name, score), most probable first.

    The format is that of keras.applications' decode_predictions.

    probabilities: (N, 1000), outputs of a classifier with ImageNet weights.
    top: in [1, 1000].

    Raises ValueError for other shapes and values of `top`.
    """
    scores = np.asarray(keras.ops.convert_to_numpy(probabilities))
    fits = scores.ndim == 2 and scores.shape[1] == 1000
    require("probabilities", scores.shape, fits, "of shape (N, 1000), with ImageNet's classes")
    require("top", top, is_whole(top) and 1 <= top <= 1000, "a whole number from 1 to 1000")
    classes = [tuple(line.split(" ", 1)) for line in lines("imagenet")]
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [(*classes[i], float(row[i])) for i in chosen]
        for row, chosen in zip(scores, best, strict=True)
    ]
