"""Weights into models: what fits, what does not and why, and what the weights ask of their model."""

import dataclasses
import functools
import os
import re
from typing import Any

import keras
import numpy as np
from keras import layers

from kzoo.formats import Checkpoint, Unit, read_checkpoint


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Which layers got weights from a file, and which are new (still as initialized)."""

    source: str
    loaded: tuple[str, ...]
    new: tuple[str, ...]

    def __str__(self) -> str:
        new = f"; new: {', '.join(self.new)}" if self.new else ""
        return f"{len(self.loaded)} layers loaded from {self.source}{new}"


@dataclasses.dataclass(frozen=True)
class Target:
    """A model's convolution or dense layer, and the batch normalization behind it."""

    layer: keras.Layer
    norm: keras.Layer | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The kernel's shape, of a dense layer that of the 1 x 1 convolution it is."""
        shape = tuple(self.layer.kernel.shape)
        return shape if len(shape) == 4 else (1, 1, *shape)


def open_checkpoint(
    weights: str | os.PathLike, model_name: str, alpha: float, *, include_top: bool
) -> Checkpoint:
    """What `weights` names: "imagenet" or a file. Raises ValueError for what cannot be read."""
    if weights == "imagenet":
        raise NotImplementedError
    return read_checkpoint(weights)


def load_weights(model: keras.Model, weights: str | os.PathLike) -> Loaded:
    """Load a weight file into a model that kzoo has built, its backbone, or a task model around it.

    Raises ValueError where they do not fit, also where the weights want another padding or scaling of
    the input than the model has: building it with `weights=` sets both.
    """
    checkpoint = read_checkpoint(weights)
    check_traits(model, checkpoint)
    return assign(model, checkpoint)


def check_traits(model: keras.Model, checkpoint: Checkpoint) -> None:
    """Raise ValueError where a model pads or scales its input otherwise than the weights want."""
    from kzoo.build import PREPROCESSING  # build imports this module

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
                f"{model.name!r} has {trait}={value!r}, and the weights of {checkpoint.source!r} are made "
                f"for {trait}={wanted!r}: it would predict badly. Build the model with "
                f"weights={checkpoint.source!r}, which sets both, or with {trait}={wanted!r}."
            )


def targets(model: keras.Model) -> tuple[list[Target], list[Target]]:
    """The model's units in graph order: those of its rows, and those of its classifier."""
    norms = {
        id(layer.input): layer
        for layer in model.layers
        if isinstance(layer, layers.BatchNormalization)
    }
    kinds = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)
    found = [
        Target(layer, norms.get(id(layer.output)))
        for layer in model.layers
        if isinstance(layer, kinds)
    ]
    rows = [target for target in found if re.match(r"row\d+_", target.layer.name)]
    head = [target for target in found if target.layer.name.startswith("head_")]
    if not rows:
        raise ValueError(
            f"{model.name!r} has no layers called row0_conv, row1_...: weights are loaded into kzoo's "
            "models. Pass the backbone itself, not a model that holds it as one layer."
        )
    return rows, head


def assign(model: keras.Model, checkpoint: Checkpoint) -> Loaded:
    """Match a file's units with the model's in graph order, check all shapes, then assign.

    A classifier for other classes, or that the file lacks, stays new. Raises ValueError otherwise.
    """
    rows, head = targets(model)
    body, top = checkpoint.units[: len(rows)], checkpoint.units[len(rows) :]
    if head and top:
        rows, body = rows + head, body + top
    if len(body) != len(rows) or len(top) > MOST_TOP:
        mismatch(model, checkpoint, rows, body + top)
    pairs = []
    for target, unit in zip(rows, body, strict=True):
        last = bool(top) and unit is body[-1] and target in head
        if last:
            unit = without_background(unit, target.shape)
        if unit.kernel.shape != target.shape:
            if last and unit.kernel.shape[:3] == target.shape[:3]:
                continue  # other classes: the classifier stays new
            mismatch(model, checkpoint, rows, body)
        pairs.append((target, values(target, unit)))
    for _, assignments in pairs:
        for variable, value in assignments:
            variable.assign(value)
    loaded = tuple(target.layer.name for target, _ in pairs)
    new = tuple(t.layer.name for t in head if t.layer.name not in loaded)
    return Loaded(checkpoint.source, loaded, new)


MOST_TOP = 2  # units of the largest head, V3's: the wide layer and the logits


def without_background(unit: Unit, shape: tuple[int, ...]) -> Unit:
    """TF-slim's classifiers have 1,001 classes, the first of which is background."""
    if unit.kernel.shape[-1] != 1001 or shape[-1] != 1000:
        return unit
    bias = None if unit.bias is None else unit.bias[1:]
    return dataclasses.replace(unit, kernel=unit.kernel[..., 1:], bias=bias)


def values(target: Target, unit: Unit) -> list[tuple[Any, np.ndarray]]:
    """The variables of a target with the values that make it compute what the unit does."""
    layer, norm = target.layer, target.norm
    width = unit.kernel.shape[2 if isinstance(layer, layers.DepthwiseConv2D) else 3]
    bias = np.zeros(width, "float32") if unit.bias is None else unit.bias
    result = [(layer.kernel, unit.kernel.reshape(layer.kernel.shape))]
    if layer.use_bias:
        result.append((layer.bias, bias))
    if norm is not None:
        # A folded normalization is one with mean 0 and variance 1 whose epsilon is undone by gamma.
        gamma = np.full(width, np.sqrt(1 + norm.epsilon), "float32")
        gamma, beta, mean, variance = unit.norm or (
            gamma, bias, np.zeros(width, "float32"), np.ones(width, "float32"),
        )  # fmt: skip
        variables = (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        result += list(zip(variables, (gamma, beta, mean, variance), strict=True))
    return result


def mismatch(
    model: keras.Model, checkpoint: Checkpoint, wanted: list[Target], units: tuple[Unit, ...]
) -> None:
    raise ValueError("mismatch")
