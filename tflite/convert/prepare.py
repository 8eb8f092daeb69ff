"""Preparation of a Keras model for conversion: float32 copies, and the input's Rescaling absorbed.

A uint8 input tensor represents scale * (byte - zero_point), as a Rescaling of pixels does, so the
camera's bytes need no operator. But a zero point is an integer, while [-1, 1] needs 127.5, and
ImageNet's mean and deviation differ by channel. The remainder goes into the first convolution: a
factor per input channel into its kernel, an offset into its bias. This is exact except where the
kernel covers padding, which is filled with the zero point. With V2's pretrained weights on photos
this error is 66 dB ("tf") or 50 dB ("torch", torchvision's weights) below the logits, and int8's
own 22 and 12 dB below them.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import layers

from kzoo.quantization.layers import FakeQuant


@dataclasses.dataclass(frozen=True)
class Grid:
    """The values that bytes in [0, 255] represent: scale * (byte - zero_point)."""

    scale: float
    zero_point: int

    def real(self, pixels: np.ndarray) -> np.ndarray:
        return np.float32(self.scale) * (pixels.astype(np.float32) - np.float32(self.zero_point))


def absorb_preprocessing(model: keras.Model) -> tuple[keras.Model, Grid | None]:
    """Return (the model without its Rescaling, the grid of its input), or (model, None).

    None if there is no Rescaling at the input, or no convolution that can absorb its remainder.
    """
    rescaling = sole_consumer(model.inputs[0])
    if not isinstance(rescaling, layers.Rescaling) or len(model.inputs) != 1:
        return model, None
    n = model.inputs[0].shape[-1]
    scale = np.broadcast_to(np.asarray(rescaling.scale, np.float64), (n,))
    offset = np.broadcast_to(np.asarray(rescaling.offset, np.float64), (n,))
    if np.any(scale <= 0):
        return model, None
    zero_point = int(np.clip(np.rint(np.mean(-offset / scale)), 0, 255))
    grid = Grid(float(np.mean(scale)), zero_point)
    factor = scale / grid.scale
    rest = offset + scale * zero_point  # offset that the grid does not represent

    body = keras.Model(rescaling.output, model.outputs, name=model.name)
    if np.allclose(factor, 1, atol=1e-6) and np.allclose(rest, 0, atol=1e-4 * grid.scale):
        return body, grid
    conv = sole_consumer(rescaling.output)
    if isinstance(conv, layers.ZeroPadding2D):
        conv = sole_consumer(conv.output)
    if conv is None or type(conv) is not layers.Conv2D or conv.groups != 1:
        return model, None

    def with_bias(layer: keras.Layer) -> keras.Layer:
        return copied(layer, **({"use_bias": True} if layer.name == conv.name else {}))

    changed = keras.models.clone_model(body, clone_function=with_bias)
    for old, new in zip(body.layers, changed.layers, strict=True):
        if old.name != conv.name:
            new.set_weights(old.get_weights())
            continue
        kernel, *bias = old.get_weights()
        more = np.einsum("hwio,i->o", kernel, rest)
        new.set_weights([kernel * factor[:, None], more + (bias[0] if bias else 0)])
    return changed, grid


def fenced(model: keras.Model) -> keras.Model:
    """Return the quantized model with a FLOOR after layers that stay in float.

    TensorFlow's converter quantizes a float operator between int8 ones as well. It has no int8
    FLOOR, so that what lies before one stays float; `finish` removes it from the file.
    """
    marked = any(isinstance(layer, FakeQuant) and layer.after_float for layer in model.layers)

    def is_fenced(layer: keras.Layer) -> bool:
        if marked:
            return isinstance(layer, FakeQuant) and layer.after_float
        return type(layer) in LINEAR_LAYERS  # models saved before `after_float` existed

    if not any(map(is_fenced, model.layers)):
        return model
    return keras.models.clone_model(
        model, clone_function=lambda layer: Fence(layer) if is_fenced(layer) else layer
    )


FENCE = "_kzoo_fence"  # suffix of a layer's name, which the names of its tensors contain
LINEAR_LAYERS = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)  # not their Quant* subclasses


class Fence(keras.layers.Layer):
    """A fake-quant with a FLOOR before it, or a linear layer with a FLOOR after it."""

    def __init__(self, layer: keras.Layer) -> None:
        super().__init__(name=f"{layer.name}{FENCE}")
        self.layer = layer

    def call(self, x: Any) -> Any:
        if isinstance(self.layer, FakeQuant):
            return self.layer(keras.ops.floor(x))
        return keras.ops.floor(self.layer(x))


def sole_consumer(tensor: Any) -> keras.Layer | None:
    """Return the only layer of a functional graph that reads `tensor`; None if not exactly one."""
    producer = tensor._keras_history.operation
    nodes = producer._outbound_nodes
    readers = [n.operation for n in nodes if any(x is tensor for x in n.input_tensors)]
    return readers[0] if len(readers) == 1 else None


def copy_in_float32(model: keras.Model) -> keras.Model:
    """Return a copy of the model whose layers all compute in float32."""

    clone = keras.models.clone_model(
        model, clone_function=lambda layer: copied(layer, dtype="float32"), recursive=True
    )
    clone.set_weights(model.get_weights())
    return clone


def copied(layer: keras.Layer, **changes: Any) -> keras.Layer:
    """Return a copy of the layer with changed arguments; Lambda layers and operators unchanged.

    Keras does not rebuild a Lambda from its config, and an operator, such as the + 3.0 of
    keras.applications' V3, has no dtype.
    """
    if isinstance(layer, layers.Lambda) or not isinstance(layer, keras.Layer):
        return layer
    return type(layer).from_config(layer.get_config() | changes)
