"""Layers that compute in float what int8 kernels compute, on TensorFlow, JAX and PyTorch.

The numbers follow TFLite's int8 specification
(https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec): weights
symmetric, -127 to 127, one scale per output channel; activations -128 to 127 with a zero point, one
scale per tensor; biases int32, in steps of input scale times weight scale.

keras.quantizers.fake_quant_with_min_max_vars stays inside `call`: on a symbolic tensor it loses its
settings. The TFLite converter recognises the TensorFlow operation behind it and takes its range.
"""

from typing import Any

import keras
from keras import ops

register = keras.saving.register_keras_serializable(package="kzoo")
fake_quant = keras.quantizers.fake_quant_with_min_max_vars

LEVELS = 255  # steps between the smallest and the largest value of an int8 tensor
WEIGHT_LEVELS = 127  # steps on each side of zero


@register
class FakeQuant(keras.layers.Layer):
    """Rounds a tensor to the 256 levels between `low` and `high`, one of which is zero.

    Ranges are weights, so that they are saved with the model. They stay as they are in training
    unless the layer is made trainable.
    """

    def __init__(self, low: float = -1.0, high: float = 1.0, **kwargs: Any):
        super().__init__(**{"trainable": False, "dtype": "float32"} | kwargs)
        if not low <= 0 <= high or low == high:
            raise ValueError(
                f"A range must hold zero and more than that: low <= 0 <= high. Received: "
                f"low={low}, high={high}."
            )
        self.initial = (float(low), float(high))

    def build(self, input_shape: Any) -> None:
        low, high = map(keras.initializers.Constant, self.initial)
        self.low = self.add_weight(name="low", shape=(), initializer=low)
        self.high = self.add_weight(name="high", shape=(), initializer=high)

    def call(self, x: Any) -> Any:
        return fake_quant(x, self.low, self.high)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        low, high = self.initial
        return {**super().get_config(), "low": low, "high": high}


@register
class Gate(keras.layers.Layer):
    """relu6(x + 3): six times the hard sigmoid."""

    def call(self, x: Any) -> Any:
        return ops.relu6(x + 3.0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


class Quantized:
    """What the linear layers share: fake-quantized weights and bias.

    `input_scale` is the step of the int8 input. `limits` holds, per output channel, the least and
    the largest range of weights that XNNPACK and int32 biases can do with (see `ranges.limits`).
    """

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)  # type: ignore[misc]
        self.input_scale = self.add_weight(  # type: ignore[attr-defined]
            name="input_scale", shape=(), initializer="zeros", trainable=False
        )
        self.limits = self.add_weight(  # type: ignore[attr-defined]
            name="limits",
            shape=(2, self.bias.shape[0]),  # type: ignore[attr-defined]
            initializer="ones",
            trainable=False,
        )

    def rounded(self) -> tuple[Any, Any]:
        """Kernel and bias as the int8 file holds them."""
        kernel = self.kernel  # type: ignore[attr-defined]
        n = self.bias.shape[0]  # type: ignore[attr-defined]
        # The output channels last, a depthwise kernel's too: JAX and PyTorch know no other axis.
        head = kernel.shape[: -2 if len(kernel.shape) == 4 else -1]
        flat = ops.reshape(kernel, (*head, -1, n))
        span = ops.max(ops.abs(ops.stop_gradient(flat)), axis=tuple(range(len(flat.shape) - 1)))
        # A hair more than the largest weight, or rounding puts that outside: without a gradient.
        span = ops.clip(span * (1 + 2**-20), self.limits[0], self.limits[1])
        flat = fake_quant(flat, -span, span, narrow_range=True, axis=len(flat.shape) - 1)
        step = self.input_scale * span / WEIGHT_LEVELS
        bias = self.bias  # type: ignore[attr-defined]
        bias = bias + ops.stop_gradient(ops.round(bias / step) * step - bias)
        return ops.reshape(flat, kernel.shape), bias


@register
class QuantConv2D(Quantized, keras.layers.Conv2D):
    """Conv2D with int8 weights."""

    def call(self, x: Any) -> Any:
        kernel, bias = self.rounded()
        return self.convolution_op(x, kernel) + bias


@register
class QuantDepthwiseConv2D(Quantized, keras.layers.DepthwiseConv2D):
    """DepthwiseConv2D with int8 weights."""

    def call(self, x: Any) -> Any:
        kernel, bias = self.rounded()
        y = ops.depthwise_conv(
            x, kernel, self.strides, self.padding, self.data_format, self.dilation_rate
        )
        return y + bias


@register
class QuantDense(Quantized, keras.layers.Dense):
    """Dense with int8 weights."""

    def call(self, x: Any, training: bool = False) -> Any:
        kernel, bias = self.rounded()
        return ops.matmul(x, kernel) + bias
