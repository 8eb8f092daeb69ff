"""Bias correction: what int8 shifts a channel by on average, taken off its bias."""

import dataclasses
from typing import Any

import keras
import numpy as np

from kzoo.quantization.emit import emit
from kzoo.quantization.graph import Graph, Linear
from kzoo.quantization.ranges import Plan, Range, domain, is_float
from kzoo.quantization.simulate import Run

LEAST_SHARE = 0.01  # of values that are seen: a channel of fewer is moved by less


def correct_biases(graph: Graph, plan: Plan, images: np.ndarray) -> Graph:
    """The graph with biases such that no channel is shifted on average over `images`.

    Layer after layer, each fed what the corrected ones before it give in int8: rounding shifts an
    image's flat areas as a whole, which noise of mean zero does not do.
    Source: https://arxiv.org/abs/1906.04721, section 4.2, by measurement as in its appendix D.
    """
    run = Run(graph, plan, emit(graph, name="float"), emit(graph, plan, name="quantized"))
    last = {name: op.name for op in graph.ops.values() for name in op.inputs}
    exact: dict[str, Any] = {}
    rounded: dict[str, Any] = {}
    ops = dict(graph.ops)
    for op in graph.ops.values():
        exact[op.name] = run.output(op, exact, images, False)
        if isinstance(op, Linear) and not is_float(op):
            layer = run.quantized.get_layer(op.name)
            found = layer(rounded[op.inputs[0]])
            shift = excess(found, exact[op.name], domain(graph, op.name))
            ops[op.name] = dataclasses.replace(op, bias=op.bias - shift)
            layer.bias.assign(op.bias - shift)
        rounded[op.name] = run.output(op, rounded, images, not is_float(op))
        for name in op.inputs:
            if last[name] == op.name:  # nobody reads it any more
                exact.pop(name, None)
                rounded.pop(name, None)
    return dataclasses.replace(graph, ops=ops)


def excess(found: Any, wanted: Any, seen: Range) -> np.ndarray:
    """(C,): by how much `found` is above `wanted` on average, where readers see what is wanted.

    A hard-swish sees nothing below -3, where most values of a channel may lie. What rounding does
    to those, counted in, took the logits of a V3-Small down by a third.
    """
    axes = tuple(range(len(wanted.shape) - 1))
    within = keras.ops.cast((wanted >= seen[0]) & (wanted <= seen[1]), "float32")
    share = keras.ops.mean(within, axis=axes)
    shift = keras.ops.mean((found - wanted) * within, axis=axes)
    return keras.ops.convert_to_numpy(shift / keras.ops.maximum(share, LEAST_SHARE))
