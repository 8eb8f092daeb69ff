"""Weights and biases that take back what int8 does to a layer's inputs, as far as they can."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import layers

from kzoo.quantization.graph import Graph, Linear, Op
from kzoo.quantization.layers import WEIGHT_LEVELS
from kzoo.quantization.ranges import Plan, Range, domain, is_float
from kzoo.quantization.simulate import CHUNK, Run, at_once

LEAST_SHARE = 0.01  # of values that are seen: a channel of fewer is moved by less
# How strongly weights are held to what they are, in parts of what their inputs vary by. Down to
# 1e-5 they follow 32 images too closely: a V2's 22.4 dB fell to 19.3.
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
LEAST_GAIN = 0.995  # of the error on the other half of the images, or weights stay as they are
LEAST_FITTED = 16  # images
LEAST_PLACES = 0.25  # on half of the images, of a layer's inputs: fewer tell nothing of its weights
HELD = 2.9e7  # values of the largest tensor over all images: 36 of a V3-Large at 224 px
LEAST_IMAGES, MOST_IMAGES = 32, 128


def images_for(graph: Graph) -> int:
    """Return how many images to correct on: a V3-Small's noise falls by .6 dB from 32 to 96."""
    shapes = [op.shape[1:] for op in graph.ops.values() if None not in op.shape[1:]]
    largest = max((math.prod(n or 1 for n in shape) for shape in shapes), default=1)
    return int(min(max(HELD // largest, LEAST_IMAGES), MOST_IMAGES))


def correct(graph: Graph, plan: Plan, images: np.ndarray) -> Graph:
    """The graph with weights and biases whose outputs on `images` (N, H, W, C) are near float's.

    Layer after layer, each fed what the corrected ones before it give in int8. The weights of
    1 x 1 convolutions and dense layers are fitted to these inputs, see `fitted`. Then no channel
    is shifted on average: rounding shifts an image's flat areas as a whole, which noise of mean
    zero does not do.
    Source of the biases: https://arxiv.org/abs/1906.04721, section 4.2, by measurement as in its
    appendix D.
    """
    graph = dataclasses.replace(graph, ops=dict(graph.ops))
    pair = Pair(graph, plan, images)
    for op in list(graph.ops.values()):
        pair.compute_exact(op)
        if isinstance(op, Linear) and is_fitted(op) and len(images) >= LEAST_FITTED:
            op = fitted(op, pair)
            pair.run.replace(op)
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

    def compute_exact(self, op: Op) -> None:
        """The outputs of `op` in float."""
        for images, exact in zip(self.chunks, self.exact, strict=True):
            exact[op.name] = self.run.before_rounding(op, exact, images, False)
            self.run.drop_inputs(op, exact)

    def compute(self, op: Op) -> None:
        """The outputs of `op` in int8, not yet rounded."""
        for images, int8 in zip(self.chunks, self.int8, strict=True):
            int8[op.name] = self.run.before_rounding(op, int8, images, True)
            self.run.drop_inputs(op, int8)

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


def is_fitted(op: Linear) -> bool:
    """Whether the weights of `op` are one matrix of inputs and outputs, and int8 in the file."""
    if is_float(op) or op.depthwise or op.transposed:
        return False
    return op.layer is layers.Dense or (
        op.kernel.shape[:-2] == (1, 1) and op.config.get("groups", 1) == 1
    )


def fitted(op: Linear, pair: Pair) -> Linear:
    """`op` with the weights that bring its int8 outputs nearest to float's.

    Least squares over all places, with a penalty on the change (ridge regression): the noise of
    input channels is partly one and the same, what a layer long before did to an image, and the
    weights can take it from each other. Fitted on one half of the images and judged on the other,
    which chooses the penalty, or that weights stay as they are.
    """
    halves = [Sums(op) for _ in range(2)]
    for i, (exact, int8) in enumerate(zip(pair.exact, pair.int8, strict=True)):
        halves[2 * i >= len(pair.exact)].add(int8[op.inputs[0]], exact[op.name])
    first, second = (half.moments() for half in halves)
    if min(first.places, second.places) < LEAST_PLACES * len(first.inputs):
        return op
    before = op.kernel.reshape(first.products.shape)
    none = np.zeros_like(first.products)
    best, least = none, LEAST_GAIN * (first.error(none, before) + second.error(none, before))
    for strength in STRENGTHS:
        one, other = first.change(strength), second.change(strength)
        error = second.error(one, before) + first.error(other, before)
        if error < least:
            best, least = (one + other) / 2, error
    if best is none:
        return op
    kernel = (before + best).reshape(op.kernel.shape).astype(np.float32)
    return dataclasses.replace(op, kernel=kernel)


class Sums:
    """Over places: of inputs x (C,), of what outputs lack r (K,), and of their products."""

    def __init__(self, op: Linear):
        self.op = op
        self.sums: list[Any] = [0.0] * 6

    def add(self, inputs: Any, wanted: Any) -> None:
        x, y = map(keras.ops.convert_to_numpy, (inputs, wanted))
        if self.op.layer is layers.Conv2D:
            down, right = np.broadcast_to(self.op.config.get("strides", 1), 2)
            x = x[:, ::down, ::right]
        kernel = self.op.kernel.reshape(-1, y.shape[-1])
        x, y = x.reshape(-1, len(kernel)), y.reshape(-1, y.shape[-1])
        r = y - (x @ kernel + self.op.bias)
        some = (len(x), x.sum(axis=0), r.sum(axis=0), x.T @ x, x.T @ r, np.vdot(r, r))
        self.sums = [a + np.asarray(b, np.float64) for a, b in zip(self.sums, some, strict=True)]

    def moments(self) -> "Moments":
        """The same of x and r less their means, which are the biases' affair."""
        n, x, r, xx, xr, rr = self.sums
        rest = float(rr - r @ r / n)
        return Moments(int(n), xx - np.outer(x, x) / n, xr - np.outer(x, r) / n, rest)


@dataclasses.dataclass(frozen=True)
class Moments:
    """Sums of products of inputs x (C,) with each other and with what outputs lack, r (K,)."""

    places: int
    inputs: np.ndarray  # (C, C)
    products: np.ndarray  # (C, K)
    unexplained: float  # the sum of squares of r

    def change(self, strength: float) -> np.ndarray:
        """(C, K): what to add to the weights, under a penalty of that strength."""
        size = np.diagonal(self.inputs)
        penalty = strength * (size + size.mean()) + 1e-12
        return np.linalg.solve(self.inputs + np.diag(penalty), self.products)

    def error(self, change: np.ndarray, kernel: np.ndarray) -> float:
        """What is left of `unexplained` with the change, and what rounding such weights adds."""
        explained = 2 * self.products - self.inputs @ change
        steps = np.abs(kernel + change).max(axis=0) / WEIGHT_LEVELS
        rounding = np.square(steps).sum() / 12 * np.trace(self.inputs)
        return self.unexplained - float(np.vdot(change, explained)) + float(rounding)
