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

from kzoo.backbones.profile import MACS, elementwise
from kzoo.depthwise import depthwise_conv

register = keras.saving.register_keras_serializable(package="kzoo")
fake_quant = keras.quantizers.fake_quant_with_min_max_vars

LEVELS = 255  # steps between the smallest and the largest value of an int8 tensor
WEIGHT_LEVELS = 127  # steps on each side of zero


@register
class FakeQuant(keras.layers.Layer):
    """Rounds a tensor to the 256 levels between `low` and `high`, one of which is zero.

    Ranges are weights, so that they are saved with the model. They stay as they are in training
    unless the layer is made trainable. `after_float`: what it rounds is computed in float, by a
    layer that `quantize` was told to keep so, and is to be in the file.
    """

    def __init__(
        self, low: float = -1.0, high: float = 1.0, *, after_float: bool = False, **kwargs: Any
    ):
        super().__init__(**{"trainable": False, "dtype": "float32"} | kwargs)
        if not low <= 0 <= high or low == high:
            raise ValueError(
                f"A range must contain zero and more than one value: low <= 0 <= high. Received: "
                f"low={low}, high={high}."
            )
        self.initial = (float(low), float(high))
        self.after_float = after_float

    def build(self, input_shape: Any) -> None:
        low, high = map(keras.initializers.Constant, self.initial)
        self.low = self.add_weight(name="low", shape=(), initializer=low)
        self.high = self.add_weight(name="high", shape=(), initializer=high)

    def call(self, x: Any, training: bool | None = None) -> Any:
        if not training or self.trainable or keras.backend.backend() == "tensorflow":
            return fake_quant(x, self.low, self.high)
        # Elsewhere that is a dozen operations, most of them for gradients of the range.
        step = (self.high - self.low) / LEVELS
        low = -ops.round(-self.low / step) * step  # zero is a level
        return straight_through(ops.clip(x, low, low + LEVELS * step), step)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        low, high = self.initial
        config = {**super().get_config(), "low": low, "high": high}
        return config | ({"after_float": True} if self.after_float else {})


MACS[FakeQuant] = elementwise


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

    def save_own_variables(self, store: Any) -> None:
        # Not what Conv2D and Dense do: they name the variables they know of.
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        keras.layers.Layer.load_own_variables(self, store)

    recognized = True  # whether the converter takes weights from a fake-quant, see `rounded`

    def rounded(self, kernel: Any, training: bool | None) -> tuple[Any, Any]:
        """Kernel, given with the output channels last, and bias as the int8 file holds them.

        In training the kernel is the same by cheaper operations, which the converter would not
        recognise, and the bias is left as it is: its steps are far below what the output shows.
        """
        bias = self.bias  # type: ignore[attr-defined]
        span = ops.max(ops.abs(ops.stop_gradient(kernel)), axis=tuple(range(len(kernel.shape) - 1)))
        # A hair more than the largest weight, or rounding puts that outside: without a gradient.
        span = ops.clip(span * (1 + 2**-20), self.limits[0], self.limits[1])
        step = span / WEIGHT_LEVELS
        if training or not self.recognized:
            kernel = straight_through(ops.clip(kernel, -span, span), step)
            return kernel, bias if training else straight_through(bias, self.input_scale * step)
        kernel = fake_quant(kernel, -span, span, narrow_range=True, axis=len(kernel.shape) - 1)
        return kernel, straight_through(bias, self.input_scale * step)


def straight_through(x: Any, step: Any) -> Any:
    """`x` in whole steps, with the gradient of `x`."""
    return x + ops.stop_gradient(ops.round(x / step) * step - x)


@register
class QuantConv2D(Quantized, keras.layers.Conv2D):
    """Conv2D with int8 weights."""

    def call(self, x: Any, training: bool | None = None) -> Any:
        kernel, bias = self.rounded(self.kernel, training)
        return self.convolution_op(x, kernel) + bias


@register
class QuantDepthwiseConv2D(Quantized, keras.layers.DepthwiseConv2D):
    """DepthwiseConv2D with int8 weights."""

    def call(self, x: Any, training: bool | None = None) -> Any:
        # One scale per channel of the output: for that, JAX and PyTorch want them on the last axis.
        height, width, channels, multiplier = self.kernel.shape
        flat = ops.reshape(self.kernel, (height, width, 1, channels * multiplier))
        flat, bias = self.rounded(flat, training)
        kernel = ops.reshape(flat, self.kernel.shape)
        return depthwise_conv(x, kernel, self, training=training) + bias


@register
class QuantConv2DTranspose(Quantized, keras.layers.Conv2DTranspose):
    """Conv2DTranspose with int8 weights.

    TensorFlow's converter (2.21) cannot transpose a fake-quant with a scale per channel. Weights
    that lie on the levels already it makes int8 by itself, with the same scales: the largest of
    each channel is 127 steps.
    """

    recognized = False

    def call(self, x: Any, training: bool | None = None) -> Any:
        kernel, bias = self.rounded(ops.swapaxes(self.kernel, 2, 3), training)
        y = ops.conv_transpose(
            x, ops.swapaxes(kernel, 2, 3), list(self.strides), self.padding,
            data_format=self.data_format,
        )  # fmt: skip
        return y + bias


@register
class QuantDense(Quantized, keras.layers.Dense):
    """Dense with int8 weights.

    Computed as a 1 x 1 convolution: TFLite's converter (2.21) fails on a matrix product whose
    weights have a scale per output channel.
    """

    def call(self, x: Any, training: bool | None = None) -> Any:
        inputs, units = self.kernel.shape
        kernel, bias = self.rounded(ops.reshape(self.kernel, (1, 1, inputs, units)), training)
        y = ops.conv(ops.reshape(x, (-1, 1, 1, inputs)), kernel, data_format="channels_last") + bias
        return ops.reshape(y, (-1, *x.shape[1:-1], units))
