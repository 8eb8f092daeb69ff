"""Ranges of activations by what they do to the model's outputs.

The least squared error of a tensor is not the least error of the outputs: a hard-swish's rare
large values weigh much in the one and little in the other. At a V3-Small's row6 the upper end at
.6 of that range takes 5 dB off what the tensor does to the logits.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from kzoo.quantization.equalize import difference
from kzoo.quantization.graph import Graph, Op
from kzoo.quantization.ranges import Plan, Range, exact_zero, widen, with_limits
from kzoo.quantization.simulate import CHUNK, Run

# Of the noise of all activations: those of less stay as they are. .02 and 16 images took nearly
# twice as long as .03 and 8: V3-Small 14.1 against 13.9 dB, V2 20.7 against 19.9 (simulated).
LEAST_SHARE = 0.03
CHOOSING, JUDGING, SCREENED = 6, 8, 2  # images
FACTOR, STEPS = 0.8, 5  # an end of a range is narrowed by steps of this factor
LEAST_GAIN = 0.97  # of the noise of the step before, or it is the last one
LEAST_LOW = 0.1  # of the upper end: a lower end nearer to zero stays


def refine(
    graph: Graph, plan: Plan, images: np.ndarray,
    progress: Callable[[str], None] = lambda step: None,
) -> Plan:  # fmt: skip
    """Return the plan with narrower ranges where outputs on `images` (N, H, W, C) gain by it.

    The first `CHOOSING` images choose; on those each tensor is rounded alone, the rest in float.
    The other images, which chose nothing, judge: the plan stays as it is unless the outputs come
    nearer to float on those, all activations rounded. Where values are rare, as in small images,
    six do not show them.
    """
    chosen = narrower(graph, plan, images[:CHOOSING], progress)
    judges = images[CHOOSING:] if len(images) > CHOOSING else images
    return min(chosen, plan, key=lambda each: activation_noise(graph, each, judges))


def activation_noise(graph: Graph, plan: Plan, images: np.ndarray) -> float:
    """Return how far the outputs on images are from float with all activations rounded."""
    run, rounding = Run(graph, plan), Rounding(graph, plan)
    chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
    known = ((chunk, run(chunk)) for chunk in chunks)
    return sum(
        difference(graph, rounding(chunk, plan.fake_quants, exact), exact) for chunk, exact in known
    )


def narrower(graph: Graph, plan: Plan, images: np.ndarray, progress: Callable[[str], None]) -> Plan:
    """Return the plan with the ranges that `images` choose."""
    # A small chunk first: on that alone it is told which activations are loud.
    chunks = [images[:SCREENED]]
    chunks += [images[i : i + CHUNK] for i in range(SCREENED, len(images), CHUNK)]
    run = Run(graph, plan)
    exact = [run(chunk) for chunk in chunks]

    def noise(key: str, bounds: Range, count: int = len(chunks)) -> float:
        ranges = plan.ranges | {key: bounds}
        alone = Rounding(graph, dataclasses.replace(plan, ranges=ranges))
        names = [name for name in plan.fake_quants if plan.grids[name] == key]
        return sum(
            difference(graph, alone(chunk, names, known), known)
            for chunk, known in zip(chunks[:count], exact, strict=False)
        )

    ranges = dict(plan.ranges)
    keys = [key for key in ranges if key not in plan.fixed]
    first = {key: noise(key, ranges[key], 1) for key in keys}
    loud = [key for key in keys if first[key] > LEAST_SHARE * sum(first.values())]
    for i, key in enumerate(sorted(loud, key=lambda key: -first[key])):
        progress(f"range {i + 1} of {len(loud)}: {key}")
        least = noise(key, ranges[key])
        for end in (1, 0):
            for bounds in narrowed(ranges[key], end):
                found = noise(key, bounds)
                if found >= LEAST_GAIN * least:
                    break
                least, ranges[key] = found, bounds
    plan = dataclasses.replace(plan, ranges=ranges)
    widen(graph, plan)
    return with_limits(graph, plan)


def narrowed(bounds: Range, end: int) -> Iterator[Range]:
    """Yield the range with its lower (0) or upper (1) end nearer and nearer to zero."""
    low, high = bounds
    if abs(bounds[end]) <= LEAST_LOW * abs(bounds[1 - end]):
        return
    for step in range(1, STEPS + 1):
        factor = FACTOR**step
        yield exact_zero((low, high * factor) if end else (low * factor, high))


class Rounding(Run):
    """Outputs rounded, weights in float."""

    def before_rounding(
        self, op: Op, values: Mapping[str, Any], images: Any, quantized: bool
    ) -> Any:
        return super().before_rounding(op, values, images, False)
