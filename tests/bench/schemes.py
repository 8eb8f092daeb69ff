"""Every scheme and input of a trained net: bytes, CPU time, agreement, signal to noise, and the
time and memory that conversion takes.

    uv run python tests/bench/schemes.py MODEL.keras TRAIN VAL      # 3 to 6 minutes a net

MODEL is a classifier of images in [0, 255]; TRAIN has the images to calibrate on, VAL those to
compare on, each a folder of any depth. CPU time is of one thread, files in turn, as a ratio to the
first. Memory is what the converting process, one for each file, had resident at most.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from kzoo.recipes.programs.convert_model import sample
from kzoo.tflite import SCHEMES, audit, benchmark, compare, convert


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--images", type=int, default=256, help="to compare on (default: 256)")
    parser.add_argument("--calibration", type=int, default=256, help="images (default: 256)")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # scheme, io, out: one child
    given = parser.parse_args()
    if given.one:
        return convert_one(given.model, *given.one)
    net = keras.saving.load_model(given.model, compile=False)
    side = net.input_shape[1]
    with tempfile.TemporaryDirectory() as folder:
        taken = sample(given.train, side, given.model)[: given.calibration]
        np.save(Path(folder, "calibration.npy"), taken)
        seen = sample(given.val, side, given.model)[:: max(1, 256 // given.images)]
        files: dict[Path, str] = {}
        for scheme, about in SCHEMES.items():
            for io in about.inputs:
                out = Path(folder, f"{scheme}_{io}.tflite")
                command = [sys.executable, __file__, given.model, given.train, given.val]
                done = subprocess.run(
                    [*command, "--one", scheme, io, out], capture_output=True, text=True
                )
                if done.returncode:
                    print(f"{scheme} {io}: {done.stderr.strip().splitlines()[-1][:120]}")
                else:
                    files[out] = done.stdout.splitlines()[-1]
        times = benchmark(list(files))
        print(f"{net.name}, {side} px, {len(seen)} images")
        print("scheme   input        bytes  CPU   parts outside agree  SQNR dB   s to convert, MB")
        for (file, cost), timing in zip(files.items(), times.timings, strict=True):
            found, kept = audit(file), compare(net, file, seen)
            scheme, io = file.stem.split("_")
            print(
                f"{scheme:8} {io:8} {timing.bytes:>9,} {timing.ratio:>5.2f} {found.partitions:>5} "
                f"{len(found.outside):>7} {kept.agreement:>6.3f} {kept.sqnr_db:>7.1f}   {cost}",
                flush=True,
            )


def convert_one(model: Path, scheme: str, io: str, out: str) -> None:
    images = np.load(Path(out).with_name("calibration.npy"))
    start = time.perf_counter()
    convert(model, out, scheme=scheme, io=io, calibration=images)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    print(f"{seconds:.0f} s, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
