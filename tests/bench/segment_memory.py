"""Peak memory of a run of `kzoo segment` on street scenes: 367 and 101 images, 320 px.

    python tests/bench/segment_memory.py FOLDER [--weights FILE]

Draws 367 frames of 480 x 360 px to train on, 101 to validate on and 20 to test on, with 11
classes, and trains DeepLabV3+ with 64 filters on V3-Small, an epoch a stage. Writes
tests/bench/results/segment_memory.csv: resident GB at the most up to the end of each part of the
run, as the kernel counts them.
"""

import argparse
import re
import resource
import sys
from pathlib import Path

from record import record
from street_scenes import draw_streets

from kzoo.recipes import progress, segment

SPLITS = {"train": 367, "val": 101, "test": 20}


def peak_gb() -> float:
    """Return what this process had resident at the most, in GB (Linux counts in kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--head", default="deeplabv3+")
    given = parser.parse_args()
    data = draw_streets(given.folder / "memory", SPLITS)
    peaks: dict[str, float] = {}

    def note(text: str, style: str | None = None) -> None:
        if stage := re.match(r"Stage \d of \d: [^,:]*", str(text)):
            peaks[stage[0]] = peak_gb()
        print(f"{peak_gb():.2f} GB {text}", file=sys.stderr, flush=True)

    shown, progress.show = progress.show, note
    try:
        segment(
            data, model="mobilenet_v3_small", head=given.head, filters=64, size=320,
            weights=given.weights, head_epochs=1, epochs=1, qat_epochs=1, qat="always",
            out=str(given.folder / "memory-run"),
        )  # fmt: skip
    finally:
        progress.show = shown
    peaks["the report"] = peak_gb()
    record("segment_memory", [{"until": part, "peak_gb": gb} for part, gb in peaks.items()])


if __name__ == "__main__":
    main()
