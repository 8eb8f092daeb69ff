"""Weights into models: what fits, and what weights ask of their model."""

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from kzoo import imagenet
from kzoo.checkpoint import ROW, Checkpoint, Unit
from kzoo.formats import read_checkpoint


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
    """A model's convolution or dense layer, and the batch normalization behind it.

    A normalization that stands behind neither is `layer` and `norm` at once.
    """

    layer: Any  # a layer of Keras
    norm: Any  # a BatchNormalization or None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.layer.name, self.norm.name) if self.norm else (self.layer.name,)

    @property
    def shape(self) -> tuple[int, ...]:
        """The kernel's shape, of a dense layer that of the 1 x 1 convolution it is."""
        if self.norm is self.layer:
            return (1, 1, self.norm.gamma.shape[0], 1)
        shape = tuple(self.layer.kernel.shape)
        return shape if len(shape) == 4 else (1, 1, *shape)


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
                f"{model.name!r} has {trait}={value!r}, and {checkpoint.source!r} was trained with "
                f"{trait}={wanted!r}: it would predict badly. Build the model with "
                f"weights={checkpoint.source!r}, which sets both, or with {trait}={wanted!r}."
            )


def targets(model: keras.Model) -> tuple[list[Target], list[Target]]:
    """The model's units in reading order: those of its rows, and those of its head.

    A classifier's head layers are called head_..., other heads' as they like.
    """
    norms = {
        id(layer.input): layer
        for layer in model.layers
        if isinstance(layer, layers.BatchNormalization)
    }
    kinds = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)
    found = []
    for layer in reading_order(model):
        if isinstance(layer, kinds):
            found.append(Target(layer, norms.pop(id(layer.output), None)))
        elif layer in norms.values() and layer.name.startswith("row"):
            found.append(Target(layer, layer))
    rows = [target for target in found if ROW.match(target.layer.name)]
    head = [target for target in found if not ROW.match(target.layer.name)]
    if not rows:
        raise ValueError(
            f"{model.name!r} has no layers called row0_conv, row1_...: weights are loaded into "
            "kzoo's models. Pass the backbone itself, not a model that holds it as one layer."
        )
    return rows, head


def reading_order(model: keras.Model) -> list[keras.Operation]:
    """The layers, each after all that it reads, in the order in which it reads them.

    `model.layers` has the longer of two branches first, whichever that is.
    """
    inside = set(map(id, getattr(model, "operations", model.layers)))
    stack = [tensor._keras_history.operation for tensor in reversed(model.outputs)]
    found: dict[int, keras.Operation] = {}
    opened = set()
    while stack:
        op = stack[-1]
        reads = [t._keras_history.operation for n in op._inbound_nodes for t in n.input_tensors]
        before = [other for other in reads if id(other) in inside and id(other) not in found]
        if before and id(op) not in opened:
            opened.add(id(op))
            stack += reversed(before)
        else:
            found.setdefault(id(op), stack.pop())
    return list(found.values())


Pairs = list[tuple[Target, Unit]]


def assign(model: keras.Model, checkpoint: Checkpoint) -> Loaded:
    """Match a file's units with the model's, check all shapes, then assign.

    kzoo's own layers are matched by name, others in reading order. Of a head for other classes, the
    layers as wide as those stay new. So does a classifier that the file lacks, and another task's
    head when the file is a classifier's. A detector's or segmenter's file gives a backbone or
    classifier its rows. Raises ValueError otherwise.
    """
    rows, head = targets(model)
    match = pairs_by_name if checkpoint.by_name else pairs_in_order
    pairs = match(model, checkpoint, rows, head)
    for variable, value in [v for pair in pairs for v in values(*pair, checkpoint.norm_epsilon)]:
        variable.assign(value)
    loaded = tuple(target.layer.name for target, _ in pairs)
    new = tuple(t.layer.name for t in rows + head if t.layer.name not in loaded)
    return Loaded(checkpoint.source, loaded, new)


def pairs_in_order(
    model: keras.Model, checkpoint: Checkpoint, rows: list[Target], all_heads: list[Target]
) -> Pairs:
    body, top = checkpoint.units[: len(rows)], checkpoint.units[len(rows) :]
    classifies = is_classifier(target.layer.name for target in all_heads)
    if checkpoint.head and classifies:
        body, top = checkpoint.units[: -checkpoint.head], ()
    head = all_heads if classifies or len(top) > MOST_TOP else []
    wanted = rows + head if top else rows
    units = body + top if head or len(top) > MOST_TOP else body
    if head and top and len(units) == len(wanted):
        units = (*units[:-1], fit_classes(units[-1], wanted[-1].shape))
    if [unit.kernel.shape for unit in units] != [target.shape for target in wanted]:
        if not (head and top and same_but_classes(units, wanted)):
            from kzoo.mismatch import kernel_apart, mismatch

            raise ValueError(mismatch(model, checkpoint, kernel_apart(wanted, units)))
        kept = [i for i, target in enumerate(wanted) if not of_classes(target)]
        wanted, units = [wanted[i] for i in kept], tuple(units[i] for i in kept)
    return list(zip(wanted, units, strict=True))


