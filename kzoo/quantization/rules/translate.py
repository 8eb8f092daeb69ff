"""Translation of Keras layers and operators into graph operations: two tables of functions."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from kzoo.quantization.graph import Activation, Affine, Join, Linear, Op, Plain

# A translation is (layer or operator, names of its inputs, arguments of the call) -> operations,
# the last of which is the output; () for the identity; None for settings without an int8 form.
Found = tuple[Op, ...] | None
Translate = Callable[[Any, tuple[str, ...], Any], Found]


def then(ops: tuple[Op, ...], function: str, name: str) -> Found:
    """Return `ops` followed by the layer's own activation; None if that has no int8 form."""
    if function == "linear":
        return ops
    if function not in FUNCTIONS:
        return None
    return (*ops, Activation(name, (ops[-1].name,), FUNCTIONS[function]))


def function_of(layer: Any) -> str:
    """Return Keras' name of a layer's activation function; "?" if it is unknown.

    A function that is not Keras' own, such as tf.nn.softmax or a lambda, is recognized by its
    values, since its name (a user's `swish`) may mislead.
    """
    function = layer.activation
    own = str(getattr(function, "__name__", "?"))
    if getattr(keras.activations, own, None) is function:
        return own
    names = ("linear", *FUNCTIONS)
    return next((name for name in names if agree(function, keras.activations.get(name))), "?")


NEAR = np.linspace(-8, 8, 65, dtype=np.float32)
COMPARED = np.stack([NEAR, np.sign(NEAR) * 10 ** np.abs(NEAR)])  # arguments to compare functions


def agree(one: Callable[[Any], Any], other: Callable[[Any], Any]) -> bool:
    """Return whether two functions have the same values at `COMPARED`."""
    try:
        y, z = (keras.ops.convert_to_numpy(f(keras.ops.convert_to_tensor(COMPARED)))
                for f in (one, other))  # fmt: skip
    except Exception:  # a user's function may raise anything
        return False
    return y.shape == z.shape and np.allclose(y, z, rtol=1e-3, atol=1e-5)


# From Keras' names of activation functions to those of `Activation`.
FUNCTIONS = {
    "relu": "relu", "relu6": "relu6", "hard_silu": "hard_swish", "hard_swish": "hard_swish",
    "hard_sigmoid": "hard_sigmoid", "sigmoid": "sigmoid", "tanh": "tanh", "silu": "silu",
    "swish": "silu", "softmax": "softmax", "elu": "elu",
}  # fmt: skip


def array(weight: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(weight), np.float32)


LINEAR_CONFIG = ("kernel_size", "strides", "padding", "dilation_rate", "data_format")


