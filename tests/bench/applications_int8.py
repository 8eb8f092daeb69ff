"""keras.applications nets through calibration and export: what the audit says of each file.

    uv run python tests/bench/applications_int8.py [--nets EfficientNetB0 ...] [--size 96]
        [--work FOLDER]

Random weights, settled: the batch norms take the statistics of the calibration images, and layers
with a bias, which have no batch norm behind them, start from LeCun's initializer. EfficientNet's
own gives the first layer of its squeeze-and-excitation 48 times the variance that it reads: images
then spread over three orders of magnitude by the last block, those to score reach 100 times as far
as those calibrated on, and the logits keep .1 dB. No int8 form holds that; no trained net is so.

Logits are compared by the interpreter with the float net's: `calibrated_db` on the images that were
calibrated on; `sqnr_db` on others, over all of them, and `median_db` of each. Random nets make more
of some images than of the rest, and a few that go beyond the ranges (`beyond` is their share) take
most of the first. `to_simulation_db`: against what `quantize` simulates. `reason` names the
operators that are float in the file, or why quantize refuses the net.
Writes tests/bench/results/applications_int8.csv. What is in the work folder already is not measured
again. Cost: 20 to 60 s of CPU a net.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from record import record

import kzoo
from kzoo.tflite import Runner, audit, compare, convert

sys.path.insert(0, str(Path(__file__).parents[1]))
from qat_nets import images

NETS = (
    "EfficientNetB0", "EfficientNetV2B0", "ResNet50", "DenseNet121", "NASNetMobile", "Xception",
)  # fmt: skip
COLUMNS = (
    "calibrated_db", "sqnr_db", "median_db", "agreement", "beyond", "to_simulation_db",
    "operators", "float_operators", "partitions", "quantize_cpu_s",
)  # fmt: skip
CALIBRATED, SCORED, SEED = 64, 64, 0  # images


def settled(name: str, size: int) -> keras.Model:
    """Return the net with random weights that keep activations at order one."""
    keras.utils.set_random_seed(SEED)
    net = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=100, classifier_activation=None
    )
    for layer in net.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense) and layer.use_bias:
            start = keras.initializers.LecunNormal(seed=SEED)
            layer.kernel.assign(start(layer.kernel.shape))
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # or whole blocks are missing from the statistics
    norms = [x for x in net.layers if isinstance(x, keras.layers.BatchNormalization)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    net(images(CALIBRATED, size=size, seed=SEED).astype("float32"), training=True)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return net


def measure(name: str, size: int) -> dict:
    net = settled(name, size)
    row = {"net": name, "size": size, "layers": len(net.layers)}
    start = time.process_time()
    try:
        drawn = images(CALIBRATED, size=size, seed=SEED)
        int8 = kzoo.quantize(net, calibration=drawn)
    except ValueError as error:
        return row | dict.fromkeys(COLUMNS, "") | {"reason": str(error)[:160]}
    seconds = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        file = convert(int8, Path(folder, "model.tflite"))
        seen = images(SCORED, size=size, seed=SEED + 1)
        found, told, own = audit(file), compare(net, file, seen), compare(int8, file, seen)
        calibrated = compare(net, file, drawn).sqnr_db
        wanted = net.predict(seen.astype("float32"), verbose=0)
        noise = np.square(Runner(file)(seen) - wanted).sum(axis=1)
    each = 10 * np.log10(np.square(wanted).sum(axis=1) / noise)
    return row | {
        "calibrated_db": f"{calibrated:.1f}", "sqnr_db": f"{told.sqnr_db:.1f}",
        "median_db": f"{np.median(each):.1f}", "agreement": f"{told.agreement:.3f}",
        "beyond": f"{told.outputs[0].beyond:.2f}", "to_simulation_db": f"{own.sqnr_db:.1f}",
        "operators": sum(found.census.values()), "float_operators": len(found.float_ops),
        "partitions": found.partitions, "quantize_cpu_s": round(seconds),
        "reason": "; ".join(found.float_ops)[:160],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=NETS)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--work", type=Path, help="folder of what is measured already")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="applications_int8_"))
    work.mkdir(exist_ok=True)
    rows = []
    for name in options.nets:
        known = work / f"{name}+{options.size}.json"
        if not known.is_file():
            known.write_text(json.dumps(measure(name, options.size)))
        rows.append(json.loads(known.read_text()))
        print(*rows[-1].values(), flush=True)
    record("applications_int8", rows, seed=SEED)


if __name__ == "__main__":
    main()
