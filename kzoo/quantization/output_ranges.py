"""Ranges of activations by what they do to the model's outputs.

The least squared error of a tensor is not the least error of the outputs: a hard-swish's rare
large values weigh much in the one and little in the other. At a V3-Small's row6 the upper end at
.6 of that range takes 5 dB off what the tensor does to the logits.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kzoo.quantization.equalize import difference
from kzoo.quantization.graph import Graph
from kzoo.quantization.ranges import Plan, Range, exact_zero, widen, with_limits
from kzoo.quantization.simulate import CHUNK, Run, at_once
from kzoo.quantization.variants import Variant, exact_outputs, outputs

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
    run, everything, total = Run(graph, plan), Variant(plan.fake_quants), 0.0
    some = at_once(CHUNK, images.shape)
    for i in range(0, len(images), some):
        chunk = images[i : i + some]
        exact = exact_outputs(run, chunk, plan.fake_quants)
        (found,) = outputs(run, [everything], chunk, exact)
        total += difference(graph, found, exact)
        del exact  # or it is there until the next one is
    return total


def narrower(graph: Graph, plan: Plan, images: np.ndarray, progress: Callable[[str], None]) -> Plan:
    """Return the plan with the ranges that `images` choose."""
    run = Run(graph, plan)

    def noises(tried: Mapping[str, Range], exact: Sequence[tuple[Any, Any]]) -> dict[str, float]:
        """What each key's operations, rounded over the range, do to the outputs."""
        variants = [Variant(rounded_to(key), {key: bounds}) for key, bounds in tried.items()]
        total = np.zeros(len(tried))
        for chunk, known in exact:
            found = outputs(run, variants, chunk, known)
            total += [difference(graph, each, known) for each in found]
        return dict(zip(tried, total.tolist(), strict=True))

    def rounded_to(*keys: str) -> list[str]:
        return [name for name in plan.fake_quants if plan.grids[name] in keys]

    ranges = dict(plan.ranges)
    screened = images[:SCREENED]
    keys = [key for key in ranges if key not in plan.fixed]
    first = noises({key: ranges[key] for key in keys}, [(screened, run(screened))])
    loud = [key for key, noise in first.items() if noise > LEAST_SHARE * sum(first.values())]
    progress(f"{len(loud)} activations make most of the noise: {', '.join(loud)}")
    some = at_once(CHUNK, images.shape)
    chunks = [images[i : i + some] for i in range(0, len(images), some)]
    exact = [(chunk, exact_outputs(run, chunk, rounded_to(*loud))) for chunk in chunks]
    least = noises({key: ranges[key] for key in loud}, exact)
    for end in (1, 0):
        steps = {key: narrowed(ranges[key], end) for key in loud}
        while tried := {key: bounds for key in steps if (bounds := next(steps[key], None))}:
            found = noises(tried, exact)
            better = [key for key in tried if found[key] < LEAST_GAIN * least[key]]
            for key in better:
                least[key], ranges[key] = found[key], tried[key]
            steps = {key: steps[key] for key in better}
            progress(f"ranges narrowed: {', '.join(better) or 'none'}")
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
