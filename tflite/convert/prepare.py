"""A Keras model made ready to convert: all of it float32, its preprocessing taken off the front.

A uint8 input tensor says real = scale * (byte - zero_point), which is what a Rescaling of pixels
says too, so the camera's bytes need no operator. A zero point is a whole number, though, and [-1,
1] wants 127.5; ImageNet's mean and deviation want one pair for each channel. What is left over
goes into the first convolution: a factor per input channel into its kernel, an offset into its
bias. That is exact but where the kernel reaches over the image's edge, which is padded with the
zero point. With V2's pretrained weights, on photos, this edge is 66 dB ("tf") or 50 dB ("torch",
torchvision's weights) below the logits, where int8 itself is 22 and 12 dB below them.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import layers

from kzoo.quantization.layers import FakeQuant


@dataclasses.dataclass(frozen=True)
class Grid:
    """The values that bytes 0..255 stand for: scale * (byte - zero_point)."""

    scale: float
    zero_point: int

    def real(self, pixels: np.ndarray) -> np.ndarray:
        return np.float32(self.scale) * (pixels.astype(np.float32) - np.float32(self.zero_point))


def absorb_preprocessing(model: keras.Model) -> tuple[keras.Model, Grid | None]:
    """(The model without its Rescaling, the grid of pixels it then reads), or (model, None).

    None where there is no Rescaling at the front, or what is left over of it cannot go elsewhere.
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
    rest = offset + scale * zero_point  # what the true input of the convolution has more

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
    """The quantized model with a FLOOR behind what is to stay in float, before it is rounded.

    TensorFlow's converter makes a float operator between int8 ones int8 as well, with their ranges.
    It has no int8 FLOOR, so what lies before one stays float; `finish` takes it out again.
    """
    marked = any(isinstance(layer, FakeQuant) and layer.after_float for layer in model.layers)

    def is_fenced(layer: keras.Layer) -> bool:
        if marked:
            return isinstance(layer, FakeQuant) and layer.after_float
        return type(layer) in LINEAR_LAYERS  # of models that were saved before there were marks

    if not any(map(is_fenced, model.layers)):
        return model
    return keras.models.clone_model(
        model, clone_function=lambda layer: Fence(layer) if is_fenced(layer) else layer
    )


FENCE = "_kzoo_fence"  # ends the name of a layer, and is in those of its tensors
LINEAR_LAYERS = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)  # quantized ones are others


class Fence(keras.layers.Layer):
    """A rounding and the FLOOR before it, or a linear layer and the FLOOR behind it."""

    def __init__(self, layer: keras.Layer) -> None:
        super().__init__(name=f"{layer.name}{FENCE}")
        self.layer = layer

    def call(self, x: Any) -> Any:
        if isinstance(self.layer, FakeQuant):
            return self.layer(keras.ops.floor(x))
        return keras.ops.floor(self.layer(x))


def sole_consumer(tensor: Any) -> keras.Layer | None:
    """The one layer of a functional graph that reads `tensor`, None if there are more or none."""
    producer = tensor._keras_history.operation
    nodes = producer._outbound_nodes
    readers = [n.operation for n in nodes if any(x is tensor for x in n.input_tensors)]
    return readers[0] if len(readers) == 1 else None


def copy_in_float32(model: keras.Model) -> keras.Model:
    """A model of its own with the same weights, every layer computing in float32."""

    clone = keras.models.clone_model(
        model, clone_function=lambda layer: copied(layer, dtype="float32"), recursive=True
    )
    clone.set_weights(model.get_weights())
    return clone


def copied(layer: keras.Layer, **changes: Any) -> keras.Layer:
    """The layer anew, with other arguments; or as it is, where neither can be.

    Keras makes no Lambda from a config, and an operator, such as the + 3.0 of keras.applications'
    V3, takes no dtype.
    """
    if isinstance(layer, layers.Lambda) or not isinstance(layer, keras.Layer):
        return layer
    return type(layer).from_config(layer.get_config() | changes)
