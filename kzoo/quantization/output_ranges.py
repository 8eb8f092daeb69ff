"""Search of activation ranges by the quantization error of the model's outputs.

The range of least squared error of a tensor is not the best one for the outputs: the rare large
values of a hard-swish contribute much to the tensor's error and little to the outputs'. In row6 of
V3-Small, reducing the upper end to .6 lowers the tensor's share of the logits' noise by 5 dB.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kzoo.quantization.equalize import difference
from kzoo.quantization.graph import Graph
from kzoo.quantization.ranges import Plan, Range, exact_zero, widen, with_limits
from kzoo.quantization.simulate import CHUNK, Run, chunk_size
from kzoo.quantization.variants import Variant, exact_outputs, outputs

# Activations with a smaller share of the total noise keep their range. .02 and 16 images take
# nearly twice as long as .03 and 8, for 14.1 instead of 13.9 dB (V3-Small) and 20.7 instead of 19.9
# (V2), simulated.
LEAST_SHARE = 0.03
CHOOSING, JUDGING, SCREENED = 6, 8, 2  # images to choose ranges, to validate, to rank activations
FACTOR, STEPS = 0.8, 5  # an end is reduced by up to 5 steps of this factor
LEAST_GAIN = 0.97  # a step must reduce the noise below this share of that before, else stop
LEAST_LOW = 0.1  # an end smaller than this share of the other end stays


def refine(
    graph: Graph, plan: Plan, images: np.ndarray,
    progress: Callable[[str], None] = lambda step: None,
) -> Plan:  # fmt: skip
    """Return the plan with narrower ranges if these reduce the error of the model's outputs.

    images: (N, H, W, C). Ranges are chosen on the first `CHOOSING`, with one tensor quantized at a
        time. The new plan is validated on the others, with all activations quantized, and discarded
        unless the outputs come nearer to float there: six images may not show rare values.
    progress: called with a line for each step.
    """
    chosen = narrower(graph, plan, images[:CHOOSING], progress)
    judges = images[CHOOSING:] if len(images) > CHOOSING else images
    return min(chosen, plan, key=lambda each: activation_noise(graph, each, judges))


def activation_noise(graph: Graph, plan: Plan, images: np.ndarray) -> float:
    """Return the error of the outputs on `images` with all activations quantized."""
    run, everything, total = Run(graph, plan), Variant(plan.fake_quants), 0.0
    some = chunk_size(CHUNK, images.shape)
    for i in range(0, len(images), some):
        chunk = images[i : i + some]
        exact = exact_outputs(run, chunk, plan.fake_quants)
        (found,) = outputs(run, [everything], chunk, exact)
        total += difference(graph, found, exact)
        del exact  # frees memory before the next chunk
    return total


def narrower(graph: Graph, plan: Plan, images: np.ndarray, progress: Callable[[str], None]) -> Plan:
    """Return the plan with the ranges chosen on `images`."""
    run = Run(graph, plan)

    def noises(tried: Mapping[str, Range], exact: Sequence[tuple[Any, Any]]) -> dict[str, float]:
        """Return the outputs' error if only the operations of one key are rounded, for each key."""
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
    some = chunk_size(CHUNK, images.shape)
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
    """Yield the range with its lower (end=0) or upper (end=1) end successively closer to zero."""
    low, high = bounds
    if abs(bounds[end]) <= LEAST_LOW * abs(bounds[1 - end]):
        return
    for step in range(1, STEPS + 1):
        factor = FACTOR**step
        yield exact_zero((low, high * factor) if end else (low * factor, high))
