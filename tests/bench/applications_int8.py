"""keras.applications nets through calibration and export: what the audit says of each file.

    uv run python tests/bench/applications_int8.py [--nets EfficientNetB0 ...] [--size 96]

Random weights; the batch norms take the statistics of 16 drawn images, so that activations are of
order one, and logits are compared by the interpreter on 16 others: with the float net, and
with what `quantize` simulates. The first is low where a random net tells images hardly apart.
`reason` names the operators that are float in the file, or why quantize refuses the net. Writes
tests/bench/results/applications_int8.csv. Cost: 15 to 60 s of CPU a net. Not run whole yet:
EfficientNetB0 alone gave 243 operators, none of them float, in one XNNPACK partition.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import keras
from record import record

import kzoo
from kzoo.tflite import audit, compare, convert

sys.path.insert(0, str(Path(__file__).parents[1]))
from qat_nets import images

NETS = (
    "EfficientNetB0", "EfficientNetV2B0", "ResNet50", "DenseNet121", "NASNetMobile", "Xception",
)  # fmt: skip
COLUMNS = (
    "quantize_cpu_s",
    "sqnr_db",
    "to_simulation_db",
    "operators",
    "float_operators",
    "partitions",
)
CALIBRATED = SCORED = 16  # images


def settled(name: str, size: int) -> keras.Model:
    """The net with random weights and batch norms that know their inputs."""
    net = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=100, classifier_activation=None
    )
    norms = [x for x in net.layers if isinstance(x, keras.layers.BatchNormalization)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    net(images(16, size=size).astype("float32"), training=True)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return net


def measure(name: str, size: int) -> dict:
    net = settled(name, size)
    row = {"net": name, "size": size, "layers": len(net.layers)}
    start = time.process_time()
    try:
        int8 = kzoo.quantize(net, calibration=images(CALIBRATED, size=size))
    except ValueError as error:
        return row | dict.fromkeys(COLUMNS, "") | {"reason": str(error)[:160]}
    seconds = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        file = convert(int8, Path(folder, "model.tflite"))
        seen = images(SCORED, size=size, seed=1)
        found, told, own = audit(file), compare(net, file, seen), compare(int8, file, seen)
    return row | {
        "quantize_cpu_s": round(seconds), "sqnr_db": f"{told.sqnr_db:.1f}",
        "to_simulation_db": f"{own.sqnr_db:.1f}",
        "operators": sum(found.census.values()), "float_operators": len(found.float_ops),
        "partitions": found.partitions, "reason": "; ".join(found.float_ops)[:160],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=NETS)
    parser.add_argument("--size", type=int, default=96)
    options = parser.parse_args()
    rows = []
    for name in options.nets:
        rows.append(measure(name, options.size))
        print(*rows[-1].values(), flush=True)
    record("applications_int8", rows)


if __name__ == "__main__":
    main()
