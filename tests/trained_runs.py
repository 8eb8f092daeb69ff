"""A short run of every family and head, on shapes and cells that this program draws.

    python tests/trained_runs.py FOLDER [--only NAME ...]      # about 8 minutes of one core

Small nets that a recipe has trained from nothing, and what it left: model.keras and model.tflite.
Serves checks of clients (tests/clients/arm_client.py --trained), which need nets whose activations
are those of training. Runs that are there already are kept.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "bench")]
import box_sets  # noqa: E402
import mask_scenes  # noqa: E402

from kzoo.recipes import classify, detect, segment  # noqa: E402
from kzoo.recipes.programs import demo  # noqa: E402

SMALL = {"weights": "none", "head_epochs": 0, "qat_epochs": 1, "qat": "always", "quiet": True}
CLASSES = functools.partial(
    classify, alpha=0.35, size=64, epochs=5, learning_rate=3e-3, **SMALL | {"qat_epochs": 0}
)
BOXES = functools.partial(detect, alpha=0.5, size=160, epochs=10, learning_rate=2e-3, **SMALL)
MASKS = functools.partial(segment, alpha=0.5, size=128, epochs=6, filters=32, **SMALL)
RUNS: dict[str, tuple[str, Callable[..., object]]] = {  # name: (data, recipe)
    "v1": ("shapes", functools.partial(CLASSES, model="mobilenet_v1", alpha=0.25)),
    "v2": ("shapes", functools.partial(CLASSES, model="mobilenet_v2")),
    "v3_large": ("shapes", functools.partial(CLASSES, model="mobilenet_v3_large")),
    "v3_small": ("shapes", functools.partial(CLASSES, model="mobilenet_v3_small", qat_epochs=1)),
    "v3_small_minimalistic": (
        "shapes", functools.partial(CLASSES, model="mobilenet_v3_small_minimalistic")
    ),
    "v4_conv_small": ("shapes", functools.partial(CLASSES, model="mobilenet_v4_conv_small")),
    "v4_hybrid_medium": (
        "shapes", functools.partial(CLASSES, model="mobilenet_v4_hybrid_medium", alpha=0.25)
    ),
    "ssdlite": ("cells", functools.partial(BOXES, model="mobilenet_v3_small")),
    "lraspp": ("masks", functools.partial(MASKS, model="mobilenet_v3_small", head="lraspp")),
    "deeplab": ("masks", functools.partial(MASKS, model="mobilenet_v3_small", head="deeplabv3+")),
}  # fmt: skip


def draw_cells(folder: Path) -> None:
    for split, count, seed in (("train", 96, 0), ("val", 64, 1)):
        rng = np.random.default_rng(seed)
        scenes = [box_sets.cells(rng) for _ in range(count)]
        box_sets.write(folder / split, scenes, box_sets.CELLS)


DRAWN: dict[str, Callable[[Path], object]] = {
    "shapes": demo.draw_images,
    "cells": draw_cells,
    "masks": lambda folder: mask_scenes.draw_scenes(folder, train=160, val=64, side=128),
}


def trained_runs(folder: Path, only: tuple[str, ...] = ()) -> Iterator[tuple[str, Path]]:
    """(Name, run folder) of each, trained where it has no model.keras yet."""
    for name, (data, recipe) in RUNS.items():
        run, images = folder / name, folder / "data" / data
        if only and name not in only:
            continue
        if not images.is_dir():
            DRAWN[data](images)
        if not (run / "results.json").is_file():
            try:
                print(name, recipe(images, out=str(run)), flush=True)
            except ValueError as error:  # no int8 form: the float model is there
                if not (run / "model.keras").is_file():
                    raise
                print(name, error, flush=True)
        yield name, run


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=tuple(RUNS), default=())
    given = parser.parse_args()
    for name, run in trained_runs(given.folder, tuple(given.only)):
        print(name, run, flush=True)
