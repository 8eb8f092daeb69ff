"""What wrong labels cost a classifier, and how many of them its report finds.

    uv run python tests/bench/label_noise.py CLOTHING WEIGHTS RUNS [--shares 0 .1] [--seeds 0]

CLOTHING has train/ and val/ with a folder of photos for each class. A fifth of train/ validates,
val/ is the test set. Of the photos of train/, a share is given the label of another class, drawn
evenly; those of val/ keep theirs. Each share and seed is one run of `kzoo classify` in the folder
RUNS, on a CSV, in float. Of the validation photos, which the net was not trained on, the report
names likely label errors: "precision" is the share of them that are wrong labels, "recall" the
share of the wrong labels that it names. Writes tests/bench/results/label_noise.csv.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
from record import record

from kzoo.recipes import classify
from kzoo.recipes.data.images import Images
from kzoo.recipes.evaluation.classification.class_details import likely_label_errors
from kzoo.recipes.prediction import open_model

VALIDATION = 5  # every fifth photo


def write_table(clothing: Path, file: Path, share: float, seed: int) -> list[tuple[Path, str, str]]:
    """Write a CSV of photos, labels and splits; return the validating (file, told, true)."""
    rng = np.random.default_rng((17, seed))
    paths = sorted((clothing / "train").glob("*/*.jpg"))
    classes = sorted({path.parent.name for path in paths})
    wrong = set(rng.permutation(len(paths))[: round(share * len(paths))].tolist())
    validation = set(rng.permutation(len(paths))[::VALIDATION].tolist())
    kept = []
    with file.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["file", "label", "split"])
        for i, path in enumerate(paths):
            true = path.parent.name
            others = [name for name in classes if name != true]
            told = others[rng.integers(len(others))] if i in wrong else true
            table.writerow([path, told, "val" if i in validation else "train"])
            if i in validation:
                kept.append((path, told, true))
    return kept


def measured(given: argparse.Namespace, share: float, seed: int) -> dict[str, Any]:
    out = given.runs / f"noise-{share:g}-{seed}"
    out.mkdir(parents=True, exist_ok=True)
    photos = write_table(given.clothing, out / "labels.csv", share, seed)
    found = classify(
        out / "labels.csv", test=str(given.clothing / "val"), model="mobilenet_v3_small",
        weights=str(given.weights), size=given.size, epochs=given.epochs, qat_epochs=0, seed=seed,
        out=str(out / "run"), quiet=True,
    )  # fmt: skip
    labels = (out / "run" / "labels.txt").read_text(encoding="utf-8").split("\n")
    told, true = (np.array([labels.index(row[i]) for row in photos]) for i in (1, 2))
    images = Images([path for path, *_ in photos], given.size)[:]
    scores = open_model(out / "run" / "model.keras")(images)
    named, wrong = likely_label_errors(scores, told), np.flatnonzero(told != true)
    right = np.intersect1d(named, wrong)
    return {
        "share": share, "run": seed, "size": given.size, "epochs": given.epochs,
        "validation, labels as given": float(np.mean(scores.argmax(1) == told)),
        "validation, true labels": float(np.mean(scores.argmax(1) == true)),
        "test": found.test["float"]["accuracy"],
        "validation photos": len(photos), "wrong labels": len(wrong), "named": len(named),
        "precision": len(right) / len(named) if len(named) else "",
        "recall": len(right) / len(wrong) if len(wrong) else "",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clothing", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    rows = []
    for seed in given.seeds:
        for share in given.shares:
            rows.append(measured(given, share, seed))
            record("label_noise", rows)


if __name__ == "__main__":
    main()
