"""Bias correction: what int8 shifts a channel by on average, taken off its bias."""

import dataclasses
from typing import Any

import keras
import numpy as np

from kzoo.qat.emit import emit
from kzoo.qat.graph import Graph, Linear
from kzoo.qat.ranges import Plan, is_float
from kzoo.qat.run import Run


def correct_biases(graph: Graph, plan: Plan, pictures: np.ndarray) -> Graph:
    """The graph with biases such that no channel is shifted on average over `pictures`.

    Layer after layer, each fed what the corrected ones before it give in int8: rounding shifts a
    picture's flat areas as a whole, which noise of mean zero does not do.
    Source: https://arxiv.org/abs/1906.04721, section 4.2, by measurement as in its appendix D.
    """
    run = Run(graph, plan, emit(graph, name="float"), emit(graph, plan, name="quantized"))
    last = {name: op.name for op in graph.ops.values() for name in op.inputs}
    exact: dict[str, Any] = {}
    rounded: dict[str, Any] = {}
    ops = dict(graph.ops)
    for op in graph.ops.values():
        exact[op.name] = run.output(op, exact, pictures, False)
        if isinstance(op, Linear) and not is_float(op):
            wanted = exact[op.name]
            found = run.quantized.get_layer(op.name)(rounded[op.inputs[0]])
            axes = tuple(range(len(wanted.shape) - 1))
            shift = keras.ops.convert_to_numpy(keras.ops.mean(found - wanted, axis=axes))
            ops[op.name] = dataclasses.replace(op, bias=op.bias - shift)
            run.quantized.get_layer(op.name).bias.assign(op.bias - shift)
        rounded[op.name] = run.output(op, rounded, pictures, not is_float(op))
        for name in op.inputs:
            if last[name] == op.name:  # nobody reads it any more
                exact.pop(name, None)
                rounded.pop(name, None)
    return dataclasses.replace(graph, ops=ops)
