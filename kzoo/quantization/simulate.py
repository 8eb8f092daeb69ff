"""A graph run operation by operation, some of them in int8."""

import dataclasses
from collections.abc import Collection, Iterator
from typing import Any

import keras

from kzoo.quantization.graph import Graph, Input, Linear, Op
from kzoo.quantization.ranges import Plan


@dataclasses.dataclass(frozen=True)
class Run:
    """Runs a graph operation by operation, those of choice in int8."""

    graph: Graph
    plan: Plan
    exact: keras.Model
    quantized: keras.Model

    def __call__(
        self, images: Any, quantized: Collection[str] = (), known: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Every operation's output; `known` are those of a run in float, to start from."""
        values = dict(known or {})
        changed: set[str] = set()
        for op in self.graph.ops.values():
            if known and op.name not in quantized and not changed.intersection(op.inputs):
                continue
            values[op.name] = self.output(op, values, images, op.name in quantized)
            changed.add(op.name)
        return values

    def output(self, op: Op, values: dict[str, Any], images: Any, quantized: bool) -> Any:
        inputs = [values[name] for name in op.inputs]
        y = inputs if len(inputs) > 1 else (inputs or [images])[0]
        for layer in self.stack(op, quantized):
            y = layer(y)
        return y

    def stack(self, op: Op, quantized: bool) -> Iterator[keras.layers.Layer]:
        if not isinstance(op, Input):
            own = quantized and isinstance(op, Linear)
            yield (self.quantized if own else self.exact).get_layer(op.name)
        elif op.zero is not None:
            yield self.exact.get_layer("preprocessing")
        if quantized and op.name in self.plan.fake_quants:
            yield self.quantized.get_layer(f"{self.plan.grids[op.name]}_quant")
