"""Bias correction: what int8 shifts a channel by on average, taken off its bias."""

import dataclasses
from typing import Any

import keras
import numpy as np

from kzoo.quantization.graph import Graph, Linear, Op
from kzoo.quantization.ranges import Plan, Range, domain, is_float
from kzoo.quantization.simulate import CHUNK, Run, at_once

LEAST_SHARE = 0.01  # of values that are seen: a channel of fewer is moved by less


def correct_biases(graph: Graph, plan: Plan, images: np.ndarray) -> Graph:
    """The graph with biases such that no channel is shifted on average over `images`.

    Layer after layer, each fed what the corrected ones before it give in int8: rounding shifts an
    image's flat areas as a whole, which noise of mean zero does not do.
    Source: https://arxiv.org/abs/1906.04721, section 4.2, by measurement as in its appendix D.
    """
    graph = dataclasses.replace(graph, ops=dict(graph.ops))
    pair = Pair(graph, plan, images)
    for op in list(graph.ops.values()):
        pair.compute(op)
        if isinstance(op, Linear):
            shift = pair.excess(op)
            pair.run.replace(dataclasses.replace(op, bias=op.bias - shift))
            pair.shift(op, -shift)
        pair.finish(op)
    return graph


class Pair:
    """A graph computed in float and in int8 side by side, operation by operation.

    Images go through in chunks; of each only the tensors are kept that are still to be read.
    """

    def __init__(self, graph: Graph, plan: Plan, images: np.ndarray):
        self.run: Run = Run(graph, plan)
        some = at_once(CHUNK, images.shape)
        self.chunks: list[np.ndarray] = [images[i : i + some] for i in range(0, len(images), some)]
        self.exact: list[dict[str, Any]] = [{} for _ in self.chunks]
        self.int8: list[dict[str, Any]] = [{} for _ in self.chunks]

    def compute(self, op: Op) -> None:
        """The outputs of `op`, in int8 not yet rounded."""
        for images, exact, int8 in zip(self.chunks, self.exact, self.int8, strict=True):
            if op.name not in exact:
                exact[op.name] = self.run.before_rounding(op, exact, images, False)
            int8[op.name] = self.run.before_rounding(op, int8, images, True)
            for values in (exact, int8):
                self.run.drop_inputs(op, values)

    def shift(self, op: Op, by: np.ndarray) -> None:
        """Add (C,) to the int8 outputs of `op`."""
        tensor = keras.ops.convert_to_tensor(by, dtype="float32")  # torch warns of NumPy's sums
        for int8 in self.int8:
            int8[op.name] = int8[op.name] + tensor

    def finish(self, op: Op) -> None:
        """Round the outputs of `op`, and forget what nobody reads any more."""
        for exact, int8 in zip(self.exact, self.int8, strict=True):
            if op.name in int8 and not is_float(op):
                int8[op.name] = self.run.rounded(op, int8[op.name])
            if op.name not in self.run.last_reader:
                del exact[op.name], int8[op.name]

    def excess(self, op: Op) -> np.ndarray:
        """(C,): by how much int8 is above float on average, where readers see what is wanted.

        A hard-swish sees nothing below -3, where most values of a channel may lie. What rounding
        does to those, counted in, took the logits of a V3-Small down by a third.
        """
        seen = domain(self.run.graph, op.name)
        sums = [
            sums_of(int8[op.name], exact[op.name], seen)
            for exact, int8 in zip(self.exact, self.int8, strict=True)
        ]
        total, count, values = np.sum(sums, axis=0)
        return (total / np.maximum(count, LEAST_SHARE * values)).astype(np.float32)


def sums_of(found: Any, wanted: Any, seen: Range) -> np.ndarray:
    """(3, C): of what is above, of values that are seen, of values; over all axes but the last."""
    axes = tuple(range(len(wanted.shape) - 1))
    difference = found - wanted
    count = float(np.prod([wanted.shape[axis] for axis in axes]))
    if seen == (-np.inf, np.inf):
        total = keras.ops.convert_to_numpy(keras.ops.sum(difference, axis=axes))
        return np.stack([total, np.full_like(total, count), np.full_like(total, count)])
    within = keras.ops.cast((wanted >= seen[0]) & (wanted <= seen[1]), "float32")
    total, share = (
        keras.ops.convert_to_numpy(keras.ops.sum(x, axis=axes))
        for x in (difference * within, within)
    )
    return np.stack([total, share, np.full_like(total, count)])
