"""Seconds that reading 10,000 images takes, before anything is trained.

    python tests/bench/read_speed.py [--count 10000] [--tree PATH]

Draws JPEGs of 320 x 240 px in class folders and as a YOLO set, and reads each once. `--tree` is a
checkout of another commit, to compare with; CPU seconds are of all threads. Results are rows of
results/read_speed.csv.
"""

import argparse
import csv
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "read_speed.csv"
COLUMNS = ("task", "images", "wall_s", "cpu_s", "peak_mb", "commit", "machine", "command")
READ = """
import resource, sys, time
try:
    from kzoo.recipes.data import read_dataset
    from kzoo.recipes.data import read_boxes
except ImportError:  # before the data of all tasks stood in one folder
    from kzoo.recipes.data import read_dataset
    from kzoo.recipes.annotations import read_boxes
read = {"classify": read_dataset, "detect": read_boxes}[sys.argv[1]]
before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
found = read(sys.argv[2])
wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(len(found.train) + len(found.val), round(wall, 2), round(cpu, 2), after.ru_maxrss // 1024)
"""


def draw(root: Path, count: int) -> None:
    """Write `count` JPEGs into two class folders, and the same as a YOLO set."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 6, 8, 3), dtype="uint8")
    for folder in ("classify/a", "classify/b", "detect/images", "detect/labels"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        photo = Image.fromarray(small[i]).resize((320, 240), Image.Resampling.BICUBIC)
        path = root / "classify" / "ab"[i % 2] / f"{i}.jpg"
        photo.save(path, quality=85)
        os.link(path, root / "detect" / "images" / f"{i}.jpg")
        (root / "detect" / "labels" / f"{i}.txt").write_text(f"{i % 2} .5 .5 .2 .4\n")
    (root / "detect" / "data.yaml").write_text("names: [a, b]\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--tree", default=str(Path(__file__).parents[2]))
    given = parser.parse_args()
    command = ["git", "-C", given.tree, "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip() or "base"
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), given.count)
        rows = []
        for task in ("classify", "detect"):
            done = subprocess.run(
                [sys.executable, "-c", READ, task, f"{folder}/{task}"],
                env=os.environ | {"PYTHONPATH": given.tree, "KERAS_BACKEND": "jax"},
                capture_output=True, text=True, check=True, cwd=folder,
            )  # fmt: skip
            found = done.stdout.split()
            machine = f"{platform.machine()}, {os.cpu_count()} cores"
            about = (commit, machine, f"read_speed.py --count {given.count}")
            rows.append(dict(zip(COLUMNS, (task, *found, *about), strict=True)))
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(*row.values())


if __name__ == "__main__":
    main()
