"""Ranges of activations by what they do to the model's outputs.

The least squared error of a tensor is not the least error of the outputs: a hard-swish's rare
large values weigh much in the one and little in the other. At a V3-Small's row6 the upper end at
.6 of that range takes 5 dB off what the tensor does to the logits.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kzoo.quantization.equalize import difference
from kzoo.quantization.graph import Graph, Op
from kzoo.quantization.ranges import Plan, Range, exact_zero, widen, with_limits
from kzoo.quantization.simulate import CHUNK, Run

LEAST_SHARE = 0.01  # of the noise of all activations: those of less stay as they are
# Of the lower and the upper end.
FACTORS = (
    (1, 0.8), (1, 0.65), (1, 0.5), (1, 0.4), (1, 1.25),
    (0.8, 1), (0.65, 1), (1.25, 1), (0.8, 0.8),
)  # fmt: skip
LEAST_GAIN = 0.9  # of the noise of the range as it is


def refine(
    graph: Graph, plan: Plan, images: np.ndarray,
    progress: Callable[[str], None] = lambda step: None,
) -> Plan:  # fmt: skip
    """The plan with other ranges where the outputs on `images` (N, H, W, C) come nearer to float.

    Each tensor is rounded alone, the rest in float.
    """
    chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
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
        (low, high), before = ranges[key], noise(key, ranges[key])
        tried = [exact_zero((low * down, high * up)) for down, up in FACTORS]
        found = [(noise(key, bounds), bounds) for bounds in tried if bounds[0] < bounds[1]]
        least, bounds = min(found)
        if least < LEAST_GAIN * before:
            ranges[key] = bounds
    plan = dataclasses.replace(plan, ranges=ranges)
    widen(graph, plan)
    return with_limits(graph, plan)


class Rounding(Run):
    """Outputs rounded, weights in float."""

    def before_rounding(
        self, op: Op, values: Mapping[str, Any], images: Any, quantized: bool
    ) -> Any:
        return super().before_rounding(op, values, images, False)
