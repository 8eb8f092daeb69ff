"""Learned rounding: weights on the int8 grid that give back what the float layer gives.

Rounded to nearest, each weight is as near to itself as it can be; the layer's outputs are not. A
depthwise kernel that takes differences of large values loses 12 dB of a V3-Small's logits by
itself. Here each layer, in order, is solved for what it reads in int8 to give what it gave in
float (least squares, held to the float weights by a ridge), then rounded one input at a time, the
error of each made up for by those that are not rounded yet, then improved by single steps.
Sources: GPTQ, https://arxiv.org/abs/2210.17323, for the order and the update;
https://arxiv.org/abs/2504.02692 for fitting to inputs that are quantized already.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from kzoo.quantization.correct import Pair
from kzoo.quantization.graph import Graph, Linear
from kzoo.quantization.layers import WEIGHT_LEVELS
from kzoo.quantization.ranges import Plan, is_float

# Of the mean variance of the inputs: how much float weights weigh. At .01 the layers learn the 64
# images: a V3-Small's logits at 11.6 dB; at .1 12.6, at 1 13.2, at 10 13.4 (nearest 12.7).
RIDGE = 1.0
LARGEST_FAN_IN = 2048  # inputs of one output; beyond, matrices of a side of that cost too much
SAMPLES_PER_INPUT = 16  # positions that a layer is solved on, for each input of an output
LEAST_SAMPLES = 4096
SWEEPS = 4  # of single steps


@dataclasses.dataclass
class Moments:
    """Sums over samples, of patches x (n, G, K) in int8 and outputs y (n, G, M) in float.

    G: groups with inputs of their own, the channels of a depthwise layer, else 1.
    """

    count: int = 0
    x: Any = 0.0  # (G, K)
    y: Any = 0.0  # (G, M)
    xx: Any = 0.0  # (G, K, K)
    xy: Any = 0.0  # (G, K, M)

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        x, y = x.transpose(1, 0, 2), y.transpose(1, 0, 2)
        self.count += x.shape[1]
        self.x = self.x + x.sum(axis=1, dtype=np.float64)
        self.y = self.y + y.sum(axis=1, dtype=np.float64)
        self.xx = self.xx + np.matmul(x.transpose(0, 2, 1), x).astype(np.float64)
        self.xy = self.xy + np.matmul(x.transpose(0, 2, 1), y).astype(np.float64)

    def centred(self) -> tuple[np.ndarray, np.ndarray]:
        """Covariances (G, K, K) and (G, K, M): the bias takes the means."""
        x, y = self.x / self.count, self.y / self.count
        return (
            self.xx / self.count - x[:, :, None] * x[:, None, :],
            self.xy / self.count - x[:, :, None] * y[:, None, :],
        )


def round_weights(
    graph: Graph,
    plan: Plan,
    images: np.ndarray,
    progress: Callable[[str], None] = lambda step: None,
) -> tuple[Graph, Plan]:
    """The graph with weights that lie on the int8 grid, and the plan with the ranges of those."""
    graph = dataclasses.replace(graph, ops=dict(graph.ops))
    plan = dataclasses.replace(plan, limits=dict(plan.limits))
    pair = Pair(graph, plan, images)
    for op in list(graph.ops.values()):
        if isinstance(op, Linear) and not is_float(op) and fan_in(op) <= LARGEST_FAN_IN:
            progress(f"rounding {op.name}")
            pair.compute_exact(op)
            op, span = solved(op, pair, plan.limits[op.name])
            ceiling = plan.limits[op.name][1]
            plan.limits[op.name] = np.stack([span, np.maximum(span, ceiling)])
            pair.run.replace(op)
        pair.compute(op)
        if isinstance(op, Linear):
            shift = pair.excess(op)
            pair.run.replace(dataclasses.replace(op, bias=op.bias - shift))
            pair.shift(op, -shift)
        pair.finish(op)
    return graph, plan


def fan_in(op: Linear) -> float:
    if op.config.get("groups", 1) > 1:
        return np.inf
    return float(np.prod(op.kernel.shape[:-2] if op.depthwise else op.kernel.shape[:-1]))


def solved(op: Linear, pair: Pair, limits: np.ndarray) -> tuple[Linear, np.ndarray]:
    """(The layer with weights on its grid, the range of each channel (C,))."""
    moments = Moments()
    wanted = max(LEAST_SAMPLES, int(SAMPLES_PER_INPUT * fan_in(op)))
    each = -(-wanted // len(pair.chunks))
    rng = np.random.default_rng(0)
    for exact, int8 in zip(pair.exact, pair.int8, strict=True):
        x = keras.ops.convert_to_numpy(int8[op.inputs[0]])
        y = keras.ops.convert_to_numpy(exact[op.name])
        moments.add(*samples(op, x, y, each, rng))
    weights = grouped(op)  # (G, K, M)
    hessian, cross = moments.centred()
    variance = np.trace(hessian, axis1=1, axis2=2)[:, None, None] / hessian.shape[1]
    ridge = RIDGE * np.maximum(variance, 1e-6 * variance.max() + 1e-12)
    hessian = hessian + ridge * np.eye(hessian.shape[1])
    target = np.linalg.solve(hessian, cross + ridge * weights)
    span = np.abs(target).max(axis=1) * (1 + 2**-20)
    span = np.clip(span, *(limit.reshape(span.shape) for limit in limits))
    steps = span[:, None, :] / WEIGHT_LEVELS
    levels = rounded(target / steps, hessian)
    kernel = (levels * steps).astype(np.float32)
    return dataclasses.replace(op, kernel=ungrouped(op, kernel)), span.reshape(-1).astype("float32")


def grouped(op: Linear) -> np.ndarray:
    """The kernel as (G, K, M)."""
    kernel = op.kernel
    if op.depthwise:  # (H, W, C, M)
        return kernel.reshape(-1, *kernel.shape[2:]).transpose(1, 0, 2)
    return kernel.reshape(1, -1, kernel.shape[-1])


def ungrouped(op: Linear, kernel: np.ndarray) -> np.ndarray:
    return (kernel.transpose(1, 0, 2) if op.depthwise else kernel).reshape(op.kernel.shape)


def samples(
    op: Linear, x: np.ndarray, y: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Patches (n, G, K) and outputs (n, G, M) at some places, of inputs x and outputs y."""
    if op.layer is layers.Dense:
        x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        chosen = rng.permutation(len(x))[:count]
        return x[chosen][:, None], y[chosen][:, None]
    places = np.prod(y.shape[:3])
    chosen = np.arange(places) if places <= count else rng.choice(places, count, replace=False)
    n, row, column = np.unravel_index(np.sort(chosen), y.shape[:3])
    size, stride, dilation = (
        np.broadcast_to(op.config.get(key, 1), 2)
        for key in ("kernel_size", "strides", "dilation_rate")
    )
    reach = (size - 1) * dilation + 1
    if op.config.get("padding", "valid") == "same":
        ends = (np.array(y.shape[1:3]) - 1) * stride + reach - x.shape[1:3]
        before = np.maximum(ends, 0) // 2
        x = np.pad(x, ((0, 0), *((b, max(e - b, 0)) for b, e in zip(before, ends, strict=True)),
                       (0, 0)))  # fmt: skip
    rows = row[:, None] * stride[0] + np.repeat(np.arange(size[0]) * dilation[0], size[1])
    columns = column[:, None] * stride[1] + np.tile(np.arange(size[1]) * dilation[1], size[0])
    patches = x[n[:, None], rows, columns]  # (n, H * W, C)
    outputs = y[n, row, column]
    if not op.depthwise:
        return patches.reshape(len(n), 1, -1), outputs[:, None]
    return patches.transpose(0, 2, 1), outputs.reshape(len(n), patches.shape[-1], -1)


