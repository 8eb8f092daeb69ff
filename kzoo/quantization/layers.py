"""Fake-quantized layers, which simulate TFLite's int8 kernels in float on every Keras backend.

The numbers follow TFLite's int8 specification
(https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec): weights
symmetric, -127 to 127, one scale per output channel; activations -128 to 127 with a zero point, one
scale per tensor; biases int32, in steps of input scale times weight scale.

keras.quantizers.fake_quant_with_min_max_vars must be called inside `call`: on a symbolic tensor it
loses its settings. The TFLite converter recognises the TensorFlow operation that it emits and
takes its range.
"""

from typing import Any

import keras
from keras import ops

from kzoo.backbones.profile import MACS, elementwise
from kzoo.depthwise import depthwise_conv

register = keras.saving.register_keras_serializable(package="kzoo")
fake_quant = keras.quantizers.fake_quant_with_min_max_vars

LEVELS = 255  # steps between the smallest and the largest value of an int8 activation
WEIGHT_LEVELS = 127  # steps on each side of zero of int8 weights


@register
class FakeQuant(keras.layers.Layer):
    """Rounds a tensor to the 256 levels between `low` and `high`, one of which is zero.

    The range consists of weights, so that it is saved with the model. It is constant in training
    unless the layer is made trainable.

    low, high: the initial range, low <= 0 <= high, not both 0; else ValueError.
    after_float: whether the tensor is computed by a layer that `quantize` keeps in float, in the
        file too.
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
        # On JAX and PyTorch fake_quant is a dozen operations, most for the range's gradients.
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
    """The gate of a split hard-swish: relu6(x + 3), six times the hard sigmoid."""

    def call(self, x: Any) -> Any:
        return ops.relu6(x + 3.0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


class Quantized:
    """Mixin of the quantized linear layers: fake-quantized weights and bias.

    Two further weights are not trainable: `input_scale`, the scale of the int8 input, and `limits`
    (2, C), the least and the largest max |weight| of each output channel within the limits of
    XNNPACK and int32 biases (see `ranges.limits`).
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
        # Conv2D and Dense would save only the variables they know.
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        keras.layers.Layer.load_own_variables(self, store)

    recognized = True  # whether TensorFlow's converter can convert a fake-quant of the weights

    def rounded(self, kernel: Any, training: bool | None) -> tuple[Any, Any]:
        """Return (kernel, bias) rounded as in the int8 file.

        `kernel` has its output channels on the last axis. In training the kernel is rounded by
        cheaper operations, which the converter does not recognise, and the bias is not rounded:
        its int32 steps are negligible.
        """
        bias = self.bias  # type: ignore[attr-defined]
        span = ops.max(ops.abs(ops.stop_gradient(kernel)), axis=tuple(range(len(kernel.shape) - 1)))
        # Slightly above the largest weight: rounding errors must not clip it, which would set its
        # gradient to zero.
        span = ops.clip(span * (1 + 2**-20), self.limits[0], self.limits[1])
        step = span / WEIGHT_LEVELS
        if training or not self.recognized:
            kernel = straight_through(ops.clip(kernel, -span, span), step)
            return kernel, bias if training else straight_through(bias, self.input_scale * step)
        kernel = fake_quant(kernel, -span, span, narrow_range=True, axis=len(kernel.shape) - 1)
        return kernel, straight_through(bias, self.input_scale * step)


def straight_through(x: Any, step: Any) -> Any:
    """Return `x` rounded to multiples of `step`, with the gradient of `x` (straight-through)."""
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
        # Per-channel fake_quant needs the output channels on the last axis on JAX and PyTorch.
        height, width, channels, multiplier = self.kernel.shape
        flat = ops.reshape(self.kernel, (height, width, 1, channels * multiplier))
        flat, bias = self.rounded(flat, training)
        kernel = ops.reshape(flat, self.kernel.shape)
        return depthwise_conv(x, kernel, self, training=training) + bias


@register
class QuantConv2DTranspose(Quantized, keras.layers.Conv2DTranspose):
    """Conv2DTranspose with int8 weights.

    TensorFlow's converter (2.21) cannot transpose a fake-quant with a scale per channel. So the
    weights are rounded without one; the converter then quantizes them itself, to the same scales,
    since the largest weight of each channel is 127 steps.
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
