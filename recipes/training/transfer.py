"""Freezing of pretrained rows in transfer learning."""

import re
from collections.abc import Collection

import keras

ROW = re.compile(r"(row\d+)_")


def fine_rows(model: keras.Model, stride: int) -> set[str]:
    """Return the rows ("row0", ...) whose input is finer than 1 / `stride` of the image.

    They detect edges and textures, which all photos share, and take most of a step's time.
    """
    first: dict[str, keras.layers.Layer] = {}
    for layer in model.layers:
        if found := ROW.match(layer.name):
            first.setdefault(found[1], layer)
    side = model.input_shape[1]
    return {row for row, layer in first.items() if side < stride * layer.input.shape[1]}


def freeze_pretrained(model: keras.Model, rows: Collection[str]) -> None:
    """Make all layers trainable except these rows and all batch norms."""
    for layer in model.layers:
        found = ROW.match(layer.name)
        norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = not norm and not (found and found[1] in rows)
