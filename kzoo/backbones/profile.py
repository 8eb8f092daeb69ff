"""A model's parameters and multiply-accumulates (MACs), per layer and in total.

MACs are those of convolutions, dense layers and attention's matrix products for one image, as the
papers count them: biases, residual additions, normalization, pooling, activations and the
multiplication of squeeze-and-excitation are left out.
"""

import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

Shape = tuple[int, ...]  # without the batch


def convolution(layer: Any, output: Shape) -> int:
    """Return output elements x kernel elements (*window, channels in)."""
    return math.prod(output) * math.prod(layer.kernel.shape[:-1])


def depthwise(layer: Any, output: Shape) -> int:
    """Return output elements x window elements; kernels are (*window, C, multiplier)."""
    return math.prod(output) * math.prod(layer.kernel.shape[:-2])


def transposed(layer: Any, output: Shape) -> int:
    """Return input elements x kernel elements (*window, channels out)."""
    return math.prod(layer.input.shape[1:]) * math.prod(layer.kernel.shape[:-1])


def product(layer: Any, output: Shape) -> int:
    """Return output elements x length of the contracted axis."""
    axis = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
    return math.prod(output) * layer.input[0].shape[axis]


def elementwise(layer: Any, output: Shape) -> int:
    return 0


# A rule holds for subclasses too. `profile` refuses a layer with weights that has no rule.
MACS: dict[type, Callable[[Any, Shape], int]] = {
    layers.Dense: convolution,
    layers.Conv1D: convolution,
    layers.Conv2D: convolution,
    layers.Conv3D: convolution,
    layers.DepthwiseConv1D: depthwise,
    layers.DepthwiseConv2D: depthwise,
    layers.Conv2DTranspose: transposed,
    layers.Dot: product,
    layers.BatchNormalization: elementwise,
    layers.LayerNormalization: elementwise,
    layers.Normalization: elementwise,
}


@dataclasses.dataclass(frozen=True)
class LayerProfile:
    """One layer: its output shape, (H, W, C) or (C,), parameters and MACs."""

    name: str
    kind: str
    output: Shape
    parameters: int
    trainable: int
    folded: int  # with batch normalization folded into the convolution before it
    macs: int

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}): {self.parameters:,} parameters, {self.macs:,} MACs"


@dataclasses.dataclass(frozen=True)
class Profile:
    """A model's cost for one image. `print(*profile.layers, sep="\\n")` shows each layer's."""

    name: str
    input: Shape
    layers: tuple[LayerProfile, ...]

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def trainable(self) -> int:
        return sum(layer.trainable for layer in self.layers)

    @property
    def folded(self) -> int:
        return sum(layer.folded for layer in self.layers)

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    def __str__(self) -> str:
        """Return a table by row of the architecture, or by layer for other models."""
        lines = [("", "output", "parameters", "folded", "MACs / M")]
        for label, group in itertools.groupby(self.layers, lambda layer: table_row(layer.name)):
            row = tuple(group)
            parameters, folded, macs = (
                sum(getattr(layer, cost) for layer in row)
                for cost in ("parameters", "folded", "macs")
            )
            if parameters:
                size = " x ".join(map(str, row[-1].output))
                lines.append((label, size, f"{parameters:,}", f"{folded:,}", f"{macs / 1e6:,.3f}"))
        total = (f"{self.parameters:,}", f"{self.folded:,}", f"{self.macs / 1e6:,.3f}")
        lines.append(("total", "", *total))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
            for line in lines
        ]
        size = " x ".join(map(str, self.input))
        return "\n".join([f"{self.name}, {size}: {self.trainable:,} trainable parameters", *table])


def table_row(layer_name: str) -> str:
    """Return the row of a layer: row13_expand_bn -> row13, head_logits -> head; else its name."""
    row = re.match(r"(.*/)?([a-z]+\d+|head)(?=_)", layer_name)
    return row[0] if row else layer_name


