"""What a quantization-aware training step costs with tfmot, against its own float step, and kzoo's.

    python tests/bench/tfmot_steps.py [--size 96]      (with kzoo[tfmot] installed; 3 minutes)

CPU time of the process per step, V2 0.5 and V3-Small 0.5, batch 16, SGD, medians over five rounds.
tfmot's float is the same net in tf-keras. kzoo's is the net with batch norm folded, as quantized
nets have it, and the net as it is.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import kzoo
from kzoo.interop import quantize_model, to_tf_keras
from kzoo.quantization.emit import emit
from kzoo.quantization.lower import lower
from kzoo.quantization.read import read

sys.path.insert(0, str(Path(__file__).parents[1]))
from qat_nets import images, randomized

BATCH, STEPS, ROUNDS = 16, 4, 5
NETS: dict[str, Callable[..., object]] = {
    "V2": kzoo.MobileNetV2,
    "V3-Small": kzoo.MobileNetV3Small,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=96)
    size = parser.parse_args().size
    x = images(BATCH, size=size).astype("float32")
    y = np.arange(BATCH) % 10
    for name, build in NETS.items():
        net = randomized(build(0.5, input_shape=(size, size, 3), classes=10))
        twin = to_tf_keras(net)
        pairs = {
            "tfmot, of tf-keras float": (quantize_model(twin, calibration=x), twin),
            "kzoo, of float with batch norm": (kzoo.quantize(net, calibration=x), net),
        }
        folded = emit(lower(read(net), hard_swish="op", bytes_in=True), name="folded")
        pairs["kzoo, of float folded"] = (pairs["kzoo, of float with batch norm"][0], folded)
        models = {id(model): model for pair in pairs.values() for model in pair}
        times: dict[int, list[float]] = {key: [] for key in models}
        for model in models.values():
            model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
            model.train_on_batch(x, y)
        for _ in range(ROUNDS):
            for key, model in models.items():
                begun = time.process_time()
                for _ in range(STEPS):
                    model.train_on_batch(x, y)
                times[key].append((time.process_time() - begun) / STEPS)
        for pair, (quantized, plain) in pairs.items():
            ms = [1e3 * statistics.median(times[id(model)]) for model in (quantized, plain)]
            ratio = ms[0] / ms[1]
            print(f"{name:9} {pair:32} {ms[0]:6.0f} ms / {ms[1]:6.0f} ms = {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
