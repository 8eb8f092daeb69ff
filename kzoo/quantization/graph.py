"""The intermediate representation of `quantize`: a functional Keras model as a list of operations.

Every array in a `Graph` is a copy, so that changes to the graph leave the model unchanged.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Container
from typing import Any

import keras
import numpy as np
from keras import layers


def unused(name: str, taken: Container[str]) -> str:
    """Return `name`, with a number if it is taken (a layer called twice, or one of that name)."""
    numbered = (f"{name}_{i}" for i in itertools.count(1))
    return name if name not in taken else next(new for new in numbered if new not in taken)


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """One operation with one output. `inputs` are names of the operations that it reads."""

    name: str
    inputs: tuple[str, ...]
    keep_float: bool = dataclasses.field(default=False, kw_only=True)
    shape: tuple[int | None, ...] = dataclasses.field(default=(), kw_only=True)  # of the output
    # Range outside of which the output's value does not matter to its readers, if known.
    bounds: tuple[float, float] | None = dataclasses.field(default=None, kw_only=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Input(Op):
    """An input of the model."""

    tensor: Any  # a KerasTensor: name, shape and dtype
    scale: float = 1.0  # a pixel p represents (p - zero) * scale
    zero: int | None = None  # zero point; None if the input has absorbed no pixel scaling


@dataclasses.dataclass(frozen=True, eq=False)
class Linear(Op):
    """A convolution or dense layer with a bias and without an activation.

    kernel: in Keras' layout; (H, W, in, out) for transposed convolutions too.
    """

    layer: type[keras.layers.Layer]
    config: dict[str, Any]
    kernel: np.ndarray
    bias: np.ndarray

    def scaled(self, factor: Any) -> "Linear":
        """Return the operation with outputs multiplied by `factor`, a number or one per channel."""
        kernel = self.kernel * self.per_output(factor)
        return dataclasses.replace(self, kernel=kernel, bias=self.bias * factor)

    def fed_with(self, scale: Any, offset: Any = 0.0) -> "Linear":
        """Return the operation that computes of x what this one computes of `x * scale + offset`.

        Both are numbers or one per input channel. Exact only without padding: padding then stands
        for x = 0, that is for `offset` in the original.
        """
        per_input = np.reshape(scale, (-1, 1)) if np.ndim(scale) else scale
        shift = self.kernel * (np.reshape(offset, (-1, 1)) if np.ndim(offset) else offset)
        axes = tuple(range(self.kernel.ndim - (2 if self.depthwise else 1)))
        bias = self.bias + shift.sum(axis=axes).reshape(-1)
        return dataclasses.replace(self, kernel=self.kernel * per_input, bias=bias)

    def per_output(self, values: Any) -> Any:
        """Return values per output channel in a shape that broadcasts with the kernel."""
        if self.depthwise and np.ndim(values):
            return np.reshape(values, self.kernel.shape[-2:])  # (C, depth multiplier)
        return values

    @property
    def depthwise(self) -> bool:
        return self.layer is layers.DepthwiseConv2D

    @property
    def transposed(self) -> bool:
        return self.layer is layers.Conv2DTranspose

    @property
    def keras_kernel(self) -> np.ndarray:
        """The kernel in the layout of the Keras layer."""
        return self.kernel.swapaxes(2, 3) if self.transposed else self.kernel

    @property
    def largest(self) -> np.ndarray:
        """The largest absolute weight of each output channel (C,)."""
        kernel = np.abs(self.kernel)
        flat = kernel.reshape(-1, len(self.bias)) if self.depthwise else kernel
        return flat.reshape(-1, len(self.bias)).max(axis=0)


@dataclasses.dataclass(frozen=True, eq=False)
class Affine(Op):
    """x * scale + offset, each a number or one per channel: batch norm, Rescaling, x + 3."""

    scale: Any
    offset: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Activation(Op):
    """An activation function, by its name in `emit.ACTIVATIONS`."""

    function: str


@dataclasses.dataclass(frozen=True, eq=False)
class Join(Op):
    """An operation of several inputs: `layer` is Add, Multiply, Subtract or Concatenate.

    gain: the output divided by that of the float model (6 for x * relu6(x + 3)).
    """

    layer: type[keras.layers.Layer]
    config: dict[str, Any]
    gain: float = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Plain(Op):
    """A layer without weights with f(a * x) = a * f(x) for a > 0, such as pooling.

    grid: the int8 levels of the output. "exact": it is on the input's levels without rounding.
        "same": TFLite rounds it to the input's levels. "own": it has a range of its own.
    """

    layer: keras.layers.Layer
    grid: str

    @property
    def fills(self) -> bool:
        """Whether it pads with a value other than 0, which no factor passes through."""
        return getattr(self.layer, "pad_to_aspect_ratio", False) and self.layer.fill_value != 0

    def keeps_channels(self, before: Op) -> bool:
        """Return whether output and input, which `before` computes, have the same last axis.

        Flatten, Permute and Reshape may change it, as in ShuffleNet's channel shuffle.
        """
        if self.fills:
            return False
        if isinstance(self.layer, layers.Permute):
            return self.layer.dims[-1] == len(self.layer.dims)
        if isinstance(self.layer, layers.Flatten | layers.Reshape):
            return self.shape[-1] == before.shape[-1]
        return True


@dataclasses.dataclass(frozen=True, eq=False)
class Opaque(Op):
    """Any other layer, which stays in float because `keep_float` names it."""

    layer: keras.layers.Layer


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """Operations by name, each after its inputs."""

    ops: dict[str, Op]
    inputs: Any  # names, in the nested structure of the model's inputs
    outputs: Any
    # The model's `differences` method, if any: (wanted, found) -> error (N,) of each output
    differences: Callable[[Any, Any], list[Any]] | None = None

    def users(self) -> Counter[str]:
        """Return the number of readers of each operation; a model output counts as one."""
        read = Counter(name for op in self.ops.values() for name in op.inputs)
        return read + Counter(keras.tree.flatten(self.outputs))
