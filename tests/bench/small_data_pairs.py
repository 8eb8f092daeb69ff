"""Settings of training on small data, side by side on the same folds of the training photos.

    uv run python tests/bench/small_data_pairs.py PHOTOS FILE VARIANT... [--folds 0 1 2] [--seed 0]
        [--name small_data_pairs]

Each VARIANT of `small_data.py` trains on two of three folds of PHOTOS/train and is measured on the
third, by the weights of the last epoch and by their mean over the steps (`kzoo classify --ema`);
PHOTOS/val is never looked at. Per photo the folds are the same for all variants, and so are the
trained heads and the seed. Writes NAME.csv; its last rows are the means over the folds.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from record import difference, record
from small_data import FOLDS, VARIANTS, Trainer, compiled, side

from kzoo.recipes.data.augment import Batches
from kzoo.recipes.training.optimizer import EARLIEST
from kzoo.recipes.training.transfer import freeze_pretrained
from kzoo.weights.batch_norm import normalize_kernels

EMA = 0.99
EPOCHS, SIZE, SCALE = 12, 160, 0.8
MEASURES = ("validation", "validation loss", "validation loss, calibrated")


def prepared(
    trainer: Trainer, name: str, seed: int
) -> tuple[keras.Model, keras.Model, Batches, int]:
    """Return (the network of a variant, the compiled model that trains it, its training images, the
    number of epochs)."""
    how = VARIANTS[name]
    net = trainer.net(seed, SCALE, how.dropout)
    if how.normalize:
        normalize_kernels(net)
    freeze_pretrained(net, ())
    batches = Batches(
        trainer.wide, trainer.fit_targets, classes=trainer.classes, batch_size=how.batch,
        augment=how.augment, size=side(trainer.size, SCALE),
    )  # fmt: skip
    epochs = round(how.epochs * EPOCHS)
    learner = trainer.cotuned(net, seed, how.cotuning) if how.cotuning else net
    compiled(learner, how, epochs * (len(trainer.fit) // how.batch))
    return net, learner, batches, epochs


def trained(
    trainer: Trainer, whole: keras.Model, name: str, seed: int
) -> dict[str, dict[str, float]]:
    """Train once; return what the last weights and their mean reach, in the net `whole`."""
    net, learner, batches, epochs = prepared(trainer, name, seed)
    mean, step = net.get_weights(), 0
    for epoch in range(epochs):
        shuffled = batches.shuffled(seed, epoch)
        for i in range(len(shuffled.order) // batches.batch_size):  # whole ones: one shape to trace
            learner.train_on_batch(*shuffled[i])
            step += 1
            share = 1 - min(EMA, step / (EARLIEST - 1 + step))
            for kept, variable in zip(mean, net.weights, strict=True):
                if variable.trainable:
                    kept += share * (keras.ops.convert_to_numpy(variable) - kept)
    found = {}
    for what, weights in {"last epoch": net.get_weights(), f"mean {EMA}": mean}.items():
        whole.set_weights(weights)
        found[what] = trainer.measure(whole)
    return found


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over the folds of each variant and kind of weights, and its distance from
    that of the first, with the standard error over the folds."""
    kinds: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in rows:
        kinds.setdefault((row["variant"], row["weights"]), {})[row["fold"]] = row
    first, out = next(iter(kinds.values())), []
    for (variant, weights), own in kinds.items():
        shared = sorted(own.keys() & first.keys())
        row: dict[str, Any] = {"variant": variant, "fold": "mean", "weights": weights}
        for measure in MEASURES:
            row[measure] = float(np.mean([own[fold][measure] for fold in shared]))
            apart = [own[fold][measure] - first[fold][measure] for fold in shared]
            row[f"{measure}, less first"] = difference(apart)
        out.append(row | {"cpu_minutes": float(np.mean([r["cpu_minutes"] for r in own.values()]))})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("variants", nargs="+", choices=list(VARIANTS))
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="small_data_pairs", help="of the table")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for fold in given.folds:
        trainer = Trainer(given.photos, given.file, SIZE, 0, fold, tested=False)
        whole = trainer.net(given.seed)
        for name in given.variants:
            start = time.process_time()
            found = trained(trainer, whole, name, given.seed)
            cpu = (time.process_time() - start) / 60
            for weights, measured in found.items():
                row = {"variant": name, "fold": fold, "weights": weights}
                for measure in MEASURES:
                    row |= {measure: measured[measure], f"{measure}, less first": ""}
                rows.append(row | {"cpu_minutes": cpu})
            record(given.name, [*rows, *means(rows)], seed=given.seed)


if __name__ == "__main__":
    main()
