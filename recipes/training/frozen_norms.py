"""Folding of frozen batch norms into the convolutions before them, during training.

A frozen batch norm is a factor and an offset for each channel. Multiplying the kernel by the factor
gives the same outputs and the same gradients of the kernel, without passes over every feature map:
a step of MobileNetV3-Small takes an eighth less CPU (tests/bench/step_cost.py).
"""

import math
from typing import Any

import keras
import numpy as np

from kzoo.depthwise import depthwise_conv

register = keras.saving.register_keras_serializable(package="kzoo")


class Normed:
    """Mixin of both convolutions: weights `factor` and `offset` of each output channel."""

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)  # type: ignore[misc]
        shape = factor_shape(self)
        add = self.add_weight  # type: ignore[attr-defined]
        self.factor = add(name="factor", shape=shape, initializer="ones", trainable=False)
        self.offset = add(
            name="offset", shape=(math.prod(shape),), initializer="zeros", trainable=False
        )

    # Keras' convolutions would save only kernel and bias.
    save_own_variables = keras.layers.Layer.save_own_variables
    load_own_variables = keras.layers.Layer.load_own_variables


@register
class NormedConv2D(Normed, keras.layers.Conv2D):
    """A convolution without bias with the frozen batch norm after it."""

    def call(self, inputs: Any) -> Any:
        return self.convolution_op(inputs, self.kernel * self.factor) + self.offset


@register
class NormedDepthwiseConv2D(Normed, keras.layers.DepthwiseConv2D):
    """A depthwise convolution without bias with the frozen batch norm after it."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        kernel = self.kernel * self.factor
        return depthwise_conv(inputs, kernel, self, training=training) + self.offset


NORMED: dict[type, Any] = {
    keras.layers.Conv2D: NormedConv2D,
    keras.layers.DepthwiseConv2D: NormedDepthwiseConv2D,
}


def factor_shape(conv: Any) -> tuple[int, ...]:
    """Return the shape of the factor that scales the output channels of a kernel."""
    shape = conv.kernel.shape
    return tuple(shape[2:] if isinstance(conv, keras.layers.DepthwiseConv2D) else shape[3:])


def without_frozen_norms(model: keras.Model) -> keras.Model:
    """Return a functional model with its frozen batch norms folded into convolutions.

    It is a copy, or the model itself if there is nothing to fold. Outputs, and gradients of
    trainable weights, are the same up to rounding. Batch norms stay if they are trainable, or do
    not follow a convolution without bias that has no other reader.
    """
    ends = {id(tensor) for tensor in model.outputs}
    norms = {
        conv.name: norm
        for norm in model.layers
        if (conv := convolution_before(norm)) and id(norm.input) not in ends
    }
    if not norms:
        return model
    gone = {norm.name for norm in norms.values()}

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind = NORMED[type(layer)] if layer.name in norms else type(layer)
        return kind.from_config(layer.get_config())

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in gone else layer(*args, **kwargs)

    copy = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in with_weights(copy):
        own = model.get_layer(layer.name)
        # Setting it on a nested model sets it on all its layers, which follow in this loop.
        for one, other in zip(layer._flatten_layers(), own._flatten_layers(), strict=True):
            one.trainable = other.trainable
        weights = own.get_weights()
        if layer.name in norms:
            factor, offset = factor_and_offset(norms[layer.name])
            weights += [factor.reshape(factor_shape(layer)), offset]
        layer.set_weights(weights)
    return copy


def with_weights(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in model.layers if layer.weights]


def convolution_before(norm: keras.layers.Layer) -> keras.layers.Layer | None:
    """Return the convolution that a frozen batch norm can be folded into; None otherwise."""
    if not isinstance(norm, keras.layers.BatchNormalization) or norm.trainable:
        return None
    if len(norm._inbound_nodes) != 1:  # called twice
        return None
    conv = norm.input._keras_history.operation
    plain = (
        type(conv) in NORMED
        and conv.data_format == "channels_last"
        and not conv.use_bias
        and conv.activation is keras.activations.linear
    )
    return conv if plain and len(conv._outbound_nodes) == 1 else None


def factor_and_offset(norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """Return (factor, offset) of a batch norm in inference: factor * x + offset, per channel."""
    own = {v.name: keras.ops.convert_to_numpy(v).astype("float64") for v in norm.variables}
    factor = own.get("gamma", 1.0) / np.sqrt(own["moving_variance"] + norm.epsilon)
    return factor, own.get("beta", 0.0) - own["moving_mean"] * factor


def take_weights(model: keras.Model, trained: keras.Model) -> None:
    """Copy the weights of a trained copy, in which batch norms may be folded, to its model."""
    for layer in with_weights(trained):
        own = model.get_layer(layer.name)
        own.set_weights(layer.get_weights()[: len(own.weights)])
