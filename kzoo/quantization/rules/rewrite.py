"""One pass over a graph: a rule says what takes each operation's place."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras

from kzoo.quantization.graph import Graph, Op, unused

# A rule gets an operation and the `Rewrite` under way, and returns the operations that take its
# place, or the name of an earlier one whose output stands for its own.
Result = tuple[Op, ...] | str
Rule = Callable[[Op, "Rewrite"], Result]


class Rewrite:
    """One pass over a graph, in order."""

    def __init__(self, graph: Graph):
        self.done: dict[str, Op] = {}
        self.users: Counter[str] = graph.users()
        self.alias: dict[str, str] = {}
        self.names: set[str] = set(graph.ops)

    def sole(self, name: str, kind: type) -> Any:
        """The operation `name` if it is a `kind` whose output nobody else reads, else None."""
        op = self.done[name]
        return op if isinstance(op, kind) and self.users[name] == 1 else None

    def unused(self, name: str) -> str:
        """Return a name for a new operation: a layer of the model may be called x_gate too."""
        new = unused(name, self.names)
        self.names.add(new)
        return new

    def put(self, op: Op, result: Result) -> None:
        if isinstance(result, str):
            self.alias[op.name] = result
            self.users[result] = self.users[op.name]
        else:
            self.done.update({new.name: new for new in result})


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """Apply `rule` to every operation."""
    run = Rewrite(graph)
    for op in graph.ops.values():
        inputs = tuple(run.alias.get(name, name) for name in op.inputs)
        op = dataclasses.replace(op, inputs=inputs)
        run.put(op, rule(op, run))
    outputs = renamed(graph.outputs, run.alias)
    return dataclasses.replace(graph, ops=run.done, outputs=outputs)


def renamed(structure: Any, alias: dict[str, str]) -> Any:
    return keras.tree.map_structure(lambda name: alias.get(name, name), structure)
