"""Outputs of a graph for several choices of quantized operations, computed together.

For each variant only tensors that differ from float are computed, and an operation is called once
on the batch of all variants: on two images most operations take longer to call than to compute.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kzoo.quantization.graph import Linear
from kzoo.quantization.ranges import Range
from kzoo.quantization.simulate import Run, chunk_size, on_levels

PAIR = 2  # images at a time, since every operation's float output is kept in memory
MOST_IMAGES = 24  # in a batch, at 224 px; 48 took .2 GB more for V3-Large and the same time


@dataclasses.dataclass(frozen=True)
class Variant:
    """A set of operations to quantize, the others being in float.

    quantized: names of the operations whose outputs are rounded.
    ranges: by key, used instead of the plan's.
    int8_weights: round the weights of these operations too.
    """

    quantized: Collection[str]
    ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict)
    int8_weights: bool = False


def outputs(
    run: Run, variants: Sequence[Variant], images: Any, exact: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield, for each variant, the model's outputs and their direct inputs, by name.

    run: with a plan.
    exact: float outputs on `images` (N, H, W, C), of every operation or those of `exact_outputs`.

    Consume the results one by one: a hundred variants of a segmenter's logits at full size take a
    GB.
    """
    # JAX compiles an operation for each batch size, which costs more than batching saves.
    jax = keras.backend.backend() == "jax"
    size = 1 if jax else max(1, chunk_size(MOST_IMAGES, images.shape) // len(images))
    for i in range(0, len(variants), size):
        yield from Together(run, variants[i : i + size], images, exact).ends()


def exact_outputs(run: Run, images: Any, quantized: Collection[str]) -> dict[str, Any]:
    """Return the float outputs that variants which quantize only operations in `quantized` read.

    For variants with float weights; these are a third of all outputs.
    """
    several = (op.inputs for op in run.graph.ops.values() if len(op.inputs) > 1)
    read = run.ends.union(quantized, *several)
    return {op.name: value for op, value in run.walk(images) if op.name in read}


@dataclasses.dataclass(frozen=True, eq=False)
class Together:
    """Computes a graph for several variants in one pass."""

    run: Run
    variants: Sequence[Variant]
    images: Any
    exact: Mapping[str, Any]
    # By operation: the variants whose output differs from float, and these outputs in one batch.
    moved: dict[str, tuple[tuple[int, ...], Any]] = dataclasses.field(default_factory=dict)

    def ends(self) -> Iterator[dict[str, Any]]:
        """Compute the graph; yield the outputs of each variant and their direct inputs."""
        for op in self.run.graph.ops.values():
            self.compute(op)
            for name in op.inputs:
                if self.run.last_reader[name] == op.name and name not in self.run.ends:
                    self.moved.pop(name, None)
        for i in range(len(self.variants)):
            yield {name: self.rows(name, (i,)) for name in self.run.ends}

    def compute(self, op: Any) -> None:
        """Compute the outputs of `op` in the variants in which they differ from float."""
        here = tuple(i for i, v in enumerate(self.variants) if op.name in v.quantized)
        before = dict.fromkeys(i for name in op.inputs for i in self.which(name))
        carried = tuple(i for i in before if i not in here)
        batches = [self.before_rounding(op, carried, False)] if carried else []
        for i in here:
            variant = self.variants[i]
            if i in before or (variant.int8_weights and isinstance(op, Linear)):
                y = self.before_rounding(op, (i,), variant.int8_weights)
            else:
                y = self.exact[op.name]
            batches.append(self.rounded(op, y, variant))
        if batches:
            batch = batches[0] if len(batches) == 1 else ops.concatenate(batches)
            self.moved[op.name] = (*carried, *here), batch

    def before_rounding(self, op: Any, which: tuple[int, ...], int8_weights: bool) -> Any:
        inputs = {name: self.rows(name, which) for name in op.inputs}
        return self.run.before_rounding(op, inputs, self.images, int8_weights)

    def rounded(self, op: Any, y: Any, variant: Variant) -> Any:
        plan = self.run.plan
        assert plan is not None
        bounds = variant.ranges.get(plan.grids.get(op.name, ""))
        if bounds and op.name in plan.fake_quants:
            return on_levels(y, bounds)
        return self.run.rounded(op, y)

    def which(self, name: str) -> tuple[int, ...]:
        """Return the variants in which the output of `name` differs from float."""
        return self.moved[name][0] if name in self.moved else ()

    def rows(self, name: str, which: tuple[int, ...]) -> Any:
        """Return the outputs of `name` in these variants, concatenated along the batch axis."""
        found = self.which(name)
        if found == which:
            return self.moved[name][1]
        if not found and len(which) == 1:
            return self.exact[name]
        n = len(self.images)
        rows = [self.moved[name][1]] if found else []
        if not set(which) <= set(found):
            rows.append(self.exact[name])  # `exact` may lack it if all variants differ
        place = {variant: k for k, variant in enumerate(found)}
        index = [place.get(variant, len(found)) * n + np.arange(n) for variant in which]
        batch = rows[0] if len(rows) == 1 else ops.concatenate(rows)
        return ops.take(batch, np.concatenate(index), axis=0)
