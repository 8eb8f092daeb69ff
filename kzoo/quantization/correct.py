"""Bias correction, and least-squares fitting of weights to their int8 inputs."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import layers

from kzoo.quantization.graph import Graph, Linear, Op
from kzoo.quantization.layers import WEIGHT_LEVELS
from kzoo.quantization.ranges import Plan, Range, domain, is_float
from kzoo.quantization.simulate import CHUNK, Run, chunk_size

LEAST_SHARE = 0.01  # of a channel's values within the readers' domain; with fewer it shifts less
# Ridge penalties tried in turn, relative to the inputs' variance. Values down to 1e-5 overfit 32
# images: V2 fell from 22.4 to 19.3 dB.
STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
LEAST_GAIN = 0.995  # fitted weights are kept below this ratio of held-out error to that before
LEAST_FITTED = 16  # images, or no weights are fitted
LEAST_PLACES = 0.25  # positions on half of the images per input channel, or weights are not fitted
HELD = 2.9e7  # values of the largest tensor to hold, over all images: 36 of a V3-Large at 224 px
LEAST_IMAGES, MOST_IMAGES = 32, 128


def images_for(graph: Graph) -> int:
    """Return the number of images to correct on, as many as memory allows.

    From 32 to 96 images the noise of a V3-Small falls by .6 dB.
    """
    shapes = [op.shape[1:] for op in graph.ops.values() if None not in op.shape[1:]]
    largest = max((math.prod(n or 1 for n in shape) for shape in shapes), default=1)
    return int(min(max(HELD // largest, LEAST_IMAGES), MOST_IMAGES))


def correct(graph: Graph, plan: Plan, images: np.ndarray) -> Graph:
    """Return the graph with weights and biases corrected for quantization error on `images`.

    Layer by layer, each with the int8 outputs of the corrected layers before it as input: the
    weights of 1x1 convolutions and dense layers are fitted, see `fitted`; then the mean error of
    each output channel is subtracted from its bias. Rounding errors are not zero on average, since
    the flat areas of an image are all rounded alike.

    images: (N, H, W, C).

    Source of the bias correction: https://arxiv.org/abs/1906.04721, section 4.2, empirical as in
    its appendix D.
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

    Images are processed in chunks; tensors are dropped after their last reader.
    """

    def __init__(self, graph: Graph, plan: Plan, images: np.ndarray):
        self.run: Run = Run(graph, plan)
        some = chunk_size(CHUNK, images.shape)
        self.chunks: list[np.ndarray] = [images[i : i + some] for i in range(0, len(images), some)]
        self.exact: list[dict[str, Any]] = [{} for _ in self.chunks]
        self.int8: list[dict[str, Any]] = [{} for _ in self.chunks]

    def compute_exact(self, op: Op) -> None:
        """Compute the outputs of `op` in float."""
        for images, exact in zip(self.chunks, self.exact, strict=True):
            exact[op.name] = self.run.before_rounding(op, exact, images, False)
            self.run.drop_inputs(op, exact)

    def compute(self, op: Op) -> None:
        """Compute the outputs of `op` from int8 inputs and weights, before rounding."""
        for images, int8 in zip(self.chunks, self.int8, strict=True):
            int8[op.name] = self.run.before_rounding(op, int8, images, True)
            self.run.drop_inputs(op, int8)

    def shift(self, op: Op, by: np.ndarray) -> None:
        """Add (C,) to the int8 outputs of `op`."""
        # PyTorch warns when a NumPy array is added to a tensor.
        tensor = keras.ops.convert_to_tensor(by, dtype="float32")
        for int8 in self.int8:
            int8[op.name] = int8[op.name] + tensor

    def finish(self, op: Op) -> None:
        """Round the outputs of `op`; drop them if nothing reads them."""
        for exact, int8 in zip(self.exact, self.int8, strict=True):
            if op.name in int8 and not is_float(op):
                int8[op.name] = self.run.rounded(op, int8[op.name])
            if op.name not in self.run.last_reader:
                del exact[op.name], int8[op.name]

    def excess(self, op: Op) -> np.ndarray:
        """Return the mean of int8 minus float outputs (C,), over values within the readers' domain.

        A hard-swish ignores values below -3, where most values of a channel may lie. Counting their
        errors shrank the logits of a V3-Small by a third.
        """
        seen = domain(self.run.graph, op.name)
        sums = [
            sums_of(int8[op.name], exact[op.name], seen)
            for exact, int8 in zip(self.exact, self.int8, strict=True)
        ]
        total, count, values = np.sum(sums, axis=0)
        return (total / np.maximum(count, LEAST_SHARE * values)).astype(np.float32)


def sums_of(found: Any, wanted: Any, seen: Range) -> np.ndarray:
    """Return sums per channel (3, C): of errors within `seen`, of values there, of all values."""
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
    """Return whether `op` is an int8 dense layer or ungrouped 1x1 convolution: one matrix."""
    if is_float(op) or op.depthwise or op.transposed:
        return False
    return op.layer is layers.Dense or (
        op.kernel.shape[:-2] == (1, 1) and op.config.get("groups", 1) == 1
    )


def fitted(op: Linear, pair: Pair) -> Linear:
    """Return `op` with weights that minimize the error of its outputs for int8 inputs.

    Ridge regression over all positions, with a penalty on the change of the weights: the errors of
    input channels are correlated, since they come from the same earlier layers, so that weights can
    cancel part of them. Only errors within the readers' domain count: what ReLU6 cuts off is large
    in a V2, and fitting it took the outputs from 20.0 to 18.2 dB. Two-fold cross-validation over
    the images chooses the penalty; without a gain of `LEAST_GAIN` the weights stay.
    """
    seen = domain(pair.run.graph, op.name)
    halves = [Sums(op, seen) for _ in range(2)]
    for i, (exact, int8) in enumerate(zip(pair.exact, pair.int8, strict=True)):
        halves[2 * i >= len(pair.exact)].add(int8[op.inputs[0]], exact[op.name])
    first, second = (half.moments() for half in halves)
    if min(first.places, second.places) < LEAST_PLACES * len(first.inputs):
        return op
    before = op.kernel.reshape(first.products.shape)
    none = np.zeros_like(first.products)
    best, least = none, LEAST_GAIN * (first.error(none, before) + second.error(none, before))
    last = np.inf
    for strength in STRENGTHS:
        one, other = first.change(strength), second.change(strength)
        error = second.error(one, before) + first.error(other, before)
        if error < least:
            best, least = (one + other) / 2, error
        if error >= last:  # the error has one minimum over the penalty in nearly all layers
            break
        last = error
    if best is none:
        return op
    kernel = (before + best).reshape(op.kernel.shape).astype(np.float32)
    return dataclasses.replace(op, kernel=kernel)


class Sums:
    """Sums over positions of inputs x (C,), output residuals r (K,) and their products.

    Outputs are clipped to `seen` before they are subtracted.
    """

    def __init__(self, op: Linear, seen: Range):
        self.op, self.seen = op, seen
        self.sums: list[Any] = [0.0] * 6

    def add(self, inputs: Any, wanted: Any) -> None:
        x, y = map(keras.ops.convert_to_numpy, (inputs, wanted))
        if self.op.layer is layers.Conv2D:
            down, right = np.broadcast_to(self.op.config.get("strides", 1), 2)
            x = x[:, ::down, ::right]
        kernel = self.op.kernel.reshape(-1, y.shape[-1])
        x, y = x.reshape(-1, len(kernel)), y.reshape(-1, y.shape[-1])
        r = np.clip(y, *self.seen) - np.clip(x @ kernel + self.op.bias, *self.seen)
        some = (len(x), x.sum(axis=0), r.sum(axis=0), x.T @ x, x.T @ r, np.vdot(r, r))
        self.sums = [a + np.asarray(b, np.float64) for a, b in zip(self.sums, some, strict=True)]

    def moments(self) -> "Moments":
        """Return the central moments: the bias accounts for the means of x and r."""
        n, x, r, xx, xr, rr = self.sums
        rest = float(rr - r @ r / n)
        return Moments(int(n), xx - np.outer(x, x) / n, xr - np.outer(x, r) / n, rest)


@dataclasses.dataclass(frozen=True)
class Moments:
    """Centred sums of products of inputs x (C,) with each other and with residuals r (K,)."""

    places: int
    inputs: np.ndarray  # (C, C)
    products: np.ndarray  # (C, K)
    unexplained: float  # the sum of squares of r

    def change(self, strength: float) -> np.ndarray:
        """Return the change (C, K) of the weights under a ridge penalty of that strength."""
        size = np.diagonal(self.inputs)
        penalty = strength * (size + size.mean()) + 1e-12
        return np.linalg.solve(self.inputs + np.diag(penalty), self.products)

    def error(self, change: np.ndarray, kernel: np.ndarray) -> float:
        """Return the squared residual after the change, plus the noise of rounding the weights."""
        explained = 2 * self.products - self.inputs @ change
        steps = np.abs(kernel + change).max(axis=0) / WEIGHT_LEVELS
        rounding = np.square(steps).sum() / 12 * np.trace(self.inputs)
        return self.unexplained - float(np.vdot(change, explained)) + float(rounding)
