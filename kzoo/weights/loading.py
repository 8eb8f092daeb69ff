"""Weights into models: what fits, and what weights ask of their model."""

import os
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from kzoo.weights import pretrained as imagenet
from kzoo.weights.checkpoint import Checkpoint
from kzoo.weights.matching import Loaded, assign
from kzoo.weights.reading import read_checkpoint


def open_checkpoint(
    weights: str | os.PathLike,
    model_name: str,
    alpha: float,
    *,
    include_top: bool,
    sides: Sequence[int | None],
) -> Checkpoint:
    """What `weights` names: a file, or "imagenet", which depends on model and image size."""
    if weights == "imagenet":
        wanted = imagenet.official(model_name, alpha, include_top=include_top, sides=sides)
        weights = imagenet.fetch(wanted)
    return read_checkpoint(weights)


def load_weights(model: keras.Model, weights: str | os.PathLike) -> Loaded:
    """Load a weight file into a model that kzoo has built, its backbone, or a task model around it.

    Raises ValueError where they do not fit, also where the weights want another padding or scaling
    of the input than the model has: building it with `weights=` sets both.
    """
    if weights == "imagenet":
        raise ValueError(
            'load_weights takes the path of a file. For "imagenet", build the model with it: '
            'MobileNetV2(weights="imagenet").'
        )
    checkpoint = read_checkpoint(weights)
    check_traits(model, checkpoint)
    return assign(model, checkpoint)


def check_traits(model: keras.Model, checkpoint: Checkpoint) -> None:
    """Raise ValueError where a model pads or scales its input otherwise than the weights want."""
    from kzoo.preprocessing import PREPROCESSING

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
    for trait, value in has.items():
        wanted = getattr(checkpoint, trait)
        if value and wanted and value != wanted:
            raise ValueError(
                f"{model.name!r} has {trait}={value!r}, and {checkpoint.source!r} was trained with "
                f"{trait}={wanted!r}: it would predict badly. Build the model with "
                f"weights={checkpoint.source!r}, which sets both, or with {trait}={wanted!r}."
            )
