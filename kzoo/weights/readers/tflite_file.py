"""The weights in a .tflite: float, or the reals that its integers stand for."""

import collections
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from kzoo.preprocessing import scaling
from kzoo.weights.checkpoint import Checkpoint, Unit
from kzoo.weights.readers.flatbuffer import TfliteGraph, TfliteModel, TfliteOperator, read_tflite


class Values:
    """The constants of a .tflite graph, and who reads and writes its tensors."""

    def __init__(self, model: TfliteModel) -> None:
        self.model = model
        self.graph: TfliteGraph = model.graphs[0]
        self.writer = {i: op for op in self.graph.operators for i in op.outputs}
        self.readers = collections.defaultdict(list)
        for op in self.graph.operators:
            for i in op.inputs:
                self.readers[i].append(op)

    def real(self, op: TfliteOperator, position: int) -> np.ndarray | None:
        """A constant operand's real values, through the DEQUANTIZE of a float16 file."""
        index = op.inputs[position] if position < len(op.inputs) else -1
        if index < 0:
            return None
        source = self.writer.get(index)
        if source is not None:
            return self.real(source, 0) if source.name == "DEQUANTIZE" else None
        return self.model.real(self.graph.tensors[index])

    def reading_order(self) -> list[tuple[int, TfliteOperator]]:
        """(Index, operator), each after all that it reads, in the order in which it reads them.

        A file may list branches in any order; kzoo's own are matched in this one.
        """
        index = {id(op): i for i, op in enumerate(self.graph.operators)}
        found: dict[int, TfliteOperator] = {}
        stack = [self.writer[t] for t in reversed(self.graph.outputs) if t in self.writer]
        while stack:
            op = stack[-1]
            before = [self.writer[t] for t in op.inputs if t in self.writer]
            before = [other for other in before if index[id(other)] not in found]
            if before:
                stack += reversed(before)
                continue
            found[index[id(op)]] = stack.pop()
        return list(found.items())

    def is_gate(self, op: TfliteOperator) -> bool:
        """hard_sigmoid(x) = relu6(x + 3) / 6, where the converter has put the + 3 into a bias."""
        readers = self.readers[op.outputs[0]] if op.options["activation"] == "relu6" else ()
        constants = [self.real(r, i) for r in readers if r.name == "MUL" for i in (0, 1)]
        return any(
            c is not None and c.size == 1 and abs(c.item() - 1 / 6) < 0.01 for c in constants
        )

    def is_taken_apart(self, op: TfliteOperator) -> bool:
        """Whether the hard-swish after `op` is multiplied out, as kzoo exports it."""
        adds = [r for r in self.readers[op.outputs[0]] if r.name == "ADD"]
        gates = [r for r in adds if r.options["activation"] == "relu6"]
        products = [r for gate in gates for r in self.readers[gate.outputs[0]] if r.name == "MUL"]
        return any(self.real(r, 0) is None and self.real(r, 1) is None for r in products)


KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "CONV_2D": lambda w: w.transpose(1, 2, 3, 0),
    "DEPTHWISE_CONV_2D": lambda w: w.transpose(1, 2, 3, 0),
    "FULLY_CONNECTED": lambda w: w.T[None, None],
}
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "DIV": np.divide,
}  # fmt: skip


def from_tflite(data: bytes, file: pathlib.Path) -> Checkpoint:
    """A classifier's file. Quantized weights become the reals they stand for."""
    values = Values(read_tflite(data))
    units: list[Unit] = []
    offset, symmetric = None, False
    for i, op in values.reading_order():
        if op.name in KERNELS:
            kernel, bias = values.real(op, 1), values.real(op, 2)
            if kernel is None or kernel.ndim != (2 if op.name == "FULLY_CONNECTED" else 4):
                raise ValueError(
                    f"Operator {i}, {op.name}, has no constant weights: no classifier."
                )
            if values.is_taken_apart(op):
                raise ValueError(
                    "Its hard-swish is taken apart, factors folded into the weights around: load "
                    "the model that it was converted from."
                )
            if bias is not None and values.is_gate(op):
                bias = bias - 3
            units.append(Unit(f"operator {i} ({op.name})", KERNELS[op.name](kernel), bias))
        elif op.name in ARITHMETIC and not units:
            constant = values.real(op, 1)
            if constant is not None:
                offset = ARITHMETIC[op.name](0.0 if offset is None else offset, constant)
        elif op.name == "PAD":
            pads = values.real(op, 1)
            symmetric |= pads is not None and bool((pads[:, 0] == pads[:, 1]).all() and pads.any())
    # A file without arithmetic before its first convolution takes what the net takes; so far every
    # published one is TensorFlow's, [-1, 1], or pads like PyTorch.
    found = scaling(offset) if offset is not None else None
    return Checkpoint(
        str(file), "TFLite", tuple(units), "symmetric" if symmetric else "same", None,
        found or ("torch" if symmetric else "tf"),
    )  # fmt: skip
