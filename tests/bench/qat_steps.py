"""What a training step costs quantized, against float.

    KERAS_BACKEND=jax uv run python tests/bench/qat_steps.py [--size 96]     (2 minutes a backend)

Float is the same net with batch norm folded (convolutions with biases), so that only the
fake-quantization is compared; the net with its batch norms, which trains them too, stands beside.
CPU time of the process per step, V3-Small 0.5, batch 16, SGD, medians over five rounds.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import keras
import numpy as np

import kzoo
from kzoo.quantization.emit import emit
from kzoo.quantization.lower import lower
from kzoo.quantization.read import read

sys.path.insert(0, str(Path(__file__).parents[1]))
from qat_nets import images, randomized

BATCH, STEPS, ROUNDS = 16, 4, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=96)
    size = parser.parse_args().size
    model = randomized(kzoo.MobileNetV3Small(0.5, input_shape=(size, size, 3), classes=10))
    x = images(BATCH, size=size).astype("float32")
    y = np.arange(BATCH) % 10
    models = {
        "float, folded": emit(lower(read(model), hard_swish="op", bytes_in=True), name="folded"),
        "float, split": emit(lower(read(model), hard_swish="split", bytes_in=True), name="split"),
        "float, batch norm": model,
        "quantized": kzoo.quantize(model, calibration=x),
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    for net in models.values():
        net.compile("sgd", "sparse_categorical_crossentropy", jit_compile="auto" if
                    keras.backend.backend() == "jax" else False)  # fmt: skip
        net.train_on_batch(x, y)
    for _ in range(ROUNDS):
        for name, net in models.items():
            begun = time.process_time()
            for _ in range(STEPS):
                net.train_on_batch(x, y)
            times[name].append((time.process_time() - begun) / STEPS)
    medians = {name: statistics.median(mine) for name, mine in times.items()}
    print(f"{keras.backend.backend()}, {size} px: CPU ms a step, and against the folded float net")
    for name, seconds in medians.items():
        print(f"{name:20} {1e3 * seconds:8.0f} {seconds / medians['float, folded']:6.2f}")


if __name__ == "__main__":
    main()
