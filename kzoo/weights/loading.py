"""Loading of weights into models, and checks that padding and input scaling match."""

import dataclasses
import os
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from kzoo.preprocessing import PREPROCESSING
from kzoo.weights.checkpoint import Checkpoint
from kzoo.weights.download import fetch
from kzoo.weights.labels import labels_of
from kzoo.weights.matching import Loaded, assign
from kzoo.weights.named import is_name, published, published_head
from kzoo.weights.published import PublishedWeights, Scaling
from kzoo.weights.reading import read_checkpoint


def open_checkpoint(
    weights: str | os.PathLike[str],
    model_name: str,
    alpha: float,
    *,
    include_top: bool,
    sides: Sequence[int | None],
) -> Checkpoint:
    """Return the checkpoint of `weights` for a backbone: a file, or a published one by name."""
    if not is_name(weights):
        return read_checkpoint(weights)
    row = published(str(weights), model_name, alpha, include_top=include_top, sides=sides)
    return read_published(row)


def read_published(row: PublishedWeights) -> Checkpoint:
    """Return the checkpoint of a published file, with the padding, scaling and labels it needs."""
    return dataclasses.replace(read_checkpoint(fetch(row)), **row.traits, labels=labels_of(row))


# The head that a model has, by the prefix of its layers' names.
HEADS = {"lraspp_": "lraspp", "aspp_": "deeplabv3", "boxes0_": "ssdlite"}


def load_weights(
    model: keras.Model, weights: str | os.PathLike[str], *, labels: Sequence[str] | None = None
) -> Loaded:
    """Load weights into a kzoo model and return what was loaded.

    model: a backbone, classifier, detector or segmenter built by kzoo.
    weights: the path of a file; "coco" for a detector, "voc" for a segmenter.
    labels: class names of the model in order, a segmenter's "background" included. Classes that the
        weights have by these names keep their weights in the head; with None the head keeps them
        only if it has as many classes as the file.

    Raises ValueError if shapes do not match, and if the weights were trained with another padding
    or input scaling than the model has: building the model with `weights=` sets both.
    """
    if is_name(weights):
        heads = {head for start, head in HEADS.items() if has_layer(model, start)}
        if not heads:
            raise ValueError(
                "load_weights takes the path of a file, or what detectors and segmenters are "
                f'called ("coco", "voc"). For {weights!r}, build the model with it: '
                f"MobileNetV2(weights={weights!r})."
            )
        checkpoint = read_published(published_head(str(weights), heads.pop()))
    else:
        checkpoint = read_checkpoint(weights)
    check_traits(model, checkpoint)
    return assign(model, checkpoint, labels)


def has_layer(model: keras.Model, start: str) -> bool:
    return any(layer.name.startswith(start) for layer in model.layers)


def preprocessing_of(checkpoint: Checkpoint, own: Scaling) -> Scaling:
    """Return the preprocessing that a file's weights need, or `own` if the file has none.

    Raises ValueError for a scaling that is none of kzoo's.
    """
    if checkpoint.preprocessing == "other":
        raise ValueError(
            f"{checkpoint.source!r} was trained on pixels that are scaled otherwise than by any "
            "preprocessing of kzoo: its predictions would be wrong. Build the model with "
            "preprocessing=None, and scale images in front of it as the file's own model does."
        )
    return checkpoint.preprocessing or own


def check_traits(model: keras.Model, checkpoint: Checkpoint) -> None:
    """Raise ValueError if the model's padding or input scaling differs from that of the weights."""
    padded = any(
        isinstance(layer, layers.ZeroPadding2D) and layer.name.startswith("row")
        for layer in model.layers
    )
    scalings = [layer for layer in model.layers if layer.name == "preprocessing"]
    offsets = [np.ravel(layer.offset).tolist() for layer in scalings]
    known = {str(np.ravel(offset).tolist()): name for name, (_, offset) in PREPROCESSING.items()}
    has = {
        "padding": "symmetric" if padded else "same",
        "preprocessing": known.get(str(offsets[0]), "other") if offsets else None,
    }
    if offsets:
        preprocessing_of(checkpoint, "tf")
    for trait, value in has.items():
        wanted = getattr(checkpoint, trait)
        if value and wanted and value != wanted:
            raise ValueError(
                f"{model.name!r} has {trait}={value!r}, and {checkpoint.source!r} was trained with "
                f"{trait}={wanted!r}: its predictions would be wrong. Build the model with "
                f"weights={checkpoint.source!r}, which sets both, or with {trait}={wanted!r}."
            )