def pairs_by_name(
    model: keras.Model, checkpoint: Checkpoint, rows: list[Target], head: list[Target]
) -> Pairs:
    from kzoo.mismatch import layer_apart, mismatch

    file = {unit.name: unit for unit in checkpoint.units}
    names = {name for target in rows + head for name in target.names}
    top, own = head_names(file), head_names(names)
    end = last_row(file, names)
    wanted = [target for target in rows if row_number(target.layer.name) <= end]
    given = {name for name in file.keys() - top if row_number(name) <= end}
    if top and own and is_classifier(top) == is_classifier(own):
        wanted, given = wanted + head, given | top
    apart = layer_apart(wanted, {name: unit for name, unit in file.items() if name in given})
    if apart:
        raise ValueError(mismatch(model, checkpoint, apart))
    pairs = [(target, with_norm(target, file)) for target in wanted]
    return [(target, unit) for target, unit in pairs if target.shape == unit.kernel.shape]


def last_row(file: Iterable[str], model: Iterable[str]) -> int:
    """The last row to compare.

    A segmenter leaves out the row that only widens for a classifier. So what a segmenter has no use
    for may be in its file, and what its file lacks may stay new in a backbone.
    """
    last = [max(map(row_number, names)) for names in (file, model)]
    top, own = head_names(file), head_names(model)
    may_differ = not is_classifier(own) or (not own and not is_classifier(top))
    return min(last) if may_differ else max(last)


def head_names(names: Iterable[str]) -> set[str]:
    return {name for name in names if not ROW.match(name)}


def is_classifier(head: Iterable[str]) -> bool:
    """Whether layers that are no row's are a classifier's, or there are none."""
    return all(name.startswith("head_") for name in head)


def row_number(name: str) -> int:
    row = ROW.match(name)
    return int(row[1]) if row else -1


def with_norm(target: Target, file: dict[str, Unit]) -> Unit:
    unit = file[target.layer.name]
    return dataclasses.replace(unit, norm=file[target.norm.name].norm) if target.norm else unit


def fit_classes(unit: Unit, shape: tuple[int, ...]) -> Unit:
    """TF-slim's classifiers have 1,001 classes, the first of which is background: left out."""
    if (unit.kernel.shape[-1], shape[-1]) != (1001, 1000):
        return unit
    bias = None if unit.bias is None else unit.bias[1:]
    return dataclasses.replace(unit, kernel=unit.kernel[..., 1:], bias=bias)


def of_classes(target: Target) -> bool:
    """Whether a layer's width is that of the classes, in whatever head."""
    return bool(re.search(r"(^|_)logits(\d+_project)?$|(^|_)classify", target.layer.name))


def same_but_classes(units: tuple[Unit, ...], wanted: list[Target]) -> bool:
    """Equal shapes but for the number of classes, which some kernels have last."""
    return len(units) == len(wanted) and all(
        fits(unit, target) for unit, target in zip(units, wanted, strict=True)
    )


def fits(unit: Unit, target: Target) -> bool:
    """Whether the shapes are equal, but for the number of classes where that is the last."""
    found, wanted = unit.kernel.shape, target.shape
    return found[:3] == wanted[:3] and (found[3] == wanted[3] or of_classes(target))


def values(
    target: Target, unit: Unit, epsilon: float | None
) -> list[tuple[keras.Variable, np.ndarray]]:
    """The variables of a target, with the values that make it compute what the unit does.

    `epsilon` is that of the unit's normalization; None for the target's own.
    """
    layer, norm = target.layer, target.norm
    per_channel = layer is norm or isinstance(layer, layers.DepthwiseConv2D)
    width = unit.kernel.shape[2 if per_channel else 3]
    bias = np.zeros(width, "float32") if unit.bias is None else unit.bias
    result = []
    if layer is not norm:
        result.append((layer.kernel, unit.kernel.reshape(layer.kernel.shape)))
        if layer.use_bias:
            result.append((layer.bias, bias))
        elif norm is None and bias.any():
            raise ValueError(
                f"{unit.name!r} has a bias, and {layer.name!r} has none to load it into."
            )
    if unit.norm and norm is None:
        raise ValueError(f"{unit.name!r} is normalized, and {layer.name!r} is not.")
    if norm is not None:
        one = np.ones(width, "float32")
        # One that was folded into kernel and bias has mean 0 and variance 1, and no epsilon.
        gamma, beta, mean, variance = unit.norm or (one, bias, 0 * one, one)
        theirs = 0.0 if not unit.norm else norm.epsilon if epsilon is None else epsilon
        if theirs != norm.epsilon:
            ratio = (variance.astype("float64") + norm.epsilon) / (variance + theirs)
            gamma = gamma * np.sqrt(ratio)
        variables = (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        result += list(zip(variables, (gamma, beta, mean, variance), strict=True))
    return result


MOST_TOP = 2  # kernels of the largest classifier, V3's: the wide layer and the logits
