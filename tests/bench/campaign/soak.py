"""The same again and again: memory and open files stay as they were."""

import gc
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from campaign import runs
from campaign.cases import ANSWER, Budget, Case
from kzoo.tflite import Runner, compare, convert
from kzoo.tflite.runtime.trial import resident_mb

WARM = 5  # cycles, after which memory counts
MOST_GROWTH_MB = 0.5  # a cycle, on average


def cases(budget: Budget, *, epochs: int = 50) -> Iterator[Case]:
    """Yield what convert and compare, and then a run of many epochs, leave behind."""
    with tempfile.TemporaryDirectory() as name:
        for load, act in (("convert and compare", cycles), ("epochs of a run", one_run)):
            log, figures = Path(name, "log"), Path(name, load)
            left = max(5.0, budget.end - time.monotonic()) / 2
            count = budget.count if act is cycles else epochs
            child = runs.started(lambda: act(Path(name), figures, count, left), log=log)  # noqa: B023
            told = runs.told(log, runs.ended(child))
            if told != "answer":
                yield Case(load, str(count), told)
                continue
            n, mb, files = map(float, figures.read_text().split())
            flat = mb <= MOST_GROWTH_MB * n and files == 0
            outcome = ANSWER if flat else f"{mb:.0f} MB and {files:g} files more after {n:g}"
            yield Case(f"{load}: {n:g} times, {mb / n:+.2f} MB each, {files:+g} files", str(count),
                       outcome)  # fmt: skip


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def cycles(folder: Path, figures: Path, count: int, seconds: float) -> None:
    """Convert and compare; write (cycles, MB and open files that came to stay)."""
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype="uint8")
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 3))  # the fewest layers: what leaks does so with every file
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(x))
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))
    end, n = time.monotonic() + seconds, 0
    before: tuple[float, int] = (0.0, 0)
    while n < count and (n <= WARM + 2 or time.monotonic() < end):
        file = convert(model, folder / "a.tflite", calibration=images)
        compare(model, file, images)
        Runner(file)(images)
        n += 1
        if n % WARM == 0:  # of half a second, where every cycle would be collected
            gc.collect()
        if n == WARM:
            gc.freeze()  # what TensorFlow keeps is not looked through again
            before = resident_mb(), open_files()
    gc.collect()
    figures.write_text(f"{n - WARM} {resident_mb() - before[0]} {open_files() - before[1]}")


def one_run(folder: Path, figures: Path, epochs: int, seconds: float) -> None:
    """A run of that many epochs, measured from the fifth to the last."""
    seen: list[tuple[float, int]] = []

    class Noted(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            seen.append((resident_mb(), open_files()))

    data = runs.colours(folder / "data")
    options = {"epochs": epochs, "qat_epochs": 0, "patience": epochs}
    runs.RECIPES["classify"](
        data, out=str(folder / "run"), callbacks=lambda stage: [Noted()], **options
    )
    (first, last), n = (seen[4], seen[-1]), len(seen) - 5
    figures.write_text(f"{n} {last[0] - first[0]} {last[1] - first[1]}")
