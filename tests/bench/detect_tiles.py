"""mAP of a detector with and without tiles, on photos of the net's size and of twice that.

    python tests/bench/detect_tiles.py RUN [--images 40]

RUN is a run of `kzoo detect` on the drawn blood smears of box_sets.py. It is scored on its own
validation images, where the net sees cells as large as in training, and on drawn smears twice as
wide and high (640 x 480 px where the net has 320), with four times as many cells: there the net
sees each at half its size, and in 2x2 tiles at .9 of it. Writes tests/bench/results/
detect_tiles.csv: mAP, of classes mAP / mAP50, and CPU ms of an image with reading it. Cost: a
minute.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from box_sets import CELLS, cells, write
from record import record

from kzoo.recipes.data.box_dataset import Example, read_boxes
from kzoo.recipes.evaluation.finished_runs import open_finished
from kzoo.recipes.task import Run
from kzoo.weights.saved_model import load_model

SEED = 2  # box_sets.py draws with 0 and 1
TILES = {"none": None, "2x2": (2, 2)}


def smears(folder: Path, count: int, size: int) -> Sequence[Example]:
    """Draw smears of twice `size` px."""
    rng = np.random.default_rng(SEED)
    for split in ("train", "val"):  # a folder has both
        scenes = [cells(rng, across=2) for _ in range(count if split == "val" else 1)]
        write(folder / split, scenes, CELLS, longest=2 * size)
    return read_boxes(folder).val


def rows(run: Run, photos: str, examples: Sequence[Example]) -> list[dict[str, Any]]:
    found = []
    for kind, model in (("float", load_model(run.model)), ("int8", run.int8)):
        for tiles, grid in TILES.items():
            run.task.infer(run, model, examples[:1], tiles=grid)
            begun = time.process_time()
            boxes = run.task.infer(run, model, examples, tiles=grid)
            seconds = time.process_time() - begun
            score = run.task.score(boxes, examples, run.dataset.labels)
            classes = {name: "/".join(f"{v:.3f}" for v in p) for name, p in score.by_class.items()}
            found.append({
                "photos": photos, "images": len(examples),
                "objects": sum(len(e.labels) for e in examples), "model": kind, "tiles": tiles,
                "map": score.map, "map50": score.map50, **classes,
                "cpu_ms": 1e3 * seconds / len(examples),
            })  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=40)
    given = parser.parse_args()
    run = open_finished(given.run)
    with tempfile.TemporaryDirectory() as folder:
        large = smears(Path(folder), given.images, run.size)
        table = rows(run, "as in training", run.dataset.val) + rows(run, "twice as large", large)
    record("detect_tiles", table, seed=SEED)


if __name__ == "__main__":
    main()
