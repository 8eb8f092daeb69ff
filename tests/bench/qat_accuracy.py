"""Accuracy in int8: float, the usual conversion, kzoo's post-training int8, and after training.

    uv run python tests/bench/qat_accuracy.py RUN [--unseen PHOTOS] [--seeds 3] [--epochs 6]

RUN is the folder of a `kzoo classify` run. Its float model stays as it is; a seed is a choice of
256 calibration images, and of the order and augmentation in training. Every int8 model is
measured by the interpreter on the run's validation images, or on those to validate of PHOTOS. The
float epoch was chosen on the run's own: any other net, an int8 one too, does worse there on
average. Divergence is the mean of sum(p * log(p / q)), p of float and q of the file.
Training is the recipe's, but for the choice of the best epoch: it ends with the last one. Cost:
V3-Small at 224 px on 1,100 photos about 5 minutes of CPU a seed, V2 15.
"""

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np

import kzoo
from kzoo.recipes.classify import MARGIN, QAT_LEARNING_RATE
from kzoo.recipes.data.augment import Augment, Batches
from kzoo.recipes.data.class_dataset import read_dataset
from kzoo.recipes.data.images import Images
from kzoo.recipes.evaluation.finished_runs import open_finished
from kzoo.recipes.training.stage import Stage
from kzoo.recipes.training.stages import compile_stage
from kzoo.tflite import Runner, convert
from kzoo.weights.saved_model import load_model

Row = tuple[float, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--unseen", type=Path, help="data set whose images to validate are used")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6, help="0: quantization alone")
    parser.add_argument("--rate", type=float, default=QAT_LEARNING_RATE)
    parser.add_argument("--probabilities", action="store_true", help="teach by these alone")
    parser.add_argument("--usual", action="store_true", help="TensorFlow's own conversion too")
    options = parser.parse_args()
    run = open_finished(options.run)
    model, dataset, size = load_model(run.model, compile=True), run.dataset, run.size
    val = read_dataset(options.unseen).val if options.unseen else dataset.val
    images, targets = Images(val.paths, size)[:], val.targets
    exact = model.predict(images.astype("float32"), verbose=0)
    train = Batches(
        Images(dataset.train.paths, round(size * MARGIN)),
        dataset.train.targets,
        classes=len(dataset.labels),
        batch_size=32,
        augment=Augment(),
        size=size,
    )
    rows: dict[str, list[Row]] = {}

    def measure(name: str, int8: keras.Model, **options) -> None:
        with tempfile.TemporaryDirectory() as place:
            try:
                by_file = Runner(convert(int8, Path(place) / "model.tflite", **options))(images)
            except ValueError as error:
                print(f"  {name:12} {error}", flush=True)
                return
        simulated = int8.predict(images.astype("float32"), verbose=0)
        answers = [scores.argmax(-1) for scores in (by_file, exact, simulated)]
        alike = [float(np.mean(answers[0] == other)) for other in (targets, *answers[1:])]
        ratio = np.log(np.maximum(exact, 1e-9) / np.maximum(by_file, 1e-9))
        row = (*alike, float((exact * ratio).sum(-1).mean()))
        rows.setdefault(name, []).append(row)
        print(f"  {name:12} " + " ".join(f"{value:.4f}" for value in row), flush=True)

    print(f"float {np.mean(exact.argmax(-1) == targets):.4f} on {len(targets)} images")
    for seed in range(options.seeds):
        print(f"seed {seed}: accuracy, agreement with float, its own Keras model; divergence")
        keras.utils.set_random_seed(seed)
        chosen = np.random.default_rng(seed).permutation(len(dataset.train))[:256]
        calibration = Images([dataset.train.paths[i] for i in chosen], size)[:]
        if options.usual:
            measure("usual PTQ", model, calibration=calibration, calibrator="tensorflow")
        int8 = kzoo.quantize(model, calibration=calibration)
        measure("kzoo PTQ", int8)
        if not options.epochs:
            continue
        stage = Stage("qat", options.epochs, options.rate, "categorical_crossentropy")
        alone = {"loss": "categorical_crossentropy", "layers": ()}
        taught = kzoo.distill(int8, model, **(alone if options.probabilities else {}))
        compile_stage(taught, stage, options.epochs * len(train))
        for epoch in range(options.epochs):
            taught.fit(train.shuffled(seed, epoch), shuffle=False, verbose=0)
        measure("kzoo QAT", int8)
    for name, found in rows.items():
        mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
        cells = "  ".join(f"{m:.4f} +- {s:.4f}" for m, s in zip(mean, spread, strict=True))
        print(f"{name:12} {cells}")


if __name__ == "__main__":
    main()
