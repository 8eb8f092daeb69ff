"""Accuracy in int8: float, post-training quantization, and after quantization-aware training.

    uv run python tests/bench/qat_accuracy.py RUN... [--unseen PHOTOS] [--seeds 1] [--epochs 6]

Each RUN is the folder of a `kzoo classify` run. Its float model stays as it is; a seed is a choice
of 256 calibration images, and of the order and augmentation in training. Every int8 model is
measured by the interpreter on the run's validation images, or on those to validate of PHOTOS. The
float epoch was chosen on the run's own: any other net, an int8 one too, does worse there on
average. Divergence is the mean of sum(p * log(p / q)), p of float and q of the file.
Training is the recipe's, but for the choice of the best epoch: it ends with the last one. Writes
qat_accuracy.csv; its last rows are the means over runs and seeds, and the standard deviation.
Cost: V3-Small at 224 px on 1,100 photos about 4 minutes of CPU a seed, V2 12.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from record import record

import kzoo
from kzoo.recipes.classify import MARGIN, QAT_LEARNING_RATE
from kzoo.recipes.data.augment import Augment, Batches
from kzoo.recipes.data.class_dataset import read_dataset
from kzoo.recipes.data.images import Images
from kzoo.recipes.evaluation.finished_runs import open_finished
from kzoo.recipes.training.stage import Stage
from kzoo.recipes.training.stages import compile_stage
from kzoo.sizes import scaled
from kzoo.tflite import Runner, convert
from kzoo.weights.saved_model import load_model

MEASURES = ("accuracy", "agreement", "divergence")
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--unseen", type=Path, help="data set whose images to validate are used")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=6, help="0: quantization alone")
    parser.add_argument("--usual", action="store_true", help="TensorFlow's own conversion too")
    options = parser.parse_args()
    rows: list[Row] = []
    for folder in options.runs:
        rows += measured(folder, options)
        record("qat_accuracy", [*rows, *means(rows)], seed=options.seeds - 1)


def measured(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows of a run: float, then every int8 model of every seed."""
    run = open_finished(folder)
    model, dataset, size = load_model(run.model, compile=True), run.dataset, run.size
    val = read_dataset(options.unseen).val if options.unseen else dataset.val
    images, targets = Images(val.paths, size)[:], val.targets
    exact = model.predict(images.astype("float32"), verbose=0)

    def row(weights: str, seed: int, start: float, probabilities: np.ndarray) -> Row:
        seconds = time.process_time() - start
        ratio = np.log(np.maximum(exact, 1e-9) / np.maximum(probabilities, 1e-9))
        answers = probabilities.argmax(-1)
        values = (
            float(np.mean(answers == targets)),
            float(np.mean(answers == exact.argmax(-1))),
            float((exact * ratio).sum(-1).mean()),
        )
        return {
            "run": f"{run.settings['model']}, {folder.name}", "draw": seed, "weights": weights,
            "images": len(targets), **dict(zip(MEASURES, values, strict=True)), "cpu_s": seconds,
        }  # fmt: skip

    def by_file(int8: keras.Model, **how: Any) -> np.ndarray:
        with tempfile.TemporaryDirectory() as place:
            return Runner(convert(int8, Path(place) / "model.tflite", **how))(images)

    train = Batches(
        Images(dataset.train.paths, scaled(size, MARGIN)),
        dataset.train.targets,
        classes=len(dataset.labels),
        batch_size=32,
        augment=Augment(),
        size=size,
    )
    yield row("float", 0, time.process_time(), exact)
    for seed in range(options.seeds):
        keras.utils.set_random_seed(seed)
        chosen = np.random.default_rng(seed).permutation(len(dataset.train))[:256]
        calibration = Images([dataset.train.paths[i] for i in chosen], size)[:]
        start = time.process_time()
        if options.usual:
            usual = by_file(model, calibration=calibration, calibrator="tensorflow")
            yield row("stock PTQ", seed, start, usual)
            start = time.process_time()
        int8 = kzoo.quantize(model, calibration=calibration)
        yield row("PTQ", seed, start, by_file(int8))
        if not options.epochs:
            continue
        start = time.process_time()
        stage = Stage("qat", options.epochs, QAT_LEARNING_RATE, "categorical_crossentropy")
        taught = kzoo.distill(int8, model)
        compile_stage(taught, stage, options.epochs * len(train))
        for epoch in range(options.epochs):
            taught.fit(train.shuffled(seed, epoch), shuffle=False, verbose=0)
        yield row("QAT", seed, start, by_file(int8))


def means(rows: list[Row]) -> list[Row]:
    """Return the mean of each model's weights over runs and seeds, with the standard deviation."""
    found = []
    for model, weights in dict.fromkeys((row["run"].split(",")[0], row["weights"]) for row in rows):
        own = [r for r in rows if r["weights"] == weights and r["run"].split(",")[0] == model]
        spread = {
            name: f"{np.mean([r[name] for r in own]):.4f} ± {np.std([r[name] for r in own]):.4f}"
            for name in MEASURES
        }
        whole = {"run": f"{model}, mean", "draw": f"{len(own)}", "weights": weights}
        seconds = float(np.mean([r["cpu_s"] for r in own]))
        found.append(whole | {"images": own[0]["images"], **spread, "cpu_s": seconds})
    return found


if __name__ == "__main__":
    main()
