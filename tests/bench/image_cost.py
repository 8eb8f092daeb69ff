"""CPU time from a photo's file to the image that the net sees: decoded, then augmented.

    uv run python tests/bench/image_cost.py        (a minute)

Photos of .12, .3 and 12 megapixels, drawn by a seed, at 224 px (kept at 256). "step by step" is the
same augmentation with one pass over the floats for each of brightness, contrast, saturation and
the copy into the batch, as it once was; "by Pillow" is today's without OpenCV. "entropy" is what no
decoder of baseline JPEG can leave out: Pillow's draft at an eighth of each side in grey, nearly all
of it Huffman codes. Each round measures all of them in turn; medians.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from record import record

from kzoo.recipes.data import augment as augmenting
from kzoo.recipes.data.augment import Augment, warp
from kzoo.recipes.data.images import read_image

SIZE, SIDE, ROUNDS = 224, 256, 7
PHOTOS = {(400, 300): 24, (640, 480): 16, (4000, 3000): 3}  # width and height in px: how many


def draw(path: Path, shape: tuple[int, int], rng: np.random.Generator) -> Path:
    """Write a JPEG file as rough as photos are: about 2 bits a pixel."""
    width, height = shape
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype="uint8")
    smooth = np.asarray(Image.fromarray(coarse).resize(shape, Image.Resampling.BICUBIC), "float32")
    noisy = smooth + rng.normal(0, 6, smooth.shape).astype("float32")
    Image.fromarray(noisy.clip(0, 255).astype("uint8")).save(path, quality=88)
    return path


def step_by_step(
    augment: Augment, image: np.ndarray, rng: np.random.Generator, out: np.ndarray
) -> None:
    augmenting.OPENCV, own = False, augmenting.OPENCV
    moved = warp(image, SIZE, augment.place(image.shape[0], SIZE, rng)).astype("float32")
    augmenting.OPENCV = own
    brightness, contrast, saturation = rng.uniform(1 - augment.colour, 1 + augment.colour, 3)
    moved = moved * brightness
    mean = moved.mean()
    moved = (moved - mean) * contrast + mean
    grey = moved.mean(axis=-1, keepdims=True)
    out[...] = np.clip((moved - grey) * saturation + grey, 0, 255).astype("float32")


def by_pillow(
    augment: Augment, image: np.ndarray, rng: np.random.Generator, out: np.ndarray
) -> None:
    augmenting.OPENCV, own = False, augmenting.OPENCV
    augment(image, SIZE, rng, out=out)
    augmenting.OPENCV = own


def entropy(path: Path) -> None:
    with Image.open(path) as image:
        image.draft("L", (1, 1))
        image.load()


def main() -> None:
    rng, augment = np.random.default_rng(0), Augment()
    out = np.empty((32, SIZE, SIZE, 3), "float32")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for (width, height), count in PHOTOS.items():
            paths = [draw(Path(folder) / f"{width}-{i}.jpg", (width, height), rng)
                     for i in range(count)]  # fmt: skip
            images = [read_image(path, SIDE) for path in paths]
            numbered = list(enumerate(images))
            ways: dict[str, Callable[[], object]] = {
                "decode": lambda paths=paths: [read_image(path, SIDE) for path in paths],
                "entropy": lambda paths=paths: [entropy(path) for path in paths],
                "augment": lambda numbered=numbered: [
                    augment(image, SIZE, np.random.default_rng(i), out=out[i])
                    for i, image in numbered
                ],
                "augment by Pillow": lambda numbered=numbered: [
                    by_pillow(augment, image, np.random.default_rng(i), out[i])
                    for i, image in numbered
                ],
                "augment step by step": lambda numbered=numbered: [
                    step_by_step(augment, image, np.random.default_rng(i), out[i])
                    for i, image in numbered
                ],
            }
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, way in ways.items():
                    start = time.process_time()
                    way()
                    times[name].append(1e3 * (time.process_time() - start) / count)
            ms = {name: statistics.median(values) for name, values in times.items()}
            size = sum(path.stat().st_size for path in paths) / count
            ms["decode and augment"] = ms["decode"] + ms["augment"]
            ms["decode and augment by Pillow"] = ms["decode"] + ms["augment by Pillow"]
            for name, value in ms.items():
                spread = max(times.get(name, [0])) - min(times.get(name, [0]))
                rows.append({
                    "photo": f"{width}x{height}", "kb": size / 1e3, "what": name,
                    "cpu_ms": value, "spread_ms": spread, "n": count, "rounds": ROUNDS,
                })  # fmt: skip
    record("image_cost", rows)


if __name__ == "__main__":
    main()
