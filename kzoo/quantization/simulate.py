"""Simulation of a graph operation by operation, each in float or in int8.

No Keras model is built: each operation is one or two calls of `keras.ops`. An output is dropped
after its last reader, so that few tensors are in memory at a time.
"""

import functools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kzoo.quantization.calibration import EMPTY
from kzoo.quantization.graph import Activation, Affine, Graph, Input, Join, Linear, Op, Plain
from kzoo.quantization.layers import LEVELS, WEIGHT_LEVELS, fake_quant
from kzoo.quantization.ranges import Histogram, Plan, Range, is_float, step

# Images computed at a time, if they have PIXELS pixels; `chunk_size` scales it to larger ones.
PIXELS = 224 * 224
CHUNK = 4
OBSERVED = 8  # for `observe`, which holds few tensors: a quarter faster than 4
LARGE_MAP = 20 * 20  # positions of a feature map from which on only a quarter is counted


class Run:
    """Computes the operations of a graph in float, and with a `plan` also in int8."""

    def __init__(self, graph: Graph, plan: Plan | None = None):
        self.graph = graph
        self.plan = plan
        self.last_reader: dict[str, str] = {
            name: op.name for op in graph.ops.values() for name in op.inputs
        }
        outputs = keras.tree.flatten(graph.outputs)
        self.ends: set[str] = {
            *outputs,
            *(name for end in outputs for name in graph.ops[end].inputs),
        }
        self._weights: dict[tuple[str, bool], tuple[Any, Any]] = {}
        self._layers: dict[str, keras.layers.Layer] = {}

    def __call__(self, images: Any, quantized: Collection[str] = ()) -> dict[str, Any]:
        """Return the output of every operation; those in `quantized` are computed in int8."""
        values: dict[str, Any] = {}
        for op in self.graph.ops.values():
            values[op.name] = self.output(op, values, images, op.name in quantized)
        return values

    def walk(
        self, images: Any, quantized: Collection[str] = (), wanted: Collection[str] | None = None
    ) -> Iterator[tuple[Op, Any]]:
        """Yield each operation with its output, in order; only what `wanted` depends on."""
        values: dict[str, Any] = {}
        needed = None if wanted is None else self.ancestors(wanted)
        for op in self.graph.ops.values():
            if needed is not None and op.name not in needed:
                continue
            values[op.name] = self.output(op, values, images, op.name in quantized)
            yield op, values[op.name]
            self.drop(op, values)

    def ancestors(self, names: Collection[str]) -> set[str]:
        """Return these operations and all that their outputs depend on."""
        found: set[str] = set()
        todo = list(names)
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += self.graph.ops[name].inputs
        return found

    def drop(self, op: Op, values: dict[str, Any]) -> None:
        """Remove values that no operation after `op` reads."""
        self.drop_inputs(op, values)
        if op.name not in self.last_reader:
            values.pop(op.name, None)

    def drop_inputs(self, op: Op, values: dict[str, Any]) -> None:
        """Remove the inputs of `op` that no later operation reads."""
        for name in op.inputs:
            if self.last_reader[name] == op.name:
                values.pop(name, None)

    def output(self, op: Op, values: Mapping[str, Any], images: Any, quantized: bool) -> Any:
        """Return the output of `op` from those of its inputs, rounded to int8 if `quantized`."""
        y = self.before_rounding(op, values, images, quantized)
        return self.rounded(op, y) if quantized else y

    def before_rounding(
        self, op: Op, values: Mapping[str, Any], images: Any, quantized: bool
    ) -> Any:
        """Return the output of `op`, with int8 weights if `quantized`, without rounding it."""
        if isinstance(op, Input):
            return pixels(op, images)
        inputs = [values[name] for name in op.inputs]
        if isinstance(op, Linear):
            return linear(op, inputs[0], *self.weights(op, quantized and not is_float(op)))
        if isinstance(op, Activation):
            return activation(op, inputs[0])
        if isinstance(op, Affine):
            return inputs[0] * op.scale + op.offset
        if isinstance(op, Join) and op.layer in ELEMENTWISE:
            return functools.reduce(ELEMENTWISE[op.layer], inputs)
        layer = self.layer(op, inputs)
        x = inputs[0] if len(inputs) == 1 else inputs
        # `call` alone suffices for a layer without weights and takes a third of the time.
        return layer.call(x) if isinstance(op, Join | Plain) else layer(x, training=False)

    def layer(self, op: Any, inputs: list[Any]) -> keras.layers.Layer:
        """Return the Keras layer of an operation, computing in float32."""
        if op.name not in self._layers:
            if isinstance(op, Join):
                layer = op.layer(**op.config, dtype="float32")
                layer(inputs)  # builds it
            elif (layer := op.layer).compute_dtype != "float32":
                layer = type(layer).from_config(layer.get_config() | {"dtype": "float32"})
                layer(inputs[0] if len(inputs) == 1 else inputs)
                layer.set_weights(op.layer.get_weights())
            self._layers[op.name] = layer
        return self._layers[op.name]

    def rounded(self, op: Op, y: Any) -> Any:
        """Return `y` rounded to the int8 levels of the output of `op`, if the plan has any."""
        if self.plan is None or op.name not in self.plan.fake_quants:
            return y
        return on_levels(y, self.plan.ranges[self.plan.grids[op.name]])

    def weights(self, op: Linear, quantized: bool) -> tuple[Any, Any]:
        """Return (kernel, bias) as tensors, rounded to int8 and int32 levels if `quantized`."""
        key = op.name, quantized
        if key not in self._weights:
            kernel, bias = op.kernel, op.bias
            if quantized:
                assert self.plan is not None
                kernel, bias = int8_weights(op, self.plan)
            self._weights[key] = tuple(map(ops.convert_to_tensor, (kernel, bias)))
        return self._weights[key]

    def replace(self, op: Linear) -> None:
        """Replace an operation of the graph by one with other weights."""
        self.graph.ops[op.name] = op
        for quantized in (False, True):
            self._weights.pop((op.name, quantized), None)


