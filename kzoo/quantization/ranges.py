"""Quantization ranges: which tensors are int8, over which range, within the kernels' limits."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import keras
import numpy as np
from keras import layers

from kzoo.quantization.graph import Activation, Graph, Input, Join, Linear, Op, Opaque, Plain
from kzoo.quantization.layers import LEVELS, WEIGHT_LEVELS

Range = tuple[float, float]

SCORES = ("softmax", "sigmoid")  # activations that turn logits into scores at a model's output
# Output ranges that TFLite prescribes; the hard sigmoid's [0, 1] replaces its clipping.
FIXED: dict[str, Range] = {
    "unit": (0.0, 1.0),
    "sigmoid": (0.0, 255 / 256),
    "softmax": (0.0, 255 / 256),
    "tanh": (-1.0, 127 / 128),
}
FUSED = {"relu", "relu6", "unit"}  # activations that TFLite fuses into the operation before

# Limits of XNNPACK's int8 operations, with a margin (xnnpack_delegate.cc and XNNPACK's own checks):
# input scale * weight scale / output scale of a convolution, and input scale / output scale of an
# addition, are below 256, the latter at least 2^-10. Other files are refused or crash.
LARGEST_RATIO = 200.0
LEAST_SUM_RATIO = 1 / 1000
LARGEST_CONVERSION = 100.0  # input scale / output scale of a mean or an activation; the limit: 128
# A bias is an int32 in steps of input scale * weight scale. 2^24 steps leave room in the
# accumulator and are exact in float32. Only channels with almost no weight come near.
LARGEST_BIAS = 2.0**24
SMALLEST_SCALE = 1e-8


@dataclasses.dataclass(frozen=True)
class Plan:
    """The quantization parameters of a graph."""

    grids: dict[str, str]  # operation -> key of its output's range, which operations may share
    fake_quants: frozenset[str]  # operations that a fake-quant follows
    ranges: dict[str, Range]  # by key
    limits: dict[str, np.ndarray]  # linear operation -> (2, C): bounds on each channel's max |w|
    fixed: frozenset[str] = frozenset()  # keys of ranges that TFLite or the input prescribes

    def scale(self, name: str) -> float:
        """Return the scale (step size) of an operation's int8 output."""
        return step(self.ranges[self.grids[name]])


def step(bounds: Range) -> float:
    """Return the step size of int8 levels over a range."""
    return (bounds[1] - bounds[0]) / LEVELS


def is_float(op: Op) -> bool:
    """Return whether an operation stays in float."""
    return op.keep_float or isinstance(op, Opaque)


def place_fake_quants(graph: Graph) -> tuple[dict[str, str], frozenset[str]]:
    """Return (key of the range of each output, operations that a fake-quant follows)."""
    users: dict[str, list[Op]] = {name: [] for name in graph.ops}
    for op in graph.ops.values():
        for name in op.inputs:
            users[name].append(op)
    outputs = set(keras.tree.flatten(graph.outputs))
    grids: dict[str, str] = {}
    rounded = set()
    for op in graph.ops.values():
        readers = users[op.name]
        if is_float(op) and all(map(is_float, readers)):
            continue
        if isinstance(op, Linear | Join) and op.name not in outputs and len(readers) == 1:
            reader = readers[0]
            fused = isinstance(reader, Activation) and reader.function in FUSED
            if fused and not is_float(reader):
                continue
        if isinstance(op, Activation) and op.function in SCORES and op.name in outputs:
            continue  # int8 steps of 1 / 256 are too coarse for many classes or rare labels
        exact = isinstance(op, Plain) and op.grid == "exact" and op.inputs[0] in grids
        same = isinstance(op, Plain) and op.grid == "same" and op.inputs[0] in grids
        grids[op.name] = grids[op.inputs[0]] if exact or same else op.name
        if not exact:
            rounded.add(op.name)
    for op in graph.ops.values():
        if isinstance(op, Join) and op.layer is layers.Concatenate and op.name in grids:
            # CONCATENATION copies: inputs that only it reads share its range.
            own = {n for n in op.inputs if len(users[n]) == 1 and grids.get(n) == n}
            grids = {name: op.name if key in own else key for name, key in grids.items()}
    return grids, frozenset(rounded)


PIXELS: tuple[Range, ...] = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))  # usual input ranges
CHANNELS = (1, 3, 4)  # of images


def is_image(shape: Sequence[int | None]) -> bool:
    """Return whether a tensor shape is that of images (N, H, W, C)."""
    return len(shape) == 4 and shape[-1] in CHANNELS


def pixel_range(low: float, high: float) -> Range | None:
    """Return the first of `PIXELS` that contains [low, high]; None if none does."""
    return next((whole for whole in PIXELS if whole[0] <= low and high <= whole[1]), None)


