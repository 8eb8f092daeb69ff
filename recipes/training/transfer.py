"""What training from pretrained weights can spare: rows that need not learn, pixels."""

import re
from collections.abc import Collection

import keras

ROW = re.compile(r"(row\d+)_")
STEP = 16  # px: sides of training images are multiples of it


def fine_rows(model: keras.Model, stride: int) -> set[str]:
    """Return the rows ("row0", ...) that begin at a finer map than 1 / `stride` of the image.

    They find edges and textures, which photos share, and take most of a step's time.
    """
    first: dict[str, keras.layers.Layer] = {}
    for layer in model.layers:
        if found := ROW.match(layer.name):
            first.setdefault(found[1], layer)
    side = model.input_shape[1]
    return {row for row, layer in first.items() if side < stride * layer.input.shape[1]}


def freeze_pretrained(model: keras.Model, rows: Collection[str]) -> None:
    """Let all layers learn but those of these rows, and batch norms."""
    for layer in model.layers:
        found = ROW.match(layer.name)
        norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = not norm and not (found and found[1] in rows)


def training_side(size: int, share: float) -> int:
    """Return the side of training images in px: that share of `size`, or nearly."""
    return size if share == 1 else max(32, STEP * round(size * share / STEP))


def of_any_size(model: keras.Model) -> keras.Model:
    """Return a copy that takes images of any size; its weights are copied too."""
    image = keras.Input((None, None, *model.input_shape[3:]), name=model.inputs[0].name)
    copy = keras.models.clone_model(model, input_tensors=image)
    copy_weights(model, copy)
    return copy


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Give each layer of `target` the weights of that of its name."""
    for layer in source.layers:
        if layer.weights:
            target.get_layer(layer.name).set_weights(layer.get_weights())
