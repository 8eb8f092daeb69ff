"""CPU time of a training image's augmentation: of `light`, of `strong`, and of each of its parts.

    uv run python tests/bench/augment_cost.py        (a quarter of a minute)

Drawn images of 256 px in memory, as the net sees them at 224 px, in batches of 32. Each round
measures all kinds in turn; medians over the rounds. "of light" is the median of the ratios.
"""

import statistics
import time

import numpy as np
from PIL import Image
from record import record

from kzoo.recipes.data.augment import AUGMENTS, Augment, Batches
from kzoo.recipes.data.augmentation import filters

BATCH, SIZE, SIDE, ROUNDS = 32, 224, 256, 15
STRONG = AUGMENTS["strong"]
KINDS = {
    "light": AUGMENTS["light"],
    "strong": STRONG,
    "strong, filters by Pillow alone": STRONG,
    "light with a filter": Augment(filters=STRONG.filters),
    "light with erasing": Augment(erase=STRONG.erase),
    "light with MixUp and CutMix": Augment(mixing=STRONG.mixing),
}


def drawn(rng: np.random.Generator) -> np.ndarray:
    coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype="uint8"))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def main() -> None:
    rng, has_opencv = np.random.default_rng(0), filters.OPENCV
    images = [drawn(rng) for _ in range(BATCH)]
    batches = {
        name: Batches(
            images, np.arange(BATCH) % 10, classes=10, batch_size=BATCH, augment=augment, size=SIZE
        )
        for name, augment in KINDS.items()
    }
    times: dict[str, list[float]] = {name: [] for name in KINDS}
    for epoch in range(ROUNDS):
        for name, examples in batches.items():
            filters.OPENCV = has_opencv and "Pillow" not in name
            start = time.process_time()
            examples.shuffled(0, epoch)[0]
            times[name].append(1e3 * (time.process_time() - start) / BATCH)
    light = times["light"]
    rows = [
        {
            "augmentation": name, "ms": statistics.median(taken),
            "of light": statistics.median(a / b for a, b in zip(taken, light, strict=True)),
            "n": BATCH, "rounds": ROUNDS,
        }
        for name, taken in times.items()
    ]  # fmt: skip
    record("augment_cost", rows)


if __name__ == "__main__":
    main()
