"""mAP of detectors with and without tiles, on photos with objects of several sizes.

    python tests/bench/detect_tiles.py RUN [RUN ...] [--images 24]

RUN is a run of `kzoo detect`. Its float model and its int8 file are scored in no tiles, 2x2, 3x3
and auto on

as in training: its validation images,
as in training, enlarged: the same scenes in more pixels (drawn smears only),
twice, three times as wide: photos with the scenes of 2 x 2 and 3 x 3 images, on which the net sees
    each object at half and a third of its size,
middle: the middle quarter of each image, on which it sees them at twice their size.

Runs on the drawn blood smears of box_sets.py get new drawn smears; of others, validation images are
put together, cut so that seams run anywhere. Writes tests/bench/results/detect_tiles.csv: mAP,
mAP50, mAP of COCO's small, medium and large objects (in px of the photo), how many images the net
has seen for each photo, and CPU ms of a photo with reading it. Cost: five minutes for two runs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from box_sets import CELLS, Scene, annotated, cells, write
from PIL import Image
from record import record

from kzoo.detection.detections import Detections
from kzoo.detection.detector import at_own_size
from kzoo.recipes.data.box_dataset import Example, read_boxes
from kzoo.recipes.evaluation.detect_files import load_detector
from kzoo.recipes.evaluation.drawings import read_upright
from kzoo.recipes.evaluation.finished_runs import open_finished
from kzoo.recipes.task import Run
from kzoo.sizes import Tiles, height_width, tiles_text
from kzoo.weights.saved_model import load_model

SEED = 3  # box_sets.py draws with 0 and 1; the constants of "auto" were chosen with 2
TILES: tuple[Tiles | None, ...] = (None, (2, 2), (3, 3), "auto")
PART = 0.5  # share of an object that counts where a photo is cut
MOST_PX = 1440


def cut(scene: Scene, x: float, y: float, width: float, height: float) -> Scene:
    """Return a part of a scene, with the objects of which `PART` lies within."""
    image, objects = scene
    kept = []
    for kind, (left, top, across, down) in objects:
        least = np.maximum((left - x, top - y), 0)
        most = np.minimum((left + across - x, top + down - y), (width, height))
        sides = (most - least).clip(0)
        if sides.prod() > PART * across * down:
            kept.append((kind, (*least.tolist(), *sides.tolist())))
    corners = (round(x), round(y), round(x + width), round(y + height))
    return image.crop(corners), kept


def together(scenes: Sequence[Scene], n: int, rng: np.random.Generator) -> Scene:
    """Return a photo with the area of n x n of the (n + 1) x (n + 1) scenes, from anywhere."""
    width, height = scenes[0][0].size
    photo = Image.new("RGB", (width * (n + 1), height * (n + 1)))
    objects = []
    for i, (image, own) in enumerate(scenes):
        x, y = i % (n + 1) * width, i // (n + 1) * height
        photo.paste(image.resize((width, height), Image.Resampling.BILINEAR), (x, y))
        wide, high = width / image.width, height / image.height
        objects += [
            (kind, (x + left * wide, y + top * high, across * wide, down * high))
            for kind, (left, top, across, down) in own
        ]
    x, y = rng.uniform(0, (width, height))
    return cut((photo, objects), x, y, n * width, n * height)


def photos(run: Run, count: int) -> dict[str, list[Scene]]:
    """Return the scenes of each kind of photos."""
    rng = np.random.default_rng(SEED)
    own = list(annotated(Path(run.settings["data"]), "val"))
    many: Callable[[int], Scene]
    if tuple(run.dataset.labels) == CELLS:
        enlarged = {"as in training, enlarged": [cells(rng) for _ in range(count)]}

        def many(n: int) -> Scene:
            return cells(rng, across=n)
    else:
        enlarged = {}

        def many(n: int) -> Scene:
            chosen = rng.choice(len(own), (n + 1) ** 2, replace=False)
            return together([own[i] for i in chosen], n, rng)

    middles = [
        cut((image, objects), image.width / 4, image.height / 4, image.width / 2, image.height / 2)
        for image, objects in next(iter(enlarged.values()), own)
    ]
    return {
        **enlarged,
        "twice as wide": [many(2) for _ in range(count)],
        "three times as wide": [many(3) for _ in range(count // 2)],
        "middle": middles[:count],
    }


def rows(name: str, run: Run, kind: str, model: Any, examples: Sequence[Example]) -> list[dict]:
    detector, seen, found_rows = load_detector(model), [0], []

    def find(images: np.ndarray) -> list[Detections]:
        seen[0] += len(images)
        return detector.run(images)

    def found(example: Example, tiles: Tiles | None) -> Detections:
        photo = np.asarray(read_upright(example.path))
        (one,) = at_own_size(find, [photo], height_width(detector.size), tiles, {})
        return one.scaled(1 / photo.shape[0], 1 / photo.shape[1])

    for tiles in TILES:
        found(examples[0], tiles)  # TensorFlow traces
        seen[0], begun = 0, time.process_time()
        boxes = [found(example, tiles) for example in examples]
        seconds = time.process_time() - begun
        score = run.task.score(boxes, examples, run.dataset.labels)
        found_rows.append({
            "run": run.folder.name, "photos": name, "images": len(examples),
            "objects": sum(len(e.labels) for e in examples), "model": kind,
            "tiles": tiles_text(tiles) if tiles else "none", "map": score.map,
            "map50": score.map50, **score.by_area, "seen": seen[0] / len(examples),
            "cpu_ms": 1e3 * seconds / len(examples),
        })  # fmt: skip
    return found_rows


def measured(run: Run, count: int) -> list[dict[str, Any]]:
    models: dict[str, keras.Model | Path] = {"float": load_model(run.model), "int8": run.int8}
    table = []
    with tempfile.TemporaryDirectory() as folder:
        sets = {"as in training": run.dataset.val}
        for name, scenes in photos(run, count).items():
            for split in ("train", "val"):  # a folder has both
                some = scenes if split == "val" else scenes[:1]
                write(Path(folder) / name / split, some, run.dataset.labels, longest=MOST_PX)
            sets[name] = read_boxes(Path(folder) / name).val
        for name, examples in sets.items():
            for kind, model in models.items():
                table += rows(name, run, kind, model, examples)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=24)
    given = parser.parse_args()
    table = [row for run in given.runs for row in measured(open_finished(run), given.images)]
    record("detect_tiles", table, seed=SEED)


if __name__ == "__main__":
    main()
