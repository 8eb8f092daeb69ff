"""Images with masks to try a segmenter on: the scenes that detectors are tried on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scenes import draw_scene

from kzoo.recipes.programs.demo import SHAPES


def draw_scenes(
    folder: Path, *, train: int, val: int, side: int, shapes: Sequence[str] = tuple(SHAPES),
    seed: int = 0,
) -> Path:  # fmt: skip
    """Writes train/ and val/ with images/ and masks/, and labels.txt."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for part in ("images", "masks"):
            (folder / split / part).mkdir(parents=True)
        for i in range(count):
            scene = draw_scene(side, rng, shapes)
            scene.image.save(folder / split / "images" / f"{i:04d}.jpg", quality=90)
            scene.mask.save(folder / split / "masks" / f"{i:04d}.png")
    (folder / "labels.txt").write_text("\n".join(["background", *shapes]))
    return folder