def chunk_size(most: int, shape: Sequence[int]) -> int:
    """Return how many examples of `shape` (N, ...) to compute at a time.

    `most` for images up to 224 x 224 px, fewer for larger ones, in proportion to their pixels.
    """
    places = math.prod(shape[1:-1]) if len(shape) == 4 else 0
    return max(1, min(most, most * PIXELS // max(places, 1)))


def observe(
    graph: Graph, grids: Mapping[str, str], names: Collection[str], batches: Iterable[np.ndarray]
) -> dict[str, Histogram]:
    """Return histograms, by key of `grids`, of the float outputs of `names` on all batches."""
    histograms: dict[str, Histogram] = {}
    run = Run(graph)
    # Every second row and column of a transposed convolution's output come from one part of its
    # kernel: counting only those gave 14 dB instead of 29.
    whole = any(isinstance(op, Linear) and op.transposed for op in graph.ops.values())
    for batch in batches:
        some = chunk_size(OBSERVED, batch.shape)
        for i in range(0, len(batch), some):
            for op, value in run.walk(batch[i : i + some], wanted=names):
                if op.name in names:
                    histogram = histograms.setdefault(grids[op.name], Histogram())
                    # NumPy's min, max and bincount take a third of the backends' time.
                    found = ops.convert_to_numpy(value)
                    counted = found if whole else every_second_position(found)
                    histogram.add(counted, (float(found.min()), float(found.max())))
    if not histograms:
        raise ValueError(EMPTY)
    return histograms


def every_second_position(value: np.ndarray) -> np.ndarray:
    """Return every second row and column of large maps (N, H, W, C), to count values faster."""
    if len(value.shape) == 4 and value.shape[1] * value.shape[2] >= LARGE_MAP:
        return value[:, ::2, ::2]
    return value


def int8_weights(op: Linear, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Return (kernel, bias) rounded as in the int8 file: int8 weights, int32 biases, dequantized.

    The scale of each output channel is its largest weight / 127, within the plan's limits.
    """
    limits = plan.limits[op.name]
    span = np.clip(op.largest * np.float32(1 + 2**-20), limits[0], limits[1])
    steps = (span / WEIGHT_LEVELS).astype(np.float32)
    levels = np.round(op.kernel / op.per_output(steps))
    kernel = np.clip(levels, -WEIGHT_LEVELS, WEIGHT_LEVELS) * op.per_output(steps)
    bias_steps = np.float32(plan.scale(op.inputs[0])) * steps
    return kernel.astype(np.float32), np.round(op.bias / bias_steps) * bias_steps


def on_levels(x: Any, bounds: Range) -> Any:
    """Return `x` rounded to the 256 levels of a range."""
    if keras.backend.backend() == "tensorflow":
        return fake_quant(x, *bounds)  # one kernel
    scale = step(bounds)
    zero = round(-bounds[0] / scale)
    return (ops.clip(ops.round(x / scale), -zero, LEVELS - zero)) * scale


def pixels(op: Input, images: Any) -> Any:
    """Return the input tensor, with the pixel scaling that the input has absorbed."""
    x = ops.convert_to_tensor(images, "float32")
    return x if op.zero is None else x * op.scale - op.zero * op.scale


def linear(op: Linear, x: Any, kernel: Any, bias: Any) -> Any:
    if op.layer is layers.Dense:
        return ops.matmul(x, kernel) + bias
    if op.transposed:
        kernel, strides = ops.swapaxes(kernel, 2, 3), list(op.config["strides"])
        return ops.conv_transpose(x, kernel, strides, op.config["padding"]) + bias
    convolve = ops.depthwise_conv if op.depthwise else ops.conv
    y = convolve(
        x, kernel, strides=op.config.get("strides", 1),
        padding=op.config.get("padding", "valid"), data_format="channels_last",
        dilation_rate=op.config.get("dilation_rate", 1),
    )  # fmt: skip
    return y + bias


def activation(op: Activation, x: Any) -> Any:
    function = OWN.get(op.function) or keras.activations.get(op.function)
    return function(x)


ELEMENTWISE: dict[type, Callable[[Any, Any], Any]] = {
    layers.Add: ops.add,
    layers.Multiply: ops.multiply,
}
OWN: dict[str, Callable[[Any], Any]] = {
    "gate": lambda x: ops.relu6(x + 3.0),
    "unit": lambda x: ops.clip(x, 0.0, 1.0),
}
