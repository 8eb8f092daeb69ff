"""What fine features cost a segmenter: MACs, and CPU time of the files, float32 and int8.

    python tests/bench/segment_fine_cost.py [--size 320] [--classes 12]

V3-Small with random weights and settled batch statistics: fit for speed. Writes
tests/bench/results/segment_fine_cost.csv.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import keras
import numpy as np
from record import record
from segment_speed import settled

import kzoo
from kzoo.tflite import audit, benchmark, convert

HEADS = {
    "LR-ASPP": kzoo.LRASPP,
    "DeepLabV3+ (64)": partial(kzoo.DeepLabV3, decoder=True, filters=64),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--classes", type=int, default=12)
    given = parser.parse_args()
    shape = (given.size, given.size, 3)
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    rows, files = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, head in HEADS.items():
            for fine in (False, True):
                keras.utils.set_random_seed(0)
                backbone = kzoo.MobileNetV3Small(
                    include_top=False, input_shape=shape, output_stride=16
                )
                model = settled(head(backbone, given.classes, fine=fine), images)
                own = [Path(folder, f"{len(rows)}_{kind}.tflite") for kind in ("float", "int8")]
                convert(model, own[0], scheme="float32")
                convert(kzoo.quantize(model, calibration=images), own[1])
                macs, partitions = kzoo.profile(model).macs, audit(own[1]).partitions
                rows.append({"head": name, "fine": fine, "MACs_M": macs / 1e6,
                             "int8_partitions": partitions})  # fmt: skip
                files += own
        times = benchmark(files)
        for i, row in enumerate(rows):
            row |= {"float32_ms": times[2 * i].cpu_ms, "int8_ms": times[2 * i + 1].cpu_ms}
    record("segment_fine_cost", rows)


if __name__ == "__main__":
    main()
