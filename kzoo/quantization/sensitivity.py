"""Sensitivity analysis: the output error caused by quantizing one layer at a time."""

import dataclasses
from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from kzoo.arguments import renamed
from kzoo.quantization.graph import Graph, Linear
from kzoo.quantization.quantize import check_inputs, planned
from kzoo.quantization.ranges import Method, Plan, is_float
from kzoo.quantization.read import Kept
from kzoo.quantization.simulate import Run
from kzoo.quantization.variants import Variant, outputs

ALIKE = 1e-4  # largest relative deviation of outputs from their mean that counts as constant
TINY = 1e-30  # lower bound of the signal's power
HARMLESS_DB = 30.0  # noise power a thousandth of the signal's
ORDER = (
    "By what each layer alone costs the outputs. kzoo compare orders layers otherwise, by the\n"
    "noise that each adds in the file: noise in one can be evened out by the next, or matter to\n"
    "every class."
)


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Signal-to-quantization-noise ratio of the outputs with one layer quantized at a time."""

    decibels: dict[str, float]  # dB by layer of the float model, the worst first
    constant: bool = False  # whether the outputs are the same for all images

    @property
    def verdict(self) -> str:
        """A sentence that names the worst layer and what to do next."""
        if self.constant:
            return (
                "This says nothing of the layers: the model gives the same outputs for all of "
                "these images. It has learned nothing, or the images are all alike."
            )
        (name, worst), *rest = self.decibels.items()
        if worst >= HARMLESS_DB:
            return f"No layer costs much: {name} costs most and leaves {worst:.1f} dB."
        next_one = f"; the next, {rest[0][0]}, {rest[0][1]:.1f} dB" if rest else ""
        return (
            f"{name} costs most in int8: quantized alone it leaves {worst:.1f} dB of signal to "
            f"noise at the outputs{next_one}. Next: kzoo convert RUN FILE --keep-float {name}, "
            "and kzoo compare tells whether that helped."
        )

    def __str__(self) -> str:
        return self.table()

    def table(self, top: int | None = None) -> str:
        """Return the verdict and the `top` layers that cost most, by default all."""
        width = max(map(len, self.decibels))
        rows = [f"{name:{width}}  {value:6.1f} dB" for name, value in self.decibels.items()]
        header = f"{'layer':{width}}  signal to noise, this layer alone in int8"
        return "\n".join([self.verdict, "", header, *rows[:top], ORDER])


@renamed(pictures="images")
def sensitivity(
    model: keras.Model, *, calibration: Any, images: np.ndarray, hard_swish: str = "split",
    keep_float: Kept = (), ranges: Method = "mse",
) -> Sensitivity:  # fmt: skip
    """Return the SQNR of the outputs, in dB, for each layer of `model` quantized alone.

    The first layers of the result cost most: they are the candidates for keep_float. Measure a
    classifier without its softmax.

    images: about 32, (N, H, W, C), to measure on.
    The other arguments are those of `quantize`; layers in keep_float are left out.

    Raises ValueError as `quantize` does.
    """
    check_inputs(model)
    graph, plan = planned(model, calibration, hard_swish, keep_float, ranges, True)
    run = Run(graph, plan)
    exact = run(images.astype(np.float32))
    targets = keras.tree.flatten(graph.outputs)
    signals = {name: keras.ops.convert_to_numpy(exact[name]) for name in targets}
    around = {name: signal - signal.mean(axis=0) for name, signal in signals.items()}
    power = {name: max(float(np.sum(x**2)), TINY) for name, x in around.items()}
    constant = all(
        np.abs(x).max() <= ALIKE * np.abs(signals[name]).max() for name, x in around.items()
    )
    found = {}
    for name, ops in layers(graph, plan, {op.name for op in model.layers}).items():
        (noisy,) = outputs(run, [Variant(ops, int8_weights=True)], images, exact)
        noise = np.mean([
            np.sum((keras.ops.convert_to_numpy(noisy[target]) - signal) ** 2) / power[target]
            for target, signal in signals.items()
        ])  # fmt: skip
        found[name] = float(-10 * np.log10(noise)) if noise else np.inf
    return Sensitivity(dict(sorted(found.items(), key=lambda item: item[1])), constant)


def layers(graph: Graph, plan: Plan, names: Collection[str]) -> dict[str, set[str]]:
    """Return the int8 operations that each layer of the float model was translated into."""
    found: dict[str, set[str]] = {}
    for op in graph.ops.values():
        if (op.name in plan.fake_quants or isinstance(op, Linear)) and not is_float(op):
            name = op.name
            while name not in names and "_" in name:  # row3_act_gate: part of row3_act
                name = name.rpartition("_")[0]
            found.setdefault(name, set()).add(op.name)
    return found
