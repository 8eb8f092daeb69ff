"""Which layers lose most in int8: each one quantized alone, the rest in float."""

import dataclasses
from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from kzoo.arguments import renamed
from kzoo.quantization.graph import Graph, Linear
from kzoo.quantization.quantize import planned
from kzoo.quantization.ranges import Method, Plan, is_float
from kzoo.quantization.read import Kept
from kzoo.quantization.simulate import Run


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Signal to noise of the outputs, in decibels, with one layer quantized and no other."""

    decibels: dict[str, float]  # by layer of the float model, the worst first

    def __str__(self) -> str:
        width = max(map(len, self.decibels))
        return "\n".join(
            f"{name:{width}}  {value:6.1f} dB" for name, value in self.decibels.items()
        )


@renamed(pictures="images")
def sensitivity(
    model: keras.Model, *, calibration: Any, images: np.ndarray, hard_swish: str = "split",
    keep_float: Kept = (), ranges: Method = "mse",
) -> Sensitivity:  # fmt: skip
    """Measure, on some 32 `images` (N, H, W, C), what each layer of `model` costs in int8.

    The other arguments are those of `quantize`; what it is given as keep_float counts as float.
    The first layers of the result are the ones to name in keep_float. A model of class scores is
    best measured without its softmax.
    """
    graph, plan = planned(model, calibration, hard_swish, keep_float, ranges, True)
    run = Run(graph, plan)
    exact = run(images.astype(np.float32))
    targets = keras.tree.flatten(graph.outputs)
    signals = {name: keras.ops.convert_to_numpy(exact[name]) for name in targets}
    found = {}
    for name, ops in layers(graph, plan, {op.name for op in model.layers}).items():
        noisy = run(images, ops, exact)
        noise = np.mean([
            np.sum((keras.ops.convert_to_numpy(noisy[target]) - signal) ** 2)
            / np.sum((signal - signal.mean(axis=0)) ** 2)
            for target, signal in signals.items()
        ])  # fmt: skip
        found[name] = float(-10 * np.log10(noise)) if noise else np.inf
    return Sensitivity(dict(sorted(found.items(), key=lambda item: item[1])))


def layers(graph: Graph, plan: Plan, names: Collection[str]) -> dict[str, set[str]]:
    """The operations that each layer of the float model has become, those that are int8."""
    found: dict[str, set[str]] = {}
    for op in graph.ops.values():
        if (op.name in plan.fake_quants or isinstance(op, Linear)) and not is_float(op):
            name = op.name
            while name not in names and "_" in name:  # row3_act_gate: part of row3_act
                name = name.rpartition("_")[0]
            found.setdefault(name, set()).add(op.name)
    return found
