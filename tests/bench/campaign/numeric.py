"""Data that training cannot digest: it stops with the reason, and no file is called good."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from campaign import runs
from campaign.cases import Budget, Case
from kzoo.tflite import Runner


def cases(budget: Budget, loads: tuple[str, ...] = ()) -> Iterator[Case]:
    """Yield what became of runs on odd data, by what is odd."""
    for load, (prepare, options) in list(LOADS.items())[: budget.count]:
        if loads and load not in loads:
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            prepare(folder / "data")
            yield Case(load, "classify", tried(folder, options))


def tried(folder: Path, options: dict[str, Any]) -> str:
    """Return the outcome of a run; an answer is a file whose outputs are numbers."""
    run, log = folder / "run", folder / "log"

    def act() -> None:
        runs.RECIPES["classify"](folder / "data", out=str(run), **options)

    told = runs.told(log, runs.ended(runs.started(act, log=log)))
    if told == "refused":
        left = [name for name in ("model.tflite", "results.json") if (run / name).exists()]
        return f"refused, and yet there is {left}" if left else told
    if told != "answer":
        return told

    def judge() -> None:
        images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype="uint8")
        if not np.isfinite(Runner(run / "model.tflite")(images)).all():
            raise KeyError("outputs that are no numbers")
        text = (run / "results.json").read_text(encoding="utf-8")
        figures = json.loads(text, parse_constant=lambda word: word)
        if figures["int8"]["accuracy"] > 1:
            raise KeyError(f"accuracy {figures['int8']['accuracy']}")

    return runs.told(log, runs.ended(runs.started(judge, log=log)))


def drawn(make: Callable[[int, int, int], np.ndarray], classes: int = 2, each: int = 8,
          form: str = "png") -> Callable[[Path], None]:  # fmt: skip
    """Return what writes images: make(class, number, side)."""

    def write(folder: Path) -> None:
        for k in range(classes):
            (folder / f"{k:04d}").mkdir(parents=True)
            for i in range(each):
                Image.fromarray(make(k, i, 32)).save(folder / f"{k:04d}" / f"{i}.{form}")

    return write


def noise(k: int, i: int, side: int) -> np.ndarray:
    image = np.random.default_rng((k, i)).integers(0, 120, (side, side, 3), dtype="uint8")
    image[..., k % 3] += 100
    return image


def constant(k: int, i: int, side: int) -> np.ndarray:
    return np.full((side, side, 3), 128, "uint8")


def black(k: int, i: int, side: int) -> np.ndarray:
    return np.zeros((side, side, 3), "uint8")


def infinite(k: int, i: int, side: int) -> np.ndarray:
    values = noise(k, i, side)[..., 0].astype("float32")
    values[i % side] = (np.inf, np.nan, -np.inf, 3e38)[i % 4]
    return values


LOADS: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "nan loss": (drawn(noise), {"learning_rate": 1e30}),
    "inf and nan in images": (drawn(infinite, form="tiff"), {}),
    "constant images": (drawn(constant), {}),
    "black images": (drawn(black), {}),
    "one class": (drawn(noise, classes=1), {}),
    "one image a class": (drawn(noise, classes=4, each=1), {}),
    "two images a class": (drawn(noise, classes=3, each=2), {}),
    "labels at random": (drawn(lambda k, i, side: noise(0, i + 8 * k, side)), {}),
    "1,000 classes": (drawn(noise, classes=1000, each=2), {"batch_size": 64, "epochs": 1}),
    "no epochs": (drawn(noise), {"epochs": 0, "qat_epochs": 0}),
}
