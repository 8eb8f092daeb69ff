"""The layers of a model that weights are loaded into, in graph order."""

import dataclasses
import re
from typing import Any

import keras
from keras import layers

from kzoo.weights.checkpoint import ROW, Unit

MOST_TOP = 2  # largest number of kernels in a classifier's head (V3: hidden layer and logits)


@dataclasses.dataclass(frozen=True)
class Target:
    """A model's convolution or dense layer and the batch normalization after it.

    A batch normalization after neither is both `layer` and `norm`.
    """

    layer: Any  # a layer of Keras
    norm: Any  # a BatchNormalization or None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.layer.name, self.norm.name) if self.norm else (self.layer.name,)

    @property
    def shape(self) -> tuple[int, ...]:
        """The kernel's shape, for a dense layer that of the equivalent 1x1 convolution."""
        if self.norm is self.layer:
            return (1, 1, self.norm.gamma.shape[0], 1)
        shape = tuple(self.layer.kernel.shape)
        return shape if len(shape) == 4 else (1, 1, *shape)


def targets(model: keras.Model) -> tuple[list[Target], list[Target]]:
    """Return (targets of the backbone's rows, targets of the head), in graph order.

    Layers of a classifier's head are called head_...; other heads have other names. Raises
    ValueError for a model without rows.
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
    """Return the layers in topological order; branches in the order in which a layer reads them.

    The order of branches in `model.layers` depends on their lengths.
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


def row_number(name: str) -> int:
    row = ROW.match(name)
    return int(row[1]) if row else -1


def of_classes(target: Target) -> bool:
    """Return whether a layer's width depends on the number of classes."""
    return bool(re.search(r"(^|_)logits(\d+_project)?$|(^|_)classify", target.layer.name))


def fits(unit: Unit, target: Target) -> bool:
    """Return whether shapes are equal, except for the number of classes."""
    found, wanted = unit.kernel.shape, target.shape
    return found[:3] == wanted[:3] and (found[3] == wanted[3] or of_classes(target))