def linear(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    own = {
        layers.Conv2D: (*LINEAR_CONFIG, "filters", "groups"),
        layers.DepthwiseConv2D: (*LINEAR_CONFIG, "depth_multiplier"),
        layers.Dense: ("units",),
    }[type(layer)]
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return None  # TFLite has channels last only
    kernel = array(layer.kernel)
    depthwise = type(layer) is layers.DepthwiseConv2D
    outputs = kernel.shape[-1] * (kernel.shape[-2] if depthwise else 1)
    bias = array(layer.bias) if layer.use_bias else np.zeros(outputs, np.float32)
    config = {key: getattr(layer, key) for key in own}
    op = Linear(layer.name, inputs, type(layer), config, kernel, bias)
    return then((op,), function_of(layer), f"{layer.name}_act")


def transposed(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    if layer.data_format == "channels_first" or layer.output_padding is not None:
        return None
    if tuple(layer.dilation_rate) != (1, 1):
        return None
    bias = array(layer.bias) if layer.use_bias else np.zeros(layer.filters, np.float32)
    config = {key: getattr(layer, key) for key in ("kernel_size", "strides", "padding", "filters")}
    kernel = array(layer.kernel).swapaxes(2, 3)
    op = Linear(layer.name, inputs, layers.Conv2DTranspose, config, kernel, bias)
    return then((op,), function_of(layer), f"{layer.name}_act")


def separable(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    if layer.data_format == "channels_first":
        return None
    config = {key: getattr(layer, key) for key in LINEAR_CONFIG}
    depthwise, pointwise = array(layer.depthwise_kernel), array(layer.pointwise_kernel)
    bias = array(layer.bias) if layer.use_bias else np.zeros(layer.filters, np.float32)
    first = Linear(
        f"{layer.name}_depthwise", inputs, layers.DepthwiseConv2D,
        config | {"depth_multiplier": layer.depth_multiplier}, depthwise,
        np.zeros(pointwise.shape[2], np.float32),
    )  # fmt: skip
    second = Linear(
        layer.name, (first.name,), layers.Conv2D, {"filters": layer.filters, "kernel_size": 1},
        pointwise, bias,
    )  # fmt: skip
    return then((first, second), function_of(layer), f"{layer.name}_act")


def batch_norm(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    if layer.axis not in (-1, len(layer.input.shape) - 1 if len(layer._inbound_nodes) == 1 else -1):
        return None
    mean, variance = array(layer.moving_mean), array(layer.moving_variance)
    scale = (array(layer.gamma) if layer.scale else 1.0) / np.sqrt(variance + layer.epsilon)
    offset = (array(layer.beta) if layer.center else 0.0) - mean * scale
    return (Affine(layer.name, inputs, scale, offset),)


def rescaling(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    scale, offset = np.float32(layer.scale), np.float32(layer.offset)
    return (Affine(layer.name, inputs, scale, offset),)


def normalization(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    if layer.axis not in ((-1,), (3,), ()):
        return None
    mean, variance = array(layer.mean), array(layer.variance)
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon()).reshape(-1)
    mean = mean.reshape(-1)
    if layer.invert:
        return (Affine(layer.name, inputs, deviation, mean),)
    return (Affine(layer.name, inputs, 1 / deviation, -mean / deviation),)


def activation(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    function = function_of(layer)
    if function == "linear":
        return ()
    return (Activation(layer.name, inputs, FUNCTIONS[function]),) if function in FUNCTIONS else None


def relu(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    function = {None: "relu", 6.0: "relu6"}.get(layer.max_value)
    if layer.negative_slope and layer.max_value is None and not layer.threshold:
        return (Plain(layer.name, inputs, layer, "own"),)
    if function is None or layer.negative_slope or layer.threshold:
        return None
    return (Activation(layer.name, inputs, function),)


def softmax(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    return (Activation(layer.name, inputs, "softmax"),) if layer.axis == -1 else None


def join(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    config = {"axis": layer.axis} if isinstance(layer, layers.Concatenate) else {}
    if config and layer.axis not in (-1, len(layer.output.shape) - 1, 1):
        return None
    # TFLite's ADD and MUL take two inputs.
    ops: list[Op] = []
    if not config and len(inputs) > 2:
        for i, name in enumerate(inputs[1:-1]):
            left = ops[-1].name if ops else inputs[0]
            ops.append(Join(f"{layer.name}_{i + 2}", (left, name), type(layer), {}))
        inputs = (ops[-1].name, inputs[-1])
    return (*ops, Join(layer.name, inputs, type(layer), config))


def elu(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    return (Activation(layer.name, inputs, "elu"),) if layer.alpha == 1 else None


def average(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    """A sum, and a factor that the next linear layer absorbs if there is one."""
    names = [inputs[0], *(f"{layer.name}_sum_{i}" for i in range(2, len(inputs) + 1))]
    ops = [
        Join(total, (before, more), layers.Add, {})
        for before, more, total in zip(names, inputs[1:], names[1:], strict=False)
    ]
    factor = np.float32(1 / len(inputs))
    return (*ops, Affine(layer.name, (names[-1],), factor, np.float32(0)))


def plain(grid: str) -> Translate:
    return lambda layer, inputs, _: (Plain(layer.name, inputs, layer, grid),)


def padding(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    return (
        (Plain(layer.name, inputs, layer, "exact"),)
        if layer.data_format != "channels_first"
        else None
    )


def resize(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    grids = {"nearest": "exact", "bilinear": "same"}
    if layer.interpolation not in grids or getattr(layer, "antialias", False):
        return None
    return (Plain(layer.name, inputs, layer, grids[layer.interpolation]),)


def identity(layer: Any, inputs: tuple[str, ...], _: Any) -> Found:
    return ()


# Layers that are the identity in inference. Dropout is kept, for quantization-aware training.
TRAINING_ONLY = (
    layers.GaussianNoise, layers.GaussianDropout, layers.AlphaDropout,
    layers.ActivityRegularization, layers.RandomFlip, layers.RandomRotation, layers.RandomZoom,
    layers.RandomTranslation, layers.RandomShear, layers.RandomContrast, layers.RandomBrightness,
    layers.RandomHue, layers.RandomSaturation, layers.RandomColorJitter, layers.RandomGrayscale,
    layers.RandomSharpness, layers.RandomGaussianBlur, layers.RandomErasing,
    layers.RandomPosterization, layers.RandomInvert, layers.RandomPerspective,
    layers.RandomElasticTransform,
)  # fmt: skip

LAYERS: dict[type, Translate] = {
    layers.Conv2D: linear,
    layers.DepthwiseConv2D: linear,
    layers.Conv2DTranspose: transposed,
    layers.Dense: linear,
    layers.SeparableConv2D: separable,
    layers.BatchNormalization: batch_norm,
    layers.Rescaling: rescaling,
    layers.Normalization: normalization,
    layers.Activation: activation,
    layers.ReLU: relu,
    layers.Softmax: softmax,
    layers.Add: join,
    layers.Multiply: join,
    layers.Subtract: join,
    layers.Concatenate: join,
    layers.Average: average,
    layers.ELU: elu,
    layers.LeakyReLU: plain("own"),
    layers.PReLU: plain("own"),
    layers.Cropping2D: padding,
    layers.Permute: plain("exact"),
    layers.Dropout: plain("exact"),
    layers.SpatialDropout2D: plain("exact"),
    layers.Flatten: plain("exact"),
    layers.Reshape: plain("exact"),
    layers.ZeroPadding2D: padding,
    layers.MaxPooling2D: plain("exact"),
    layers.GlobalMaxPooling2D: plain("exact"),
    layers.AveragePooling2D: plain("same"),
    layers.GlobalAveragePooling2D: plain("own"),
    layers.UpSampling2D: resize,
    layers.Resizing: resize,
    **dict.fromkeys(TRAINING_ONLY, identity),
    layers.Identity: identity,
}


# Operators: arithmetic such as keras.applications' hard sigmoid, relu6(x + 3.0) * (1.0 / 6.0).


def operands(arguments: Any, inputs: tuple[str, ...]) -> list[Any]:
    """Return the two operands of a call: names of tensors, or constant numbers."""
    names = iter(inputs)
    given = [*arguments.args, *arguments.kwargs.values()]
    return [next(names) if isinstance(a, keras.KerasTensor) else a for a in given]


def arithmetic(
    by_number: Callable[[float], tuple[float, float]], layer: type | None = None,
    from_number: Callable[[float], tuple[float, float]] | None = None,
) -> Translate:  # fmt: skip
    """Return the translation of a binary operator.

    `by_number(a)` is (scale, offset) of x op a, `from_number(a)` that of a op x; `layer` that of
    two tensors.
    """

    def translate(op: Any, inputs: tuple[str, ...], arguments: Any) -> Found:
        left, right = operands(arguments, inputs)
        if len(inputs) == 2:
            return (Join(op.name, inputs, layer, {}),) if layer else None
        number, rule = (left, from_number) if right is inputs[0] else (right, by_number)
        if rule is None or np.ndim(number) or not np.isscalar(number):
            return None
        return (Affine(op.name, inputs, *rule(float(number))),)  # type: ignore[arg-type]

    return translate


def elementwise(function: str) -> Translate:
    return lambda op, inputs, _: (Activation(op.name, inputs, function),)


OPERATORS: dict[str, Translate] = {
    "Add": arithmetic(lambda a: (1.0, a), layers.Add, lambda a: (1.0, a)),
    "Subtract": arithmetic(lambda a: (1.0, -a), layers.Subtract, lambda a: (-1.0, a)),
    "Multiply": arithmetic(lambda a: (a, 0.0), layers.Multiply, lambda a: (a, 0.0)),
    "TrueDivide": arithmetic(lambda a: (1 / a, 0.0)),
    "Relu": elementwise("relu"),
    "Relu6": elementwise("relu6"),
    "HardSigmoid": elementwise("hard_sigmoid"),
    "HardSilu": elementwise("hard_swish"),
    "Sigmoid": elementwise("sigmoid"),
    "Silu": elementwise("silu"),
    "Elu": elu,
}
