"""Reader of the weights in a .tflite file, float or quantized."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from kzoo.preprocessing import scaling
from kzoo.weights.checkpoint import Checkpoint, Unit
from kzoo.weights.readers.flatbuffer import read_tflite
from kzoo.weights.readers.tflite_detector import find_head, with_columns
from kzoo.weights.readers.tflite_values import Values

KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "CONV_2D": lambda w: w.transpose(1, 2, 3, 0),
    "DEPTHWISE_CONV_2D": lambda w: w.transpose(1, 2, 3, 0),
    "FULLY_CONNECTED": lambda w: w.T[None, None],
}
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "DIV": np.divide,
}  # fmt: skip


def black(values: Values) -> float | None:
    """Return the value of a black pixel in a quantized input; None for a float input."""
    image = values.graph.tensors[values.graph.inputs[0]]
    lowest = {"uint8": 0, "int8": -128}.get(image.dtype)
    if lowest is None or not image.scales:
        return None
    return image.scales[0] * (lowest - (image.zero_points or (0,))[0])


def from_tflite(data: bytes, file: pathlib.Path) -> Checkpoint:
    """Read a classifier's or detector's file; quantized weights are dequantized."""
    values = Values(read_tflite(data))
    head = find_head(values)
    units: list[Unit] = []
    in_head = 0
    offset, symmetric = black(values), False
    for place, (i, op) in enumerate(head.order if head else values.reading_order()):
        if op.name in KERNELS:
            kernel, bias = values.real(op, 1), values.real(op, 2)
            if kernel is None or kernel.ndim != (2 if op.name == "FULLY_CONNECTED" else 4):
                raise ValueError(
                    f"Operator {i}, {op.name}, has no constant weights: this is not a classifier."
                )
            if values.is_taken_apart(op):
                raise ValueError(
                    "Its hard-swish is split, with factors folded into the neighbouring weights: "
                    "load "
                    "the model that it was converted from."
                )
            if bias is not None and values.is_gate(op):
                bias = bias - 3
            unit = Unit(f"operator {i} ({op.name})", KERNELS[op.name](kernel), bias)
            if head and id(op) in head.columns:
                unit = with_columns(unit, head.columns[id(op)])
            units.append(unit)
            in_head += head is not None and place >= head.first
        elif op.name in ARITHMETIC and not units:
            constant = values.real(op, 1)
            if constant is not None:
                offset = ARITHMETIC[op.name](0.0 if offset is None else offset, constant)
        elif op.name == "PAD":
            # For maps of odd size "same" is symmetric too.
            pads, shape = values.real(op, 1), values.graph.tensors[op.inputs[0]].shape
            if pads is not None and any(n % 2 == 0 for n in shape[1:3]):
                symmetric |= bool((pads[:, 0] == pads[:, 1]).all() and pads.any())
    # A float file without arithmetic before its first convolution does not show its input scaling;
    # all published ones are TensorFlow's, in [-1, 1], or pad like PyTorch.
    found = scaling(offset) if offset is not None else None
    return Checkpoint(
        str(file), "TFLite", tuple(units), "symmetric" if symmetric else "same", None,
        found or ("torch" if symmetric else "tf"), in_head,
    )  # fmt: skip
