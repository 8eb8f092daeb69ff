"""Thin and rare classes in drawn street scenes: what `kzoo segment` makes of poles and signs.

    uv run python tests/bench/segment_thin.py FOLDER [--weights FILE] [--variants plain balance]

240 scenes of 480 x 360 px to train on, 60 to choose epochs on, 80 to test on, eight classes; poles
are 3 to 5 px wide and cover .6 % of the pixels. V3-Small, DeepLabV3+ with 64 filters, 224 px, 2 and
10 epochs. Writes tests/bench/results/segment_thin.csv: test IoU by class of the float model, and
CPU seconds.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from record import record

from kzoo.recipes import segment

LABELS = ("sky", "building", "road", "pavement", "car", "pole", "person", "sign")
WIDTH, HEIGHT = 480, 360
COLOURS = (
    (170, 200, 230), (130, 110, 100), (95, 95, 100), (150, 145, 140),
    (120, 40, 50), (110, 110, 105), (80, 70, 120), (200, 170, 60),
)  # fmt: skip
VARIANTS = {
    "plain": {"balance": False},
    "balance": {"balance": True},
}


def scene(rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """Return a street (image, mask of class ids)."""
    mask = Image.new("L", (WIDTH, HEIGHT), 0)
    pen = ImageDraw.Draw(mask)
    horizon = int(rng.integers(130, 190))
    x = 0
    while x < WIDTH:
        width = int(rng.integers(40, 120))
        pen.rectangle((x, int(rng.integers(20, horizon)), x + width, horizon + 20), fill=1)
        x += width + int(rng.integers(0, 30))
    pen.rectangle((0, horizon, WIDTH, HEIGHT), fill=3)
    left, right = rng.uniform(0.3, 0.45) * WIDTH, rng.uniform(0.55, 0.7) * WIDTH
    pen.polygon([(left, horizon), (right, horizon), (WIDTH + 60, HEIGHT), (-60, HEIGHT)], fill=2)
    for _ in range(rng.integers(1, 4)):
        x, y, size = rng.uniform(60, 400), rng.uniform(horizon, HEIGHT - 40), rng.uniform(25, 70)
        pen.rounded_rectangle((x, y - 0.6 * size, x + 1.5 * size, y), 6, fill=4)
    for _ in range(rng.integers(2, 5)):
        x, bottom = rng.uniform(10, 470), rng.uniform(horizon + 20, horizon + 90)
        half, top = rng.uniform(1.5, 2.5), rng.uniform(10, 80)
        pen.rectangle((x - half, top, x + half, bottom), fill=5)
        if rng.random() < 0.4:
            pen.rectangle((x - 8, top, x + 8, top + 16), fill=7)
    for _ in range(rng.integers(0, 4)):
        x, bottom, size = rng.uniform(10, 470), rng.uniform(horizon + 20, HEIGHT - 10), 1.0
        size = (bottom - horizon + 30) / 60
        pen.ellipse((x - 3 * size, bottom - 30 * size, x + 3 * size, bottom - 24 * size), fill=6)
        pen.rectangle((x - 4 * size, bottom - 24 * size, x + 4 * size, bottom), fill=6)
    ids = np.asarray(mask)
    tint = np.array(COLOURS, "float32") + rng.normal(0, 14, (len(COLOURS), 3))
    coarse = rng.normal(0, 18, (HEIGHT // 12, WIDTH // 12, 3)) + rng.normal(0, 12)
    mottle = np.stack([
        np.asarray(Image.fromarray(c.astype("float32")).resize((WIDTH, HEIGHT)))
        for c in coarse.transpose(2, 0, 1)
    ], -1)  # fmt: skip
    pixels = tint[ids] + mottle + rng.normal(0, 7, (HEIGHT, WIDTH, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype("uint8"))
    return image.filter(ImageFilter.GaussianBlur(0.7)), mask


def draw(folder: Path) -> Path:
    if folder.exists():
        return folder
    rng = np.random.default_rng(0)
    for split, count in (("train", 240), ("val", 60), ("test", 80)):
        for part in ("images", "masks"):
            (folder / split / part).mkdir(parents=True)
        for i in range(count):
            image, mask = scene(rng)
            image.save(folder / split / "images" / f"{i:04d}.jpg", quality=90)
            mask.save(folder / split / "masks" / f"{i:04d}.png")
    (folder / "labels.txt").write_text("\n".join(LABELS))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data = draw(given.folder / "scenes")
    rows = []
    for name in given.variants:
        begun = time.process_time()
        segment(
            data, model="mobilenet_v3_small", head="deeplabv3+", filters=64, size=224,
            weights=given.weights, head_epochs=2, epochs=10, qat_epochs=0, seed=given.seed,
            out=str(given.folder / f"{name}-{given.seed}"), **VARIANTS[name],
        )  # fmt: skip
        results = json.loads((given.folder / f"{name}-{given.seed}" / "results.json").read_text())
        test = results["test"]["float"]
        seconds = round(time.process_time() - begun)
        rows.append(
            {"variant": name, "mean_iou": test["mean_iou"], **test["iou"], "cpu_s": seconds}
        )
        record("segment_thin", rows, seed=given.seed)


if __name__ == "__main__":
    main()