class Histogram:
    """Counts of values in equal bins over [-limit, limit]; larger values double the limit."""

    BINS = 8192

    def __init__(self) -> None:
        self.limit: float = 2.0**-20
        self.counts: np.ndarray = np.zeros(self.BINS)
        self.low: float = 0.0
        self.high: float = 0.0
        self.zeros: int = 0

    def add(self, values: np.ndarray, ends: Range) -> None:
        """Count `values`, a sample of a tensor whose minimum and maximum are `ends`."""
        low, high = ends
        if not np.isfinite(high - low):
            raise ValueError(
                "The model computes values that are not finite on the calibration set: its "
                "training diverged, or the images are not in its input range."
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        while self.limit < max(-self.low, self.high):
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(pairs, self.BINS // 4)
            self.limit *= 2
        values = np.ascontiguousarray(values)  # bincount of a strided view is slow
        # A value equal to the limit falls one bin too high and is moved into the last one.
        index = values.ravel() * np.float32(self.BINS / 2 / self.limit)
        index += np.float32(self.BINS / 2)
        counts = np.bincount(index.astype(np.intp), minlength=self.BINS + 1)
        counts[self.BINS - 1] += counts[self.BINS]
        self.counts += counts[: self.BINS]
        self.zeros += int(values.size - np.count_nonzero(values))

    @property
    def centers(self) -> np.ndarray:
        """The centres of the bins (BINS,)."""
        return (np.arange(self.BINS) + 0.5) * (2 * self.limit / self.BINS) - self.limit


# Input range outside of which an activation saturates: hard-swish is 0 for all x < -3.
DOMAINS: dict[str, Range] = {
    "relu": (0.0, np.inf),
    "relu6": (0.0, 6.0),
    "unit": (0.0, 1.0),
    "gate": (-3.0, np.inf),
    "hard_swish": (-3.0, np.inf),
}


def domain(graph: Graph, name: str) -> Range:
    """Return the range outside of which no reader of the output depends on its value."""
    op = graph.ops[name]
    if op.bounds:
        return op.bounds
    readers = [op for op in graph.ops.values() if name in op.inputs]
    gates = {op.inputs[0] for op in readers if isinstance(op, Activation) and op.function == "gate"}

    def seen(op: Op) -> Range:
        if isinstance(op, Activation):
            return DOMAINS.get(op.function, (-np.inf, np.inf))
        if isinstance(op, Join) and op.gain == 6 and name in gates:
            return DOMAINS["hard_swish"]
        return -np.inf, np.inf

    if not readers or name in keras.tree.flatten(graph.outputs):
        return -np.inf, np.inf
    lows, highs = zip(*map(seen, readers), strict=True)
    return min(lows), max(highs)


Method = Literal["mse", "minmax", "output"] | float


def search(histogram: Histogram, bounds: Range, method: Method = "mse") -> Range:
    """Return the best range for a histogram, within `bounds`.

    method: "mse" minimizes the squared quantization error of 200 x 200 candidates, "minmax" clips
        nothing, a number in (0, 0.5) is the share of values to clip at each end.
    """
    low, high = max(histogram.low, bounds[0]), min(histogram.high, bounds[1])
    if method == "minmax" or low == high:
        return low, high
    values, counts = np.clip(histogram.centers, low, high), histogram.counts
    if isinstance(method, float):
        share = np.cumsum(counts) / counts.sum()
        low = max(low, values[np.searchsorted(share, method)])
        high = min(high, values[np.searchsorted(share, 1 - method)])
        return min(low, 0.0), max(high, 0.0)
    fractions = np.linspace(1, 0, 200, endpoint=False)
    lows, highs = low * fractions, high * fractions
    below = squares_above(-values[::-1], counts[::-1], -lows)
    above = squares_above(values, counts, highs)
    steps = (highs[None] - lows[:, None]) / LEVELS
    rounding = (counts.sum() - histogram.zeros) * steps**2 / 12
    best = np.argmin(below[:, None] + above[None] + rounding)
    i, j = np.unravel_index(best, rounding.shape)
    return float(lows[i]), float(highs[j])


def squares_above(values: np.ndarray, counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return for each edge the sum of count * (value - edge)^2 over the values above it.

    `values` are in ascending order: this is the squared error of clipping at each edge.
    """
    powers = np.stack([counts, counts * values, counts * values**2])
    from_here = np.cumsum(powers[:, ::-1], axis=1)[:, ::-1]
    n, total, squares = np.pad(from_here, ((0, 0), (0, 1)))[:, np.searchsorted(values, edges)]
    return squares - 2 * edges * total + edges**2 * n


def make_plan(
    graph: Graph, placed: tuple[dict[str, str], frozenset[str]],
    histograms: dict[str, Histogram], method: Method,
) -> Plan:  # fmt: skip
    """Return a plan with the ranges of `search`, widened to XNNPACK's limits.

    `placed` is the result of `place_fake_quants`; histograms are by range key.
    """
    grids, rounded = placed
    ranges = {key: search(h, domain(graph, key), method) for key, h in histograms.items()}
    fixed = set()
    for op in graph.ops.values():
        bounds = None
        if isinstance(op, Activation) and op.name in rounded:
            bounds = FIXED.get(op.function)
        if isinstance(op, Input) and op.zero is not None:
            bounds = (-op.zero * op.scale, (LEVELS - op.zero) * op.scale)
        elif isinstance(op, Input) and op.name in histograms and is_image(op.shape):
            # The input's int8 levels are the camera's byte values, so its range is that of all
            # pixels even if the calibration images are dark.
            bounds = pixel_range(histograms[op.name].low, histograms[op.name].high)
        if bounds and grids[op.name] == op.name:
            ranges[op.name] = bounds
            fixed.add(op.name)
    ranges = {key: exact_zero(bounds) for key, bounds in ranges.items()}
    plan = Plan(grids, rounded, ranges, {}, frozenset(fixed))
    widen(graph, plan)
    return with_limits(graph, plan)


def with_limits(graph: Graph, plan: Plan) -> Plan:
    """Return the plan with the limits of the ranges of the graph's weights."""
    linear = [op for op in graph.ops.values() if isinstance(op, Linear) and not is_float(op)]
    return dataclasses.replace(plan, limits={op.name: limits(op, graph, plan) for op in linear})


def exact_zero(bounds: Range) -> Range:
    """Return the range shifted, with the same step, so that zero is one of its levels."""
    low, high = bounds
    scale = max((high - low) / LEVELS, SMALLEST_SCALE)
    zero = min(max(round(-low / scale), 0), LEVELS)
    return -zero * scale, (LEVELS - zero) * scale


def grid_after(op: Op, graph: Graph, plan: Plan) -> str:
    """Return the range key of an operation's output, or of the activation fused into it."""
    while op.name not in plan.grids:
        op = next(reader for reader in graph.ops.values() if op.name in reader.inputs)
    return plan.grids[op.name]


def widen(graph: Graph, plan: Plan) -> None:
    """Widen ranges in place until all scale ratios are within XNNPACK's limits.

    This concerns mainly the ranges of tensors that are almost constant.
    """

    def at_least(key: str, scale: float) -> bool:
        low, high = plan.ranges[key]
        if key in plan.fixed or step((low, high)) >= scale * (1 - 1e-6):
            return False
        factor = scale / step((low, high))
        plan.ranges[key] = exact_zero((low * factor, high * factor))
        return True

    def widened(op: Op) -> bool:
        if is_float(op) or any(name not in plan.grids for name in op.inputs) or not op.inputs:
            return False
        scales = [plan.scale(name) for name in op.inputs]
        try:
            key = grid_after(op, graph, plan)
        except StopIteration:
            return False  # its output is a score, which stays in float
        if isinstance(op, Linear):
            return at_least(key, scales[0] * op.largest.max() / WEIGHT_LEVELS / LARGEST_RATIO)
        if isinstance(op, Join) and op.layer is layers.Multiply:
            return at_least(key, scales[0] * scales[1] / LARGEST_RATIO)
        if isinstance(op, Join):
            changed = at_least(key, max(scales) / LARGEST_RATIO)
            least = step(plan.ranges[key]) * LEAST_SUM_RATIO
            raised = [at_least(plan.grids[n], least) for n in op.inputs]
            return changed or any(raised)
        if op.name in plan.fake_quants:
            changed = at_least(key, scales[0] / LARGEST_CONVERSION)
            if isinstance(op, Activation) and op.function == "gate":  # ADD of x and 3
                least = plan.scale(op.name) * LEAST_SUM_RATIO
                changed |= at_least(plan.grids[op.inputs[0]], least)
            return changed
        return False

    while sum(map(widened, graph.ops.values())):
        pass


def limits(op: Linear, graph: Graph, plan: Plan) -> np.ndarray:
    """Return (2, C): the least and the largest allowed max |weight| of each output channel.

    The least keeps the bias within `LARGEST_BIAS` steps, the largest the ratio of scales within
    `LARGEST_RATIO`.
    """
    scale_in = plan.scale(op.inputs[0])
    scale_out = step(plan.ranges[grid_after(op, graph, plan)])
    floor = WEIGHT_LEVELS * np.abs(op.bias) / (scale_in * LARGEST_BIAS)
    floor = np.maximum(floor, WEIGHT_LEVELS * SMALLEST_SCALE)
    ceiling = np.full_like(floor, WEIGHT_LEVELS * LARGEST_RATIO * scale_out / scale_in)
    return np.stack([np.minimum(floor, ceiling), ceiling]).astype(np.float32)
