"""Where int8 noise comes from: weights against activations, and the loudest layers.

    uv run python tests/bench/noise_budget.py PHOTOS --v3-small FILE.tflite [--v2 FILE.pth]

In simulation, on photos that are not calibrated from, one draw of 100 (as int8_draws.py). Writes
tests/bench/results/noise_budget.csv: signal to noise of the logits with these rounded and the rest
in float, weights and biases corrected for what is rounded; below the activations that make most
noise alone, not corrected. Cost: 40 s of CPU for V3-Small.
"""

import argparse
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
from int8_draws import BUILD, drawn, photos
from record import record

from kzoo.quantization import correct, quantize
from kzoo.quantization.graph import Linear
from kzoo.quantization.output_ranges import CHOOSING, JUDGING, refine
from kzoo.quantization.simulate import CHUNK, Run
from kzoo.quantization.variants import Variant, outputs

LOUDEST = 8


class Weights(Run):
    """Weights rounded, outputs in float."""

    def rounded(self, op: Any, y: Any) -> Any:
        return y


class Rounding(Run):
    """Outputs rounded, weights in float."""

    def before_rounding(self, op: Any, values: Any, images: Any, quantized: bool) -> Any:
        return super().before_rounding(op, values, images, False)


def budget(net: str, model: keras.Model, calibration: np.ndarray, images: np.ndarray) -> list[dict]:
    graph, plan = quantize.planned(model, calibration, "split", (), "mse", True)
    (end,) = keras.tree.flatten(graph.outputs)
    chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
    exact = [Run(graph)(chunk) for chunk in chunks]

    def logits(values: list[dict]) -> np.ndarray:
        found = np.concatenate([keras.ops.convert_to_numpy(one[end]) for one in values])
        return found - found.mean(axis=-1, keepdims=True)

    wanted = logits(exact)

    def decibels(found: list[dict]) -> float:
        noise = np.square(logits(found) - wanted).sum()
        return float(10 * np.log10(np.square(wanted).sum() / noise)) if noise else np.inf

    refined = refine(graph, plan, calibration[: CHOOSING + JUDGING].astype("float32"))
    rows = []
    for what, run, ranges in (
        ("weights", Weights, plan),
        ("activations, ranges mse", Rounding, plan),
        ("activations, ranges output", Rounding, refined),
        ("both, ranges output", Run, refined),
    ):
        with mock.patch.object(correct, "Run", run):
            some = calibration[: correct.images_for(graph)].astype("float32")
            corrected = correct.correct(graph, ranges, some)
        rounding = run(corrected, ranges)
        rows.append((what, decibels([rounding(x, list(graph.ops)) for x in chunks])))
    names = [name for name in plan.fake_quants if not isinstance(graph.ops[name], Linear)]
    run, variants = Run(graph, plan), [Variant([name]) for name in names]
    found = [list(outputs(run, variants, *pair)) for pair in zip(chunks, exact, strict=True)]
    alone = [(decibels(one), name) for name, *one in zip(names, *found, strict=True)]
    rows += [(f"{name} alone", value) for value, name in sorted(alone)[:LOUDEST]]
    return [
        {"net": net, "rounded": what, "sqnr_db": f"{value:.1f}", "photos": len(images)}
        for what, value in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--v3-small", type=Path)
    parser.add_argument("--v2", type=Path)
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    pool, images = photos(options.photos, options.images)
    calibration = drawn(pool, 0)
    rows = []
    for net, weights in (("V3-Small", options.v3_small), ("V2", options.v2)):
        if weights:
            model = BUILD[net](weights=weights, classifier_activation=None)
            rows += budget(net, model, calibration, images.astype("float32"))
    record("noise_budget", rows)


if __name__ == "__main__":
    main()
