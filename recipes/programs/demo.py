"""The main job on images that this program draws itself.

    kzoo demo        about two minutes on two cores; nothing is downloaded, nothing pretrained

A small MobileNetV3 learns five shapes from scratch and ends as a verified int8 file.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from kzoo.files import replacing_folder
from kzoo.recipes.classify import classify
from kzoo.recipes.evaluation.classification.class_report import ClassResults

SIDE = 128  # px
PER_CLASS = {"train": 300, "val": 40}


def polygon(corners: int, inner: float = 1.0) -> list[tuple[float, float]]:
    """Return the corners of a regular polygon of radius 1; with `inner` < 1 of a star."""
    n = corners * (2 if inner < 1 else 1)
    radii = [1.0 if i % 2 == 0 else inner for i in range(n)]
    angles = [2 * math.pi * i / n for i in range(n)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


CROSS = [(x, y) for x, y in (
    (1, .3), (.3, .3), (.3, 1), (-.3, 1), (-.3, .3), (-1, .3),
    (-1, -.3), (-.3, -.3), (-.3, -1), (.3, -1), (.3, -.3), (1, -.3),
)]  # fmt: skip
SHAPES = {
    "circle": polygon(60),
    "cross": CROSS,
    "square": polygon(4),
    "star": polygon(5, 0.45),
    "triangle": polygon(3),
}


def draw(shape: str, rng: np.random.Generator) -> Image.Image:
    """Return an image of a shape of random colour, size, position and angle, on random ground."""
    mottle = rng.integers(0, 256, (6, 6, 3), dtype="uint8")
    image = Image.fromarray(mottle).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    image = Image.blend(image, Image.new("RGB", image.size, tuple(rng.integers(0, 256, 3))), 0.7)
    ground = np.asarray(image).mean(axis=(0, 1))
    while np.abs((colour := rng.integers(0, 256, 3)) - ground).max() < 110:
        pass  # too near the ground's colour to be seen
    radius, turn = SIDE * rng.uniform(0.25, 0.42), rng.uniform(0, 2 * math.pi)
    centre = rng.uniform(radius, SIDE - radius, 2)
    spin = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    points = np.array(SHAPES[shape]) @ spin * radius + centre
    ImageDraw.Draw(image).polygon([tuple(p) for p in points], fill=tuple(int(c) for c in colour))
    noisy = np.asarray(image.filter(ImageFilter.GaussianBlur(0.6)), "float32")
    noisy = noisy + rng.normal(0, 8, noisy.shape)
    return Image.fromarray(noisy.clip(0, 255).astype("uint8"))


def draw_images(folder: Path, seed: int = 0) -> Path:
    """Write train/ and val/ with one folder per shape, atomically; return the folder."""
    if folder.exists():
        return folder
    rng = np.random.default_rng(seed)
    with replacing_folder(folder) as part:
        for split, count in PER_CLASS.items():
            for shape in SHAPES:
                (part / split / shape).mkdir(parents=True)
                for i in range(count):
                    draw(shape, rng).save(part / split / shape / f"{i:04d}.jpg", quality=90)
    return folder


def demo(out: str | Path = "runs/demo", *, epochs: int = 12, seed: int = 0) -> ClassResults:
    """Draw images, then train, convert and verify a classifier; return its results."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    images = draw_images(out / "images", seed)
    return classify(
        images,
        model="mobilenet_v3_small",
        alpha=0.75,
        size=96,
        weights="none",
        epochs=epochs,
        qat_epochs=1,
        learning_rate=2e-3,
        seed=seed,
        out=str(out / "run"),
    )