def rounded(target: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Whole numbers (G, K, M) in [-127, 127] near `target` by the measure of `hessian` (G, K, K).

    Of two ways, for each output the better: the nearest ones, and one input after the other, that
    of most weight first, each error made up for by those to come. Both are improved by steps.
    """
    found, errors = [], []
    for start in (in_turn(target, hessian), np.round(target)):
        levels = stepped(np.clip(start, -WEIGHT_LEVELS, WEIGHT_LEVELS), target, hessian)
        found.append(levels)
        difference = levels - target
        errors.append((difference * np.matmul(hessian, difference)).sum(axis=1, keepdims=True))
    return np.where(errors[0] <= errors[1], *found)


def in_turn(target: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """GPTQ's rounding."""
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1)
    hessian = np.take_along_axis(
        np.take_along_axis(hessian, order[:, :, None], axis=1), order[:, None, :], axis=2
    )
    left = np.take_along_axis(target, order[:, :, None], axis=1)
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).transpose(0, 2, 1)
    levels = np.zeros_like(left)
    for i in range(left.shape[1]):
        levels[:, i] = np.clip(np.round(left[:, i]), -WEIGHT_LEVELS, WEIGHT_LEVELS)
        error = (left[:, i] - levels[:, i]) / upper[:, i, i, None]
        left[:, i + 1 :] -= upper[:, i, i + 1 :, None] * error[:, None]
    back = np.argsort(order, axis=1)
    return np.take_along_axis(levels, back[:, :, None], axis=1)


def stepped(levels: np.ndarray, wanted: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """`levels` after sweeps in which each moves where its error, all others given, is least."""
    slope = np.matmul(hessian, levels - wanted)  # (G, K, M)
    for _ in range(SWEEPS):
        moved = False
        for i in range(levels.shape[1]):
            best = np.round(levels[:, i] - slope[:, i] / hessian[:, i, i, None])
            change = np.clip(best, -WEIGHT_LEVELS, WEIGHT_LEVELS) - levels[:, i]
            if change.any():
                moved = True
                levels[:, i] += change
                slope += hessian[:, :, i, None] * change[:, None]
        if not moved:
            break
    return levels
