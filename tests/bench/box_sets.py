"""Data sets of many and small objects, as COCO folders: what detectors are measured on.

    python tests/bench/box_sets.py OUT [--nuclei MASKS] [--cards CARDS]

cells: drawn blood smears, 640 x 480 px, some 12 cells each; at 320 x 320 px white ones have sides
of 90, red ones of 70 px, platelets are 27 high and 20 wide. Boxes are off by 4 % as people's are.
dense: 20 circles, crosses and triangles of 8 to 40 px on 320 x 320 px, mottled ground.
nuclei: the connected components of the masks of a folder train/, val/ of images/ and masks/.
cards: the annotated photos of a folder. All photos are written as JPEG of 400 px at most.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1]))
from kzoo.recipes.data.box_dataset import read_boxes
from kzoo.recipes.programs import demo

LONGEST = 400  # px of a side
Scene = tuple[Image.Image, list[tuple[int, tuple[float, float, float, float]]]]  # boxes x, y, w, h
CELLS = ("white", "red", "platelet")
SHAPES = ("circle", "cross", "triangle")


def cells(rng: np.random.Generator, across: int = 1) -> Scene:
    """A smear; `across` times as wide and high it has the square of it as many cells."""
    width, height, more = 640 * across, 480 * across, across**2
    light = rng.uniform(215, 240) + rng.normal(0, 6, 3)
    tilt = np.linspace(-1, 1, width) * rng.uniform(-14, 14)
    ground = light + tilt[None, :, None] + np.zeros((height, width, 3))
    image = Image.fromarray(ground.clip(0, 255).astype("uint8"))
    for _ in range(more * rng.integers(3, 9)):  # dust
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(2, 7)
        shade = tuple(int(v) for v in rng.uniform(120, 190, 3))
        ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=shade)
    placed, objects = [], []
    counts = (rng.integers(0, 3), rng.integers(7, 14), rng.integers(0, 4))
    for kind in (1, 0, 2):
        for _ in range(more * counts[kind]):
            sides = (156, 121, 40)[kind] * np.exp(rng.normal(0, (0.12, 0.07, 0.2)[kind], 2))
            for _ in range(20):
                centre = rng.uniform((0, 0), (width, height))
                gaps = [np.hypot(*(centre - c)) / (sides.mean() / 2 + r) for c, r in placed]
                if not gaps or min(gaps) > 0.75:
                    break
            else:
                continue
            placed.append((centre, sides.mean() / 2))
            draw_cell(image, kind, centre, sides, rng)
            low = np.maximum(centre - sides / 2, 0)
            high = np.minimum(centre + sides / 2, (width, height))
            if (high - low).prod() > 0.3 * sides.prod():
                noise = rng.normal(0, 0.04, (2, 2)) * sides
                low = np.maximum(low + noise[0], 0)
                high = np.minimum(high + noise[1], (width, height))
                objects.append((kind, (*low.tolist(), *(high - low).tolist())))
    noisy = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.8, 2.2))), "float32")
    noisy = noisy + rng.normal(0, 5, noisy.shape)
    return Image.fromarray(noisy.clip(0, 255).astype("uint8")), objects


def draw_cell(
    image: Image.Image, kind: int, centre: np.ndarray, across: np.ndarray, rng: np.random.Generator
) -> None:
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)

    def disc(at: np.ndarray, sides: np.ndarray, colour: Iterable[float], opacity: int) -> None:
        fill = (*(int(np.clip(v, 0, 255)) for v in colour), opacity)
        draw.ellipse((*(at - sides / 2), *(at + sides / 2)), fill=fill)

    if kind == 1:
        colour = np.array([205, 160, 165]) + rng.normal(0, 10, 3)
        disc(centre, across, colour - 18, 200)
        disc(centre, across * 0.9, colour, 220)
        if rng.random() < 0.8:
            disc(centre + rng.normal(0, 3, 2), across * rng.uniform(0.3, 0.5), colour + 22, 200)
    elif kind == 0:
        disc(centre, across, np.array([200, 175, 205]) + rng.normal(0, 8, 3), 190)
        for _ in range(rng.integers(2, 5)):
            at = centre + rng.normal(0, 0.12, 2) * across
            sides = across * rng.uniform(0.35, 0.55, 2)
            disc(at, sides, np.array([115, 70, 150]) + rng.normal(0, 10, 3), 230)
    else:
        for _ in range(6):
            at = centre + rng.uniform(-0.25, 0.25, 2) * across
            sides = across * rng.uniform(0.3, 0.6, 2)
            disc(at, sides, np.array([150, 110, 170]) + rng.normal(0, 15, 3), 150)
    image.paste(layer, mask=layer.getchannel("A"))


def dense(rng: np.random.Generator) -> Scene:
    side = 320
    mottle = rng.integers(0, 256, (12, 12, 3), dtype="uint8")
    image = Image.fromarray(mottle).resize((side, side), Image.Resampling.BICUBIC)
    image = Image.blend(image, Image.new("RGB", image.size, (128, 128, 128)), 0.6)
    placed, objects = [], []
    for _ in range(rng.integers(12, 29)):
        kind, radius = int(rng.integers(3)), math.exp(rng.uniform(math.log(4), math.log(20)))
        turn, centre = rng.uniform(0, 2 * math.pi), rng.uniform(radius, side - radius, 2)
        if any(np.hypot(*(centre - c)) < 0.8 * (radius + r) for c, r in placed):
            continue
        spin = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        points = np.array(demo.SHAPES[SHAPES[kind]]) @ spin * radius + centre
        ground = np.asarray(image)[int(centre[1]), int(centre[0])].astype(int)
        while np.abs((colour := rng.integers(0, 256, 3)) - ground).max() < 90:
            pass
        ImageDraw.Draw(image).polygon([tuple(p) for p in points], fill=tuple(colour.tolist()))
        low, high = points.min(axis=0).clip(0, side), points.max(axis=0).clip(0, side)
        objects.append((kind, (*low.tolist(), *(high - low).tolist())))
        placed.append((centre, radius))
    noisy = np.asarray(image.filter(ImageFilter.GaussianBlur(0.6)), "float32")
    noisy = noisy + rng.normal(0, 8, noisy.shape)
    return Image.fromarray(noisy.clip(0, 255).astype("uint8")), objects


def nuclei(folder: Path) -> Iterable[Scene]:
    for file in sorted((folder / "images").iterdir()):
        mask = np.asarray(Image.open(folder / "masks" / f"{file.stem}.png")) == 1
        parts, count = ndimage.label(mask)
        boxes = []
        for part, (rows, columns) in enumerate(ndimage.find_objects(parts), 1):
            if (parts[rows, columns] == part).sum() >= 12:
                size = columns.stop - columns.start, rows.stop - rows.start
                boxes.append((0, (columns.start, rows.start, *size)))
        if count and boxes:
            yield Image.open(file).convert("RGB"), boxes


def annotated(folder: Path, split: str) -> Iterable[Scene]:
    for example in getattr(read_boxes(folder), split):
        height, width = example.size
        boxes = []
        for (y0, x0, y1, x1), label in zip(example.boxes.tolist(), example.labels, strict=True):
            box = (x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height)
            boxes.append((int(label), box))
        yield Image.open(example.path).convert("RGB"), boxes


def write(
    folder: Path, scenes: Iterable[Scene], labels: Iterable[str], longest: int = LONGEST
) -> None:
    """A folder of JPEG files, `longest` px at most, and _annotations.coco.json."""
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i, (image, objects) in enumerate(scenes):
        scale = min(1.0, longest / max(image.size))
        small = image.resize([round(v * scale) for v in image.size], Image.Resampling.BILINEAR)
        small.save(folder / f"{i:04d}.jpg", quality=90)
        size = {"width": small.width, "height": small.height}
        images.append({"id": i, "file_name": f"{i:04d}.jpg", **size})
        for kind, box in objects:
            bbox = [round(v * scale, 2) for v in box]
            annotations.append({
                "id": len(annotations) + 1, "image_id": i, "category_id": kind + 1, "bbox": bbox,
                "area": bbox[2] * bbox[3], "iscrowd": 0,
            })  # fmt: skip
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(labels)]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "_annotations.coco.json").write_text(json.dumps(whole))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--nuclei", type=Path)
    parser.add_argument("--cards", type=Path)
    given = parser.parse_args()
    for split, count, seed in (("train", 205, 0), ("val", 80, 1)):
        rng = np.random.default_rng(seed)
        write(given.out / "cells" / split, [cells(rng) for _ in range(count)], CELLS)
        write(given.out / "dense" / split, [dense(rng) for _ in range(count)], SHAPES)
        if given.nuclei:
            write(given.out / "nuclei" / split, nuclei(given.nuclei / split), ("nucleus",))
        if given.cards:
            labels = read_boxes(given.cards).labels
            write(given.out / "cards" / split, annotated(given.cards, split), labels)


if __name__ == "__main__":
    main()
