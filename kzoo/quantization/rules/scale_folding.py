"""Propagation of the factor 6 of a split hard-swish to the linear layers that divide by it."""

import dataclasses
import math

import keras
import numpy as np
from keras import layers

from kzoo.quantization.graph import Activation, Affine, Graph, Join, Linear, Op, Plain
from kzoo.quantization.rules.rewrite import Result, Rewrite, renamed, rewrite


def propagate_gains(graph: Graph) -> Graph:
    """Return the graph with the gains of split hard-swishes divided out in the linear layers.

    Where no linear layer follows, an affine operation divides by the gain.
    """
    gain: dict[str, float] = {}  # output of an operation / that in the float model
    quotients: dict[str, Affine] = {}  # divide an output by its gain

    def divided(op: Op, run: Rewrite) -> Affine:
        """Return the operation that divides the output of `op` by its gain."""
        if op.name not in quotients:
            name, factor = run.unused(f"{op.name}_ungained"), np.float32(1 / gain[op.name])
            quotients[op.name] = Affine(name, (op.name,), factor, np.float32(0), shape=op.shape)
        return quotients[op.name]

    def rule(op: Op, run: Rewrite) -> Result:
        if isinstance(op, Join) and op.layer is not layers.Multiply:
            scale_to_largest_gain(op, run, gain)
        gains = [gain[name] for name in op.inputs]
        undone: tuple[Op, ...] = ()
        if isinstance(op, Linear):
            op, gain[op.name] = op.fed_with(1 / gains[0]) if gains[0] != 1 else op, 1.0
        elif isinstance(op, Join) and op.layer is layers.Multiply and op.gain == 1:
            gain[op.name] = math.prod(gains)
        elif gains and homogeneous(op) and len(set(gains)) == 1:
            gain[op.name] = gains[0]
        else:
            undone = tuple(
                divided(run.done[n], run) for n, g in zip(op.inputs, gains, strict=True) if g != 1
            )
            gain.update({new.name: 1.0 for new in undone})
            names = {new.inputs[0]: new.name for new in undone}
            op = dataclasses.replace(op, inputs=tuple(names.get(n, n) for n in op.inputs))
            gain[op.name] = op.gain if isinstance(op, Join) else 1.0
        return (*undone, op)

    graph = rewrite(graph, rule)
    run = Rewrite(graph)
    ends = {
        n: divided(graph.ops[n], run) for n in keras.tree.flatten(graph.outputs) if gain[n] != 1
    }
    ops = graph.ops | {end.name: end for end in ends.values()}
    outputs = renamed(graph.outputs, {n: end.name for n, end in ends.items()})
    return dataclasses.replace(graph, ops=ops, outputs=outputs)


def homogeneous(op: Op) -> bool:
    """Return whether f(a * x) = a * f(x) for a > 0."""
    relu = isinstance(op, Activation) and op.function == "relu"
    return (
        relu or (isinstance(op, Plain) and not op.fills) or (isinstance(op, Join) and op.gain == 1)
    )


def scale_to_largest_gain(op: Op, run: Rewrite, gain: dict[str, float]) -> None:
    """Scale all inputs of an addition to the largest gain among them, if their weights allow it.

    In row 1 of V3-Large, which adds the stem's split hard-swish to a projection, the weights of the
    projection are multiplied by six.
    """
    largest = max(gain[name] for name in op.inputs)
    lower = [name for name in op.inputs if gain[name] < largest]
    paths = [path_from_linear(name, run) for name in lower]
    if not all(paths):
        return
    for path in paths:
        factor = largest / gain[path[0]]
        gain.update({name: gain[name] * factor for name in path})
        run.done[path[-1]] = run.done[path[-1]].scaled(factor)  # type: ignore[attr-defined]


def path_from_linear(name: str, run: Rewrite) -> list[str]:
    """Return the path from `name` back to a linear layer whose weights scale only this path.

    Empty if there is none.
    """
    path = []
    while run.users[name] == 1:
        op = run.done[name]
        path.append(name)
        if isinstance(op, Linear):
            return path
        if isinstance(op, Join) or not homogeneous(op):
            break
        name = op.inputs[0]
    return []