def profile(model: keras.Model, *, input_shape: tuple[int, ...] | None = None) -> Profile:
    """Return the parameters and MACs of `model`, layer by layer, without running it.

        print(kzoo.profile(kzoo.MobileNetV3Small()))

    model: a functional or sequential model of one input.
    input_shape: (H, W, C) of one image, for models without a fixed input size (None).

    Layers of a nested model are called "inner/layer". The parameters of a layer that is called
    twice count once. Raises ValueError for several inputs, for an open or wrong input size, and for
    a layer with weights that has no rule in `kzoo.backbones.profile.MACS`: add one there.
    """
    calls = trace(model, image_shape(model, input_shape))
    reads = Counter(id(tensor) for call in calls for tensor in call.inputs)
    makers = {id(call.output): call.layer for call in calls}

    counted: set[int] = set()
    profiles = []
    for call in calls:
        layer, output = call.layer, tuple(call.output.shape[1:])
        kind = type(layer).__name__
        weights = getattr(layer, "weights", [])  # bare operations have none
        rule = next((MACS[kind] for kind in type(layer).__mro__ if kind in MACS), None)
        if rule is None and weights:
            raise ValueError(
                f"profile() cannot count the MACs of {call.name!r}, a {kind}. Add a rule: "
                f"from kzoo.backbones.profile import MACS; MACS[{kind}] = lambda layer, output: ..."
            )
        total = trainable = folded = 0
        if id(layer) not in counted:
            counted.add(id(layer))
            total = sum(math.prod(weight.shape) for weight in weights)
            trainable = sum(math.prod(w.shape) for w in getattr(layer, "trainable_weights", []))
            folded = total
            if isinstance(layer, layers.BatchNormalization):
                (tensor,) = call.inputs
                alone = reads[id(tensor)] == 1
                folded = after_folding(layer, makers.get(id(tensor)) if alone else None)
        macs = rule(layer, output) if rule else 0
        profiles.append(LayerProfile(call.name, kind, output, total, trainable, folded, macs))
    return Profile(model.name, tuple(calls[0].inputs[0].shape[1:]), tuple(profiles))


def after_folding(norm: layers.BatchNormalization, before: Any) -> int:
    """Return the parameters of `norm` that remain after folding it into the layer `before`.

    A bias (n), none if that layer has a bias, scale and offset (2n) if it is no linear layer.
    """
    n = norm.moving_mean.shape[0]
    linear = getattr(before, "activation", None) is keras.activations.linear
    if not linear:
        return 2 * n
    return 0 if before.use_bias else n


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer or of a keras.ops function in the graph."""

    name: str
    layer: Any
    inputs: tuple[keras.KerasTensor, ...]
    output: keras.KerasTensor


def trace(model: keras.Model, shape: Shape) -> list[Call]:
    """Return every call of the graph in order, with the output shapes for an input of `shape`."""
    calls: list[Call] = []

    def record(layer: Any, *args: Any, prefix: str, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Model):
            return walk(layer, args[0], f"{prefix}{layer.name}/")
        result = layer.compute_output_spec(*args, **kwargs)
        inputs = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
        output = keras.tree.flatten(result)[0]
        calls.append(Call(f"{prefix}{layer.name}", layer, tuple(inputs), output))
        return result

    def walk(inner: Any, inputs: Any, prefix: str) -> Any:
        graph = keras.Model(inner.inputs, inner.outputs)  # of a Sequential too

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            return record(layer, *args, prefix=prefix, **kwargs)

        # The only walk that gives shapes for another input size and leaves the model untouched:
        # cloning it would draw new random weights, calling its layers would add to its graph.
        outputs = graph._run_through_graph(inputs, lambda layer: layer, call)
        return keras.tree.pack_sequence_as(inner.output, keras.tree.flatten(outputs))

    walk(model, keras.KerasTensor((1, *shape)), "")
    return calls


def image_shape(model: keras.Model, input_shape: tuple[int, ...] | None) -> Shape:
    """Return `input_shape`, or the model's own.

    Raises ValueError if a side is open or the two disagree.
    """
    own = [tuple(tensor.shape[1:]) for tensor in getattr(model, "inputs", None) or ()]
    if len(own) != 1:
        raise ValueError(
            f"profile() reads functional models with one input. {model.name!r} has {len(own)}: "
            "build it with keras.Model(image, outputs)."
        )
    shape = tuple(input_shape or own[0])
    if None in shape:
        raise ValueError(
            f"{model.name!r} takes inputs of any size, {own[0]}, and MACs depend on it. "
            "Pass one: profile(model, input_shape=(224, 224, 3))."
        )
    fits = len(shape) == len(own[0]) and all(
        b in (a, None) for a, b in zip(shape, own[0], strict=True)
    )
    if not fits:
        raise ValueError(
            f"input_shape must fit the model's own, {own[0]}: build the model for that size, or "
            f"for any, (None, None, 3). Received: input_shape={input_shape!r}"
        )
    return shape
