"""What a file that is written for another place costs on a CPU: `kzoo convert --target`'s forms.

    python tests/bench/form_cost.py [--size 224] [--rounds 5]

Writes tests/bench/results/forms.csv: CPU time, size and operators outside XNNPACK of V3-Small in
the forms for CPU, NPU and GPU, one thread, files in turn. Weights are random with settled batch
statistics: fit for speed, and no statement about accuracy. A minute.
"""

import argparse
import csv
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]
from conftest import settled  # noqa: E402

import kzoo  # noqa: E402
from kzoo.tflite import audit, benchmark, convert  # noqa: E402

FORMS = ("cpu", "npu", "gpu")  # the others have the operators of the first

COLUMNS = ["net", "form", "size", "cpu_ms", "ratio", "bytes", "outside", "partitions", "rounds",
           "commit", "machine", "seed", "command"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "forms.csv")
    given = parser.parse_args()
    shape = (given.size, given.size, 3)
    images = np.random.default_rng(0).integers(0, 256, (16, *shape), np.uint8)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True,
        check=True,
    ).stdout.strip()  # fmt: skip
    rows = []
    for builder in (kzoo.MobileNetV3Small,):
        keras.utils.set_random_seed(0)
        net = settled(builder(1.0, input_shape=shape), images)
        with tempfile.TemporaryDirectory() as folder:
            files = [
                convert(net, Path(folder, f"{form}.tflite"), calibration=images, target=form)
                for form in FORMS
            ]
            found = benchmark(files, rounds=given.rounds)
            for form, file, timing in zip(FORMS, files, found.timings, strict=True):
                about = audit(file)
                rows.append([
                    net.name, form, given.size, f"{timing.cpu_ms:.3f}",
                    f"{timing.cpu_ms / found.timings[0].cpu_ms:.2f}", file.stat().st_size,
                    len(about.outside), about.partitions, given.rounds, commit, cpu(), 0,
                    f"python tests/bench/form_cost.py --size {given.size}",
                ])  # fmt: skip
                print(*rows[-1][:8], sep="\t", flush=True)
    given.out.parent.mkdir(exist_ok=True)
    with given.out.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, lineterminator="\n").writerows([COLUMNS, *rows])


def cpu() -> str:
    """The processor's name, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
