"""Detectors of 4:3 photos with a square input, which squashes them, and one of their own aspect.

    python tests/bench/aspect.py OUT --weights FILE [--data PHOTOS] [--sizes 320 368x272]
        [--seeds 0 1] [--epochs 40] [--name NAME]

Without --data it draws scenes of 640 x 480 px into OUT/scenes: five shapes of 40 to 140 px radius,
turned any way, on a mottled ground, 120 images to train on and 60 to validate. A V3-Small is
trained by the recipe at each size and with each seed, 1 + `--epochs` epochs, int8 by calibration
alone. The default sizes are 102,400 and 100,096 px. Runs are kept in OUT,
and one that has ended is not repeated: processes may share the seeds. Writes results/NAME.csv.
At 160 px and 14 epochs nothing is learnt yet (mAP under .02).
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from box_sets import Scene, write
from PIL import Image, ImageDraw, ImageFilter
from record import record

sys.path.insert(0, str(Path(__file__).parents[1]))
import kzoo
from kzoo.recipes.detect import detect
from kzoo.recipes.inputs import size_given
from kzoo.recipes.programs import demo
from kzoo.sizes import size_text
from kzoo.weights.saved_model import load_model

WIDTH, HEIGHT = 640, 480
BAR = [(-1.0, -0.25), (1.0, -0.25), (1.0, 0.25), (-1.0, 0.25)]
SHAPES = {
    name: np.array(demo.SHAPES[name]) for name in ("circle", "cross", "square", "triangle")
} | {"bar": np.array(BAR)}  # fmt: skip


def scene(rng: np.random.Generator) -> Scene:
    """Return a photo and its objects, (class, (x, y, width, height) in px)."""
    mottle = rng.integers(0, 256, (15, 20, 3), dtype="uint8")
    image = Image.fromarray(mottle).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    image = Image.blend(image, Image.new("RGB", image.size, (128, 128, 128)), 0.4)
    placed, objects = [], []
    for _ in range(rng.integers(3, 8)):
        kind, radius = int(rng.integers(len(SHAPES))), np.exp(rng.uniform(np.log(40), np.log(140)))
        turn, centre = rng.uniform(0, 2 * np.pi), rng.uniform(radius, (WIDTH, HEIGHT) - radius)
        if any(np.hypot(*(centre - c)) < 0.8 * (radius + r) for c, r in placed):
            continue
        spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        points = list(SHAPES.values())[kind] @ spin * radius + centre
        ground = np.asarray(image)[int(centre[1]), int(centre[0])].astype(int)
        while np.abs((colour := rng.integers(0, 256, 3)) - ground).max() < 90:
            pass
        ImageDraw.Draw(image).polygon([tuple(p) for p in points], fill=tuple(colour.tolist()))
        low, high = points.min(axis=0), points.max(axis=0)
        objects.append((kind, (*low.tolist(), *(high - low).tolist())))
        placed.append((centre, radius))
    noisy = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1))), "float32")
    noisy = noisy + rng.normal(0, 8, noisy.shape)
    return Image.fromarray(noisy.clip(0, 255).astype("uint8")), objects


def drawn(folder: Path) -> Path:
    for split, count, seed in (("train", 120, 0), ("val", 60, 1)):
        if not (folder / split).exists():
            rng = np.random.default_rng(seed)
            write(folder / split, [scene(rng) for _ in range(count)], SHAPES)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sizes", nargs="+", default=["320", "368x272"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--name", default="aspect")
    given = parser.parse_args()
    data, rows = given.data or drawn(given.out / "scenes"), []
    for seed in given.seeds:
        for size in map(size_given, given.sizes):
            folder = given.out / f"{data.name}-{size_text(size)}-{seed}"
            begun = time.process_time()
            if not (folder / "results.json").exists():
                detect(
                    data, model="mobilenet_v3_small", weights=given.weights, size=size, seed=seed,
                    head_epochs=1, epochs=given.epochs, qat_epochs=0, out=str(folder),
                )  # fmt: skip
                (folder / "cpu_s").write_text(f"{time.process_time() - begun:.0f}")
            found = json.loads((folder / "results.json").read_text())
            rows.append({
                "input": size_text(size), "training_seed": seed,
                "M_MACs": kzoo.profile(load_model(folder / "model.keras")).macs / 1e6,
                "mAP_float": found["float_map"], "mAP50_float": found["float_map50"],
                "mAP_int8": found["int8_map"], "mAP50_int8": found["int8_map50"],
                "CPU_s": float((folder / "cpu_s").read_text()),
            })  # fmt: skip
    record(given.name, sorted(rows, key=lambda row: row["input"]))


if __name__ == "__main__":
    main()
