"""Pictures with masks to try a segmenter on: the demo's shapes on a mottled ground, drawn twice."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from kzoo.recipes.demo import SHAPES


def draw_scene(
    side: int, rng: np.random.Generator, shapes: Sequence[str] = tuple(SHAPES)
) -> tuple[Image.Image, Image.Image]:
    """A picture of one to three shapes, and its mask: 0, and 1 for the first of `shapes`."""
    mottle = rng.integers(0, 256, (6, 6, 3), dtype="uint8")
    image = Image.fromarray(mottle).resize((side, side), Image.Resampling.BICUBIC)
    ground = Image.new("RGB", image.size, tuple(rng.integers(0, 256, 3).tolist()))
    image, mask = Image.blend(image, ground, 0.7), Image.new("L", image.size)
    mean = np.asarray(image).mean(axis=(0, 1))
    for _ in range(rng.integers(1, 4)):
        kind = int(rng.integers(len(shapes)))
        while np.abs((colour := rng.integers(0, 256, 3)) - mean).max() < 110:
            pass  # too near the ground's colour to be seen
        radius, turn = side * rng.uniform(0.15, 0.3), rng.uniform(0, 2 * math.pi)
        spin = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        centre = rng.uniform(radius, side - radius, 2)
        points = np.array(SHAPES[shapes[kind]]) @ spin * radius + centre
        for canvas, fill in ((image, tuple(colour.tolist())), (mask, kind + 1)):
            ImageDraw.Draw(canvas).polygon([tuple(p) for p in points], fill=fill)
    noisy = np.asarray(image.filter(ImageFilter.GaussianBlur(0.6)), "float32")
    noisy = noisy + rng.normal(0, 8, noisy.shape)
    return Image.fromarray(noisy.clip(0, 255).astype("uint8")), mask


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
            picture, mask = draw_scene(side, rng, shapes)
            picture.save(folder / split / "images" / f"{i:04d}.jpg", quality=90)
            mask.save(folder / split / "masks" / f"{i:04d}.png")
    (folder / "labels.txt").write_text("\n".join(["background", *shapes]))
    return folder
