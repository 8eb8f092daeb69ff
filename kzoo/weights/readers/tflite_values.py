"""The constants of a .tflite graph, and who reads and writes its tensors."""

import collections
from collections.abc import Sequence

import numpy as np

from kzoo.weights.readers.flatbuffer import TfliteGraph, TfliteModel, TfliteOperator


class Values:
    """The constants of a .tflite graph, and who reads and writes its tensors."""

    def __init__(self, model: TfliteModel) -> None:
        self.model = model
        self.graph: TfliteGraph = model.graphs[0]
        self.writer: dict[int, TfliteOperator] = {
            i: op for op in self.graph.operators for i in op.outputs
        }
        self.readers: dict[int, list[TfliteOperator]] = collections.defaultdict(list)
        for op in self.graph.operators:
            for i in op.inputs:
                self.readers[i].append(op)

    def real(self, op: TfliteOperator, position: int) -> np.ndarray | None:
        """Return the dequantized values of a constant input; None for an activation.

        Follows the DEQUANTIZE of float16 weights.
        """
        index = op.inputs[position] if position < len(op.inputs) else -1
        if index < 0:
            return None
        source = self.writer.get(index)
        if source is not None:
            return self.real(source, 0) if source.name == "DEQUANTIZE" else None
        return self.model.real(self.graph.tensors[index])

    def reading_order(self, ends: Sequence[int] = ()) -> list[tuple[int, TfliteOperator]]:
        """Return (index, operator) in topological order, branches in the order they are read.

        ends: the tensors to compute, by default the graph's outputs. Files may list branches in any
            order; a model's layers are matched in this one.
        """
        index = {id(op): i for i, op in enumerate(self.graph.operators)}
        found: dict[int, TfliteOperator] = {}
        ends = ends or self.graph.outputs
        stack = [self.writer[t] for t in reversed(ends) if t in self.writer]
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
        """Return whether `op` computes a hard sigmoid, relu6(x + 3) / 6, with + 3 in its bias."""
        readers = self.readers[op.outputs[0]] if op.options["activation"] == "relu6" else ()
        constants = [self.real(r, i) for r in readers if r.name == "MUL" for i in (0, 1)]
        return any(
            c is not None and c.size == 1 and abs(c.item() - 1 / 6) < 0.01 for c in constants
        )

    def is_taken_apart(self, op: TfliteOperator) -> bool:
        """Return whether a split hard-swish, as kzoo exports it, follows `op`."""
        adds = [r for r in self.readers[op.outputs[0]] if r.name == "ADD"]
        gates = [r for r in adds if r.options["activation"] == "relu6"]
        products = [r for gate in gates for r in self.readers[gate.outputs[0]] if r.name == "MUL"]
        return any(self.real(r, 0) is None and self.real(r, 1) is None for r in products)
