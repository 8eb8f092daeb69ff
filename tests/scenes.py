"""Images with boxes or masks to learn from: several of the demo's shapes on a mottled ground."""

import dataclasses
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from kzoo.recipes.programs import demo

SHAPES = ("circle", "cross", "triangle")
MOST = 3  # shapes on one image; one in ten has none


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """An image and what is on it, by class: 0 is the first of the shapes."""

    image: Image.Image
    objects: list[tuple[int, Any]]  # (class, (x, y, width, height) in px)
    mask: Image.Image  # 0 for the ground, 1 for the first class


def draw_scene(side: int, rng: np.random.Generator, shapes: Sequence[str] = SHAPES) -> Scene:
    """Up to three shapes that may touch but do not hide each other; on one image in ten none."""
    mottle = rng.integers(0, 256, (6, 6, 3), dtype="uint8")
    image = Image.fromarray(mottle).resize((side, side), Image.Resampling.BICUBIC)
    ground = tuple(rng.integers(0, 256, 3).tolist())
    image = Image.blend(image, Image.new("RGB", image.size, ground), 0.7)
    mask, mean = Image.new("L", image.size), np.asarray(image).mean(axis=(0, 1))
    objects: list[tuple[int, Any]] = []
    placed: list[np.ndarray] = []
    for _ in range(0 if rng.random() < 0.1 else rng.integers(1, MOST + 1)):
        kind = int(rng.integers(len(shapes)))
        while np.abs((colour := rng.integers(0, 256, 3)) - mean).max() < 110:
            pass  # too near the ground's colour to be seen
        radius, turn = side * rng.uniform(0.12, 0.3), rng.uniform(0, 2 * math.pi)
        spin = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        centre = rng.uniform(radius, side - radius, 2)
        if any(np.linalg.norm(centre - other[:2]) < 0.8 * (radius + other[2]) for other in placed):
            continue  # it would hide another
        points = np.array(demo.SHAPES[shapes[kind]]) @ spin * radius + centre
        for canvas, fill in ((image, tuple(colour.tolist())), (mask, kind + 1)):
            ImageDraw.Draw(canvas).polygon([tuple(p) for p in points], fill=fill)
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        objects.append((kind, (x0, y0, x1 - x0, y1 - y0)))
        placed.append(np.r_[centre, radius])
    noisy = np.asarray(image.filter(ImageFilter.GaussianBlur(0.6)), "float32")
    noisy = noisy + rng.normal(0, 8, noisy.shape)
    return Scene(Image.fromarray(noisy.clip(0, 255).astype("uint8")), objects, mask)


def draw_scenes(folder: Path, *, train: int, val: int, side: int = 128, seed: int = 0) -> Path:
    """Writes train/ and val/ and a COCO file for each; the folder appears when all are in it."""
    if folder.exists():
        return folder
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        (part / split).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i in range(count):
            scene = draw_scene(side, rng)
            scene.image.save(part / split / f"{i:05d}.jpg", quality=90)
            images.append({"id": i, "file_name": f"{i:05d}.jpg", "height": side, "width": side})
            for kind, box in scene.objects:
                annotations.append({
                    "id": len(annotations) + 1, "image_id": i, "category_id": kind + 1,
                    "bbox": [round(float(v), 2) for v in box], "area": float(box[2] * box[3]),
                    "iscrowd": 0,
                })  # fmt: skip
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": k, "name": name} for k, name in enumerate(SHAPES, 1)],
        }
        (part / split / "annotations.json").write_text(json.dumps(content))
    part.rename(folder)
    return folder
