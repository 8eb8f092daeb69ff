"""Which settings of training help on small data: the effect of many at once, in few runs.

    uv run python tests/bench/small_data_screen.py PHOTOS FILE [--pairs 12]

A run turns about half of FACTORS on. They follow a Plackett-Burman design of 12 runs and its
mirror image, so that every factor is on in half of the runs, and each other one in half of those:
its effect is the mean with it less the mean without, over all runs. A run and its mirror image are
measured on the same fold of PHOTOS/train (three folds); PHOTOS/val is never looked at.

The weights of the last epoch are measured, and means of the weights by momentum. Writes
small_data_screen.csv with the runs and small_data_effects.csv with the effects.
"""

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from record import record
from small_data import BOTH, FOLDS, NORMALIZED, Trainer, Variant, compiled, side

from kzoo.recipes.data.augment import Batches
from kzoo.recipes.training.optimizer import EARLIEST
from kzoo.recipes.training.transfer import freeze_pretrained
from kzoo.weights.batch_norm import normalize_kernels

# R. L. Plackett, J. P. Burman, "The design of optimum multifactorial experiments", 1946.
GENERATOR = "++-+++---+-"
MOMENTA = (0.0, 0.98, 0.995)
EPOCHS, SIZE, SCALE, SEED = 10, 128, 0.875, 0
FACTORS: dict[str, dict[str, Any]] = {
    "batch 16": {"batch": 16},
    "mixup and cutmix": {"mixing": BOTH},
    "filters, erasing": {"filters": 1, "erase": 0.25},
    "zoom .4": {"zoom": 0.4},
    "layers .9": {"layer_decay": 0.9},
    "rate 5e-4": {"learning_rate": 5e-4},
    "weight decay .5": {"weight_decay": 0.5},
    "smoothing 0": {"smoothing": 0.0},
    "dropout .5": {"dropout": 0.5},
    "rows 3 on, 1.35x epochs": {"still": "row3", "epochs": 1.35},
    "head of class means": {"head": "means"},
}

MEASURED: dict[Trainer, keras.Model] = {}  # nets of the full size, traced in one run for all


def design() -> list[np.ndarray]:
    """Return the runs, each (factors,) bool, a run and its mirror image in turn."""
    first = np.array([sign == "+" for sign in GENERATOR])
    runs = [np.roll(first, i) for i in range(len(first))] + [np.zeros(len(first), bool)]
    return [run for plus in runs for run in (plus, ~plus)]


def variant(on: np.ndarray) -> Variant:
    """Return the settings where these factors are on."""
    given = {k: v for name, fields in zip(FACTORS, on, strict=True) if fields
             for k, v in FACTORS[name].items()}  # fmt: skip
    augments = {field.name for field in dataclasses.fields(NORMALIZED.augment)}
    augment = {key: given.pop(key) for key in augments & given.keys()}
    return dataclasses.replace(
        NORMALIZED, augment=dataclasses.replace(NORMALIZED.augment, **augment), **given
    )


def trained(trainer: Trainer, how: Variant) -> dict[float, dict[str, float]]:
    """Train once; return what the weights reach on the fold, and their means by momentum."""
    net = trainer.net(SEED, SCALE, how.dropout, head=how.head)
    normalize_kernels(net)
    names = [layer.name.partition("_")[0] for layer in net.layers]
    still = set(names[: names.index(how.still)]) if how.still else set()
    freeze_pretrained(net, still)
    batches = Batches(
        trainer.wide, trainer.fit_targets, classes=trainer.classes, batch_size=how.batch,
        augment=how.augment, size=side(trainer.size, SCALE),
    )  # fmt: skip
    epochs = round(how.epochs * EPOCHS)
    compiled(net, how, epochs * len(batches))
    means = {momentum: net.get_weights() for momentum in MOMENTA}
    step = 0
    for epoch in range(epochs):
        shuffled = batches.shuffled(SEED, epoch)
        for i in range(len(shuffled.order) // how.batch):  # whole ones: one shape to trace
            net.train_on_batch(*shuffled[i])
            step += 1
            for momentum, mean in means.items():
                share = 1 - min(momentum, step / (EARLIEST - 1 + step))
                for kept, variable in zip(mean, net.weights, strict=True):
                    if variable.trainable and momentum:
                        kept += share * (variable.numpy() - kept)
    means[0.0] = net.get_weights()
    if trainer not in MEASURED:
        MEASURED[trainer] = trainer.net(SEED)
    whole, found = MEASURED[trainer], {}
    for momentum, mean in means.items():
        whole.set_weights(mean)
        found[momentum] = trainer.measure(whole)
    return found


def effects(rows: list[dict[str, Any]], momentum: float) -> list[dict[str, Any]]:
    """Return the effect of each factor in points of accuracy and in cross-entropy."""
    rows = [row for row in rows if row["momentum"] == momentum]
    signs = np.array([[1 if row[name] else -1 for name in FACTORS] for row in rows])
    folds = np.eye(FOLDS)[[row["fold"] for row in rows]]
    table = np.c_[folds, signs / 2]
    found = {}
    for measure in ("validation", "validation loss"):
        values = np.array([row[measure] for row in rows])
        fitted, *_ = np.linalg.lstsq(table, values)
        left = values - table @ fitted
        free = max(1, len(rows) - np.linalg.matrix_rank(table))
        error = np.sqrt(left @ left / free * np.diag(np.linalg.pinv(table.T @ table)))
        found[measure] = fitted[FOLDS:], error[FOLDS:]
    return [
        {"momentum": momentum, "factor": name, "runs": len(rows),
         **{f"{measure}{end}": float(which[i]) for measure, both in found.items()
            for end, which in zip((" effect", " standard error"), both, strict=True)}}
        for i, name in enumerate(FACTORS)
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--pairs", type=int, default=12, help="runs, with their mirror images")
    given = parser.parse_args()
    trainers: dict[int, Trainer] = {}
    rows: list[dict[str, Any]] = []
    for i, on in enumerate(design()[: 2 * given.pairs]):
        fold = i // 2 % FOLDS
        if fold not in trainers:
            trainers[fold] = Trainer(given.photos, given.file, SIZE, 0, fold, tested=False)
        start = time.process_time()
        found = trained(trainers[fold], variant(on))
        cpu = (time.process_time() - start) / 60
        switches = {name: int(value) for name, value in zip(FACTORS, on, strict=True)}
        rows += [{"fold": fold, **switches, "momentum": momentum, **measured, "cpu_minutes": cpu}
                 for momentum, measured in found.items()]  # fmt: skip
        record("small_data_screen", rows)
    record("small_data_effects", [row for m in MOMENTA for row in effects(rows, m)])


if __name__ == "__main__":
    main()
