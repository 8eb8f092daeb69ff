"""One pass over a graph that replaces operations by a rule."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras

from kzoo.quantization.graph import Graph, Op, unused

# A rule gets an operation and the current `Rewrite`; it returns the operations that replace it, or
# the name of an earlier operation whose output replaces its output.
Result = tuple[Op, ...] | str
Rule = Callable[[Op, "Rewrite"], Result]


class Rewrite:
    """The state of one pass: new operations, numbers of readers, and replaced names."""

    def __init__(self, graph: Graph):
        self.done: dict[str, Op] = {}
        self.users: Counter[str] = graph.users()
        self.alias: dict[str, str] = {}
        self.names: set[str] = set(graph.ops)

    def sole(self, name: str, kind: type) -> Any:
        """Return the operation `name` if it is a `kind` with a single reader, else None."""
        op = self.done[name]
        return op if isinstance(op, kind) and self.users[name] == 1 else None

    def unused(self, name: str) -> str:
        """Return an unused name for a new operation, since a layer may be called x_gate too."""
        new = unused(name, self.names)
        self.names.add(new)
        return new

    def put(self, op: Op, result: Result) -> None:
        """Record the result of a rule for `op`."""
        if isinstance(result, str):
            self.alias[op.name] = result
            self.users[result] = self.users[op.name]
        else:
            self.done.update({new.name: new for new in result})


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """Return the graph after applying `rule` to every operation in order."""
    run = Rewrite(graph)
    for op in graph.ops.values():
        inputs = tuple(run.alias.get(name, name) for name in op.inputs)
        op = dataclasses.replace(op, inputs=inputs)
        run.put(op, rule(op, run))
    outputs = renamed(graph.outputs, run.alias)
    return dataclasses.replace(graph, ops=run.done, outputs=outputs)


def renamed(structure: Any, alias: dict[str, str]) -> Any:
    return keras.tree.map_structure(lambda name: alias.get(name, name), structure)
