"""What each default of `kzoo detect` is worth: float mAP with one of them as it was before.

    python tests/bench/detect_defaults.py DATA --weights FILE [--variants defaults,batch_16]
        [--model mobilenet_v3_small] [--size 224] [--head-epochs 1] [--epochs 4] [--seed 0]
        [--csv detect_defaults] [--keep FOLDER]

Trains with the recipe's own stages, without int8, and adds a row for each variant to
results/detect_defaults.csv: mAP of the validation images with and without box voting, of the best
epoch, and CPU seconds of the training. FOLDER gets the models.
At 224 px and 1 + 4 epochs of V3-Small on cards it takes a minute a variant.
"""

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
from record import RESULTS, commit, machine

from kzoo.recipes.data.images import Images
from kzoo.recipes.detect import TASK, Config, image_paths
from kzoo.recipes.evaluation.box_metrics import score_boxes
from kzoo.recipes.evaluation.detect_files import load_detector
from kzoo.recipes.pipeline import planned, train_float, with_mirroring
from kzoo.recipes.task import Run
from kzoo.recipes.training.user_callbacks import checked_callbacks

VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "rate_1e-3": {"learning_rate": 1e-3},
    "rate_3e-4": {"learning_rate": 3e-4},
    "rate_1.5e-4": {"learning_rate": 1.5e-4},
    "batch_16": {"batch_size": 16},
    "smooth_l1": {"box_loss": "smooth_l1"},
    "wide": {"scale_jitter": "wide"},
    "no_mean": {"ema": 0.0},
    "not_closed": {"close": 0.0},
    "balance_0": {"balance": 0.0},
    "published": {"anchors": "published"},  # no stride-8 map either
    "mosaic": {"mosaic": 0.5},
    "before": {
        "learning_rate": 1e-3, "batch_size": 16, "box_loss": "smooth_l1", "scale_jitter": "wide",
        "ema": 0.0, "close": 0.0,
    },
}  # fmt: skip


def measured(config: Config, folder: Path) -> tuple[keras.Model, dict[str, Any]]:
    """Return a detector that is trained as `config` says, and what it reaches."""
    dataset = TASK.read_dataset(config.data, vars(config))
    config = with_mirroring(config, dataset.labels)
    keras.utils.set_random_seed(config.seed)
    model = TASK.build(config, dataset)
    run = Run(TASK, vars(config), dataset, folder, config)
    folder.mkdir()
    stages, _ = planned(run)
    begun = time.process_time()
    in_float = [one for one in stages if not one[0].quantized]
    model, _ = train_float(run, model, in_float, checked_callbacks(()))
    seconds = time.process_time() - begun
    images = Images(image_paths(dataset.val), config.size)[:]
    voted, single = (
        score_boxes(
            dataset.val, load_detector(model, box_voting=voting)(images), dataset.labels
        )
        for voting in (True, False)
    )  # fmt: skip
    classes = "; ".join(
        f"{name} {own:.3f} / {at50:.3f}" for name, (own, at50) in voted.by_class.items()
    )
    return model, {
        "map": round(voted.map, 4), "map50": round(voted.map50, 4),
        **{name: round(value, 4) for name, value in voted.by_area.items()},
        "map_without_voting": round(single.map, 4), "classes": classes, "cpu_s": round(seconds),
    }  # fmt: skip


def add_row(name: str, row: dict[str, Any]) -> None:
    """Write the rows of before and this one."""
    file = RESULTS / f"{name}.csv"
    rows: list[dict[str, Any]] = []
    if file.exists():
        with file.open(newline="") as kept:
            rows = list(csv.DictReader(kept))
    with file.open("w", newline="") as out:
        table = csv.DictWriter(out, list(row), lineterminator="\n")
        table.writeheader()
        table.writerows([*rows, row])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--model", default="mobilenet_v3_small")
    parser.add_argument("--csv", default="detect_defaults")
    parser.add_argument("--keep", type=Path)
    for name, value in (("size", 224), ("head-epochs", 1), ("epochs", 4), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    same = {name: getattr(given, name) for name in ("size", "head_epochs", "epochs", "seed")}
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    source = {
        "commit": commit(), "machine": machine(),
        "command": " ".join(["python", "tests/bench/detect_defaults.py", *words]),
    }  # fmt: skip
    for name in given.variants.split(","):
        config = Config(
            str(given.data), model=given.model, weights=given.weights, **same, **VARIANTS[name]
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            model, row = measured(config, Path(folder) / "run")
        if given.keep:
            given.keep.mkdir(parents=True, exist_ok=True)
            model.save(given.keep / f"{given.data.name}_{name}_{given.seed}.keras")
        what = {
            "data": given.data.name, "weights": Path(given.weights).stem, "variant": name,
            "size": given.size, "head_epochs": given.head_epochs, "epochs": given.epochs,
        }  # fmt: skip
        print(what | row)
        add_row(given.csv, what | row | {"seed": given.seed} | source)


if __name__ == "__main__":
    main()
