"""XNNPACK's limits on quantization scales, checked without opening the file.

A requantization factor out of these bounds makes LiteRT 2.3 refuse a file; a convolution's can
also kill the process at the first invoke. Bounds:
https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/lite/delegates/xnnpack/xnnpack_delegate.cc
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kzoo.weights.readers.flatbuffer import (
    TfliteGraph,
    TfliteOperator,
    TfliteTensor,
    read_tflite,
)


class Operands(NamedTuple):
    """Indices of an operator's operands among its inputs."""

    x: int
    weights: int
    bias: int


LINEAR = dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), Operands(0, 1, 2))
LINEAR["TRANSPOSE_CONV"] = Operands(2, 1, 3)  # input 0 is the output's shape
PRODUCT = dict.fromkeys(LINEAR, (0.0, 2.0**8)) | {"MUL": (2.0**-16, 2.0**8)}  # s1 s2 / s_out
RATIO = {"ADD": (2.0**-10, 2.0**8)}  # each s_in / s_out
LEVELS = {"int8": (-128, 127), "uint8": (0, 255)}
# Largest plausible activation. In 634 int8 files of sound networks the largest was 1,910; two
# detectors whose training had diverged had 47,000 and 3.9e6.
LARGEST_SOUND = 1e4


def risks(graph: TfliteGraph) -> Iterator[str]:
    """Yield the 8-bit operators whose scales are out of bounds, with their factor."""
    for i, op in enumerate(graph.operators):
        if op.name not in PRODUCT and op.name not in RATIO:
            continue
        ends = [*operands(graph, op), *(graph.tensors[t] for t in op.outputs[:1])]
        if len(ends) != 3 or not all(t.scales and t.dtype in ("int8", "uint8") for t in ends):
            continue
        first, more, out = (t.scales for t in ends)
        if op.name in PRODUCT:
            (low, high), factors = PRODUCT[op.name], [first[0] * s / out[0] for s in more]
        else:
            (low, high), factors = RATIO[op.name], [first[0] / out[0], more[0] / out[0]]
        worst = [factor for factor in factors if not low <= factor < high]
        if worst:
            yield f"{i} {op.name} (factor {max(worst):.3g}, XNNPACK takes {low:.2g} to {high:g})"


def largest_value(graph: TfliteGraph) -> float:
    """Return the largest magnitude in the ranges of 8-bit activations; 0 without any."""
    outputs = (graph.tensors[i] for op in graph.operators for i in op.outputs if i >= 0)
    return max(
        (
            tensor.scales[0] * abs(level - tensor.zero_points[0])
            for tensor in outputs if len(tensor.scales) == 1 and tensor.zero_points
            for level in LEVELS.get(tensor.dtype, ())
        ),
        default=0.0,
    )  # fmt: skip


def remedy(largest: float) -> str:
    """Return what to do about scales out of bounds, by the `largest_value` of the file."""
    keep_inside = "Make int8 of the float model with kzoo.quantize, which keeps inside them."
    return divergence(largest) or keep_inside


def divergence(largest: float) -> str:
    """Return a remark if `largest_value` shows that training diverged; else ""."""
    if largest <= LARGEST_SOUND:
        return ""
    return (
        f"Its activations reach {largest:.2g}, those of sound networks 2,000 at the most. Most "
        "likely its training diverged: train it again with a lower learning rate."
    )


def divergence_of(file: Path) -> str:
    """Return the remark of `divergence` on a .tflite file; else ""."""
    return divergence(largest_value(read_tflite(file).graphs[0]))


def operands(graph: TfliteGraph, op: TfliteOperator) -> list[TfliteTensor]:
    """Return the two tensors that an operator multiplies or adds; fewer if missing."""
    x, weights, _ = LINEAR.get(op.name, Operands(0, 1, 2))
    places = (op.inputs[i] for i in (x, weights) if i < len(op.inputs))
    return [graph.tensors[t] for t in places if t >= 0]


def weights_of(graph: TfliteGraph, op: TfliteOperator) -> TfliteTensor | None:
    """Return the weights of a linear operator; None for other operators."""
    found = operands(graph, op) if op.name in LINEAR else []
    return found[1] if len(found) == 2 else None
