"""Means of the weights of several trainings (model soups) on small data, on folds of the photos.

    uv run python tests/bench/small_data_soup.py PHOTOS FILE [VARIANT...] [--folds 0 1 2]
        [--trainings 3]

Each VARIANT of `small_data.py` trains several times on two of three folds of PHOTOS/train, from the
same ImageNet weights and the same trained head, with other orders and augmentations, and is
measured on the third fold; PHOTOS/val is never looked at. A row has what the
trainings reach on average and what the mean of their weights reaches. Writes small_data_soup.csv;
its last rows are means over the folds, and of the differences the standard error. Cost: 50 s of CPU
a training.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from record import difference, record
from small_data import FOLDS, Trainer
from small_data_pairs import SIZE, prepared

ACCURACY, LOSS = "validation", "validation loss, calibrated"


def trained(trainer: Trainer, name: str, number: int) -> list[np.ndarray]:
    """Return the weights after training `number` of a variant."""
    net, learner, batches, epochs = prepared(trainer, name, 0)
    for epoch in range(epochs):
        shuffled = batches.shuffled(0, number * epochs + epoch)
        for i in range(len(shuffled.order) // batches.batch_size):  # whole ones: one shape to trace
            learner.train_on_batch(*shuffled[i])
    return [np.array(weight) for weight in net.get_weights()]


def measured(trainer: Trainer, whole: keras.Model, name: str, count: int) -> dict[str, Any]:
    start = time.process_time()
    weights = [trained(trainer, name, number) for number in range(count)]
    each = []
    for values in (*weights, [np.mean(same, axis=0) for same in zip(*weights, strict=True)]):
        whole.set_weights(values)
        each.append(trainer.measure(whole))
    row: dict[str, Any] = {}
    for what in (ACCURACY, LOSS):
        *alone, mean = (found[what] for found in each)
        row |= {what: float(np.mean(alone)), f"{what}, of the mean": mean}
    return row | {"cpu_minutes": (time.process_time() - start) / 60}


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over the folds of each variant, with the gain and its standard error."""
    found = []
    for name in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == name]
        mean: dict[str, Any] = own[0] | {"fold": "mean"}
        for what in (ACCURACY, LOSS):
            alone, averaged = (
                np.array([row[key] for row in own]) for key in (what, f"{what}, of the mean")
            )
            mean |= {
                what: float(alone.mean()),
                f"{what}, of the mean": f"{averaged.mean():.4f} ({difference(averaged - alone)})",
            }
        mean["cpu_minutes"] = float(np.mean([row["cpu_minutes"] for row in own]))
        found.append(mean)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("variants", nargs="*", default=["normalized"])
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--trainings", type=int, default=3)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for fold in given.folds:
        trainer = Trainer(given.photos, given.file, SIZE, 0, fold, tested=False)
        whole = trainer.net(0)
        for name in given.variants:
            about = {"variant": name, "fold": fold, "trainings": given.trainings}
            rows.append(about | measured(trainer, whole, name, given.trainings))
            record("small_data_soup", [*rows, *means(rows)])


if __name__ == "__main__":
    main()
