"""What each setting of `kzoo segment` does to thin and rare classes, in short runs.

    python tests/bench/segment_variants.py FOLDER VARIANT... [--weights FILE] [--seed 0]

160 drawn streets to train on (street_scenes.py), 60 to test on, V3-Small, 224 px, an epoch of the
head and 6 of the whole network, in float: about a minute of CPU each. No epoch is chosen, so there
is nothing to validate. `--data nuclei` takes shared/data/nuclei's layout in place of the streets,
and `--head lraspp` the other head. Adds its rows to tests/bench/results/segment_variants.csv: test
IoU, and CPU seconds of the training.
"""

import argparse
import csv
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from record import RESULTS, record
from street_scenes import draw_streets

from kzoo.recipes.data.images import read_image
from kzoo.recipes.data.mask_dataset import read_masks
from kzoo.recipes.data.masks.pairs import full_mask
from kzoo.recipes.segment import TASK, Config, Stages, assembled
from kzoo.recipes.task import Run
from kzoo.recipes.training.memory import KeepFreedMemory
from kzoo.recipes.training.stage import Stage
from kzoo.recipes.training.stages import compile_stage
from kzoo.segmentation.masks import VOID, MaskScores, mask_at

SPLITS = {"train": 160, "val": 8, "test": 60}
SIZE, HEAD_EPOCHS, EPOCHS = 224, 1, 6
BEFORE = {"batch_size": 8, "zoom": 0.5, "shrink": 0.0, "balance": False, "fine": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "before": BEFORE,
    "before, 4 a step": BEFORE | {"batch_size": 4},
    "now": {},
    "now, zoom .5": {"zoom": 0.5, "shrink": 0.0},
    "now, not balanced": {"balance": False},
    "now, coarse features": {"fine": False},
    "now, Lovasz for Dice": {"dice": 0.0, "lovasz": 1.0},
    "now, 8 a step": {"batch_size": 8},
    "now, rate 2e-3": {"learning_rate": 2e-3},
}


def fit(net: keras.Model, stage: Stage, train: Any, val: Any) -> tuple[keras.Model, list[Any]]:
    """Train a stage, without measuring its epochs."""
    compile_stage(net, stage, stage.epochs * len(train(0)))
    for epoch in range(stage.epochs):
        net.fit(
            train(epoch), initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0,
            callbacks=[KeepFreedMemory()],
        )  # fmt: skip
    return net, []


def tested(net: keras.Model, pairs: Any, classes: int) -> MaskScores:
    """Return the score at the images' own sizes, without the boundaries, which take long."""
    confusion = np.zeros((classes, classes), int)
    for pair in pairs:
        image, truth = read_image(pair.image, SIZE), full_mask(pair)
        found = mask_at(net.predict_on_batch(image[None].astype("float32"))[0], truth.shape)
        ids = truth[truth != VOID].astype(int) * classes + found[truth != VOID]
        confusion += np.bincount(ids, minlength=classes**2).reshape(classes, classes)
    return MaskScores(confusion, np.zeros(0))


def measured(variant: str, given: argparse.Namespace) -> dict[str, Any]:
    keras.utils.set_random_seed(given.seed)
    streets = given.data is None
    data = draw_streets(given.folder / "variants", SPLITS) if streets else given.data
    options = dict(VARIANTS[variant])
    fine = options.pop("fine", True)
    config = Config(
        data=str(data), model="mobilenet_v3_small", head=given.head, filters=given.filters,
        size=SIZE, weights=given.weights, head_epochs=HEAD_EPOCHS, epochs=EPOCHS, qat_epochs=0,
        seed=given.seed, **options,
    )  # fmt: skip
    dataset = read_masks(data)
    test = dataset.test or dataset.val  # no epoch is chosen by these
    dataset = dataclasses.replace(dataset, train=dataset.train[: SPLITS["train"]])
    net = assembled(config, dataset, fine=fine)
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(TASK, vars(config), dataset, Path(folder), config)
        for stage in Stages(run).all():
            if stage.stage.epochs:
                net, _ = stage.train(net, stage.stage, fit)
    seconds = round(time.process_time() - begun)
    score = tested(net, test, len(dataset.labels))
    iou = dict(zip(dataset.labels, score.iou.tolist(), strict=True))
    what = {"data": "streets" if streets else given.data.name, "head": given.head}
    return {**what, "variant": variant, "mean_iou": score.mean_iou, "train_cpu_s": seconds, **iou}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("variants", nargs="+", choices=list(VARIANTS))
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--head", default="deeplabv3+")
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for variant in given.variants:
        row = measured(variant, given)
        name = f"segment_variants_{row['data']}"
        file = RESULTS / f"{name}.csv"
        former = list(csv.DictReader(file.open())) if file.exists() else []
        record(name, [row], seed=given.seed)
        (latest,) = csv.DictReader(file.open())
        with file.open("w", newline="") as out:
            table = csv.DictWriter(out, list(latest), lineterminator="\n")
            table.writeheader()
            table.writerows([*former, latest])


if __name__ == "__main__":
    main()
