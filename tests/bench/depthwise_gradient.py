"""CPU of the gradient of a 5x5 depthwise kernel, as TensorFlow has it and in parts.

    uv run python tests/bench/depthwise_gradient.py [--rounds 9]    (20 seconds)

Each 5x5 layer of MobileNetV3 Small and Large at 224 px, batch 32: forward and both gradients, in
turn. "error" is the largest difference of a kernel's gradient, of its largest value.
"""

import argparse
import os
import statistics
import time
from typing import Any
from unittest import mock

os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np
import tensorflow as tf
from record import record

from kzoo import depthwise
from kzoo.recipes.training.frozen_norms import NormedDepthwiseConv2D
from kzoo.recipes.training.memory import keep_freed_memory

BATCH = 32
MAPS = {  # side, channels, stride
    "Small": ((28, 96, 2), (14, 120, 1), (14, 144, 1), (14, 240, 1), (14, 288, 2), (7, 576, 1)),
    "Large": ((56, 72, 2), (28, 120, 1), (14, 672, 1), (14, 672, 2), (7, 960, 1)),
}


def step(layer: NormedDepthwiseConv2D, in_parts: bool) -> Any:
    """Return a function from images to the gradient of their squares' sum by the kernel."""

    @tf.function
    def gradient(x: Any) -> Any:
        with (
            mock.patch.object(depthwise, "computes_by_onednn", return_value=in_parts),
            tf.GradientTape() as tape,
        ):
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(loss, [x, layer.kernel.value])

    return gradient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    keep_freed_memory()
    rows = []
    for net, maps in MAPS.items():
        for side, channels, stride in maps:
            layer = NormedDepthwiseConv2D(5, strides=stride, padding="same", use_bias=False)
            x = tf.constant(rng.normal(size=(BATCH, side, side, channels)).astype("float32"))
            layer.build(x.shape)
            ways = {"stock": step(layer, False), "parts": step(layer, True)}
            stock, parts = (way(x)[1].numpy() for way in ways.values())
            cpu: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(given.rounds):
                for name, way in ways.items():
                    start = time.process_time()
                    way(x)
                    cpu[name].append(1e3 * (time.process_time() - start))
            middle = {f"{name}_ms": statistics.median(found) for name, found in cpu.items()}
            rows.append({
                "net": f"V3-{net}", "side": side, "channels": channels, "stride": stride, **middle,
                "of_stock": middle["parts_ms"] / middle["stock_ms"],
                "error": float(np.abs(parts - stock).max() / np.abs(stock).max()),
                "n": given.rounds,
            })  # fmt: skip
    record("depthwise_gradient", rows)


if __name__ == "__main__":
    main()
