"""What each ingredient of `kzoo classify` does, alone and with the others, in whole runs.

    uv run python tests/bench/classify_ingredients.py PHOTOS RUNS --weights FILE
        [--model mobilenet_v3_small] [--size 224] [--seeds 0 1 2] [--only INGREDIENT...]

PHOTOS has train/ and val/ with a folder per class; val/ is the test set, which chooses nothing.
"plain" trains a new head on frozen features, then the whole network at 4e-4 on plain images at full
size. Each ingredient is added to it alone; "together" are the recipe's defaults, and the last rows
add to those. int8 is calibration alone. Every run is a process of its own, in the folder
RUNS/INGREDIENT-SEED; finished ones are not repeated. Writes classify_ingredients_MODEL.csv, whose
rows with the run "mean" have the distance from the first ingredient, with its standard error over
the seeds.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from record import difference, record

PLAIN = {
    "augment": "none", "label-smoothing": "0", "learning-rate": "4e-4", "train-scale": "1",
    "no-normalize-kernels": "", "cotuning": "0",
}  # fmt: skip
LIGHT = {"augment": "light"}
SMOOTH = {"label-smoothing": "0.1"}
SMALL = {"train-scale": "0.86"}
NORMALIZED = {"no-normalize-kernels": None, "learning-rate": "1e-3"}
COTUNED = {"cotuning": "0.3"}
AVERAGE = {"ema": "0.99"}
TOGETHER = PLAIN | LIGHT | SMOOTH | SMALL | NORMALIZED | COTUNED
INGREDIENTS: dict[str, dict[str, str | None]] = {
    "plain": PLAIN,
    "light augmentation": PLAIN | LIGHT,
    "label smoothing": PLAIN | SMOOTH,
    "smaller training images": PLAIN | SMALL,
    "normalized kernels": PLAIN | NORMALIZED,
    "co-tuning": PLAIN | COTUNED,
    "average of the weights": PLAIN | AVERAGE,
    "together": TOGETHER,
    "together without co-tuning": TOGETHER | {"cotuning": "0"},
    "together, strong augmentation": TOGETHER | {"augment": "strong"},
    "together, average of the weights": TOGETHER | AVERAGE,
}
MEASURES = ("val float", "val int8", "test float", "test int8")
TIME = "cpu minutes"


def trained(words: list[str], folder: Path) -> dict[str, Any]:
    """Return what a run reached and its minutes of CPU; train it if it has not been."""
    spent = folder.with_suffix(".json")
    if not spent.exists():
        process = subprocess.Popen([*words, "--out", str(folder)])
        _, status, used = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{folder} ended with status {os.waitstatus_to_exitcode(status)}")
        spent.write_text(json.dumps({TIME: (used.ru_utime + used.ru_stime) / 60}))
    found = json.loads((folder / "results.json").read_text())
    splits = [measure.split() for measure in MEASURES]
    reached = [found[split][kind]["accuracy"] for split, kind in splits]
    return dict(zip(MEASURES, reached, strict=True)) | json.loads(spent.read_text())


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over the runs of each ingredient, and its distance from the first's."""
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        runs.setdefault(row["ingredient"], {})[row["run"]] = row
    first, out = next(iter(runs.values())), []
    for name, own in runs.items():
        row = {"ingredient": name, "run": "mean"}
        for measure in MEASURES:
            apart = [own[seed][measure] - first[seed][measure] for seed in own]
            mean = np.mean([one[measure] for one in own.values()])
            row[measure] = f"{mean:.3f} ({difference(apart, digits=3)})"
        row[TIME] = float(np.mean([one[TIME] for one in own.values()]))
        out.append(row)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--model", default="mobilenet_v3_small")
    parser.add_argument("--size", default="224")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(INGREDIENTS), default=list(INGREDIENTS))
    given = parser.parse_args()
    given.runs.mkdir(parents=True, exist_ok=True)
    command = [
        str(Path(sys.executable).with_name("kzoo")), "classify", str(given.photos / "train"),
        "--test", str(given.photos / "val"), "--model", given.model, "--weights", given.weights,
        "--size", given.size, "--qat-epochs", "0", "--quiet",
    ]  # fmt: skip
    rows: list[dict[str, Any]] = []
    for seed in given.seeds:
        for name in given.only:
            flags = {key: value for key, value in INGREDIENTS[name].items() if value is not None}
            words = [word for flag, value in flags.items() for word in (f"--{flag}", value) if word]
            folder = given.runs / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            reached = trained([*command, *words, "--seed", str(seed)], folder)
            rows.append({"ingredient": name, "run": seed} | reached)
            record(f"classify_ingredients_{given.model.removeprefix('mobilenet_')}", [
                *rows, *means(rows),
            ], seed=given.seeds[0])  # fmt: skip


if __name__ == "__main__":
    main()
