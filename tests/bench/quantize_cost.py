"""CPU time and memory of quantize and convert, each in a process of its own.

    python tests/bench/quantize_cost.py [--base CHECKOUT] [--nets V3-Large V2] [--images 100]
        [--steps quantize convert] [--csv quantize_cost]

Nets with random weights that keep activations at order one, calibration images of noise. With
--base each step is measured in that older checkout too, in turn. A row holds the CPU seconds of
the step without imports, and the largest memory of its process, TensorFlow included. Writes
tests/bench/results/quantize_cost.csv.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from record import record

ROOT = Path(__file__).parents[2]
CHILD = """
import resource, sys, time
sys.path.insert(0, {tests!r})
import keras, numpy as np, kzoo, kzoo.tflite
from qat_nets import images, randomized
step, net, options, folder = {step!r}, {net!r}, {options!r}, {folder!r}
def segmenter():
    backbone = kzoo.MobileNetV3Small(
        input_shape=(320, 320, 3), include_top=False, output_stride=16
    )
    return kzoo.DeepLabV3(backbone, 12, decoder=True, fine=True, filters=64)
if step == "quantize":
    build = {{"V3-Large": kzoo.MobileNetV3Large, "V3-Small": kzoo.MobileNetV3Small,
             "V2": kzoo.MobileNetV2, "DeepLabV3+": segmenter}}[net]
    model = randomized(build())
    # Ten at a time, or drawing them takes more memory than what is measured.
    size = model.input_shape[1]
    x = np.concatenate([images(10, size=size, seed=i) for i in range({images} // 10)])
    start = time.process_time()
    model = kzoo.quantize(model, calibration=x, **options)
else:
    model = keras.saving.load_model(folder + "/model.keras")
    start = time.process_time()
    kzoo.tflite.convert(model, folder + "/model.tflite")
seconds = time.process_time() - start
print("MEASURED", seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
if step == "quantize":
    model.save(folder + "/model.keras")
"""


def measure(
    checkout: Path, step: str, net: str, options: dict, folder: str, images: int
) -> tuple[float, float]:
    """(CPU seconds, MB) of a step."""
    code = CHILD.format(
        tests=str(ROOT / "tests"), step=step, net=net, options=options, folder=folder,
        images=images,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    line = next(line for line in done.stdout.splitlines() if line.startswith("MEASURED"))
    seconds, megabytes = map(float, line.split()[1:])
    return seconds, megabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, help="an older checkout, measured in turn")
    parser.add_argument("--nets", nargs="+", default=["V3-Large", "V2"])
    parser.add_argument("--images", type=int, default=100, help="tens of them")
    parser.add_argument("--steps", nargs="+", default=["quantize", "convert"])
    parser.add_argument("--csv", default="quantize_cost")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", action="store_true", help="other choices of quantize too")
    options = parser.parse_args()
    checkouts = {"base": options.base, "now": ROOT} if options.base else {"now": ROOT}
    ways: dict[str, dict] = {"default": {}}
    if options.ways:
        ways |= {"ranges=mse": {"ranges": "mse"}, "equalization=all": {"equalization": "all"}}
    rows = []
    for round_number in range(options.rounds):
        for net in options.nets:
            for way, arguments in ways.items():
                for name, checkout in checkouts.items():
                    if name == "base" and arguments:
                        continue  # it has none of these
                    with tempfile.TemporaryDirectory() as folder:
                        for step in options.steps if not arguments else ("quantize",):
                            seconds, megabytes = measure(
                                checkout, step, net, arguments, folder, options.images
                            )
                            rows.append({
                                "net": net, "step": step, "way": way, "checkout": name,
                                "round": round_number, "cpu_s": f"{seconds:.1f}",
                                "peak_mb": f"{megabytes:.0f}",
                            })  # fmt: skip
                            print(*rows[-1].values(), flush=True)
    record(options.csv, rows)


if __name__ == "__main__":
    main()
