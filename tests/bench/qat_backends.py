"""A model quantized and trained under one backend, its file made by TensorFlow: are they the same?

    KERAS_BACKEND=torch python tests/bench/qat_backends.py train RUN OUT
    uv run python tests/bench/qat_backends.py verify RUN OUT

RUN is the folder of a `kzoo classify` run, OUT a folder for what passes from one to the other: the
trained int8 model, and what it says of the validation images on the backend it was trained on.
The second prints the audit of its file, and how often the file says the same. One epoch of a
V3-Small at 224 px on 1,100 photos: a minute under JAX, six under PyTorch (CPU of one core).
"""

import argparse
from pathlib import Path

import keras
import numpy as np

import kzoo
from kzoo.recipes.classify import MARGIN, QAT_LEARNING_RATE
from kzoo.recipes.data.augment import Augment, Batches
from kzoo.recipes.data.class_dataset import Dataset
from kzoo.recipes.data.images import Images
from kzoo.recipes.evaluation.finished_runs import read_run
from kzoo.recipes.training.stage import Stage
from kzoo.recipes.training.stages import compile_stage


def train(model: keras.Model, dataset: Dataset, size: int, out: Path, steps: int) -> None:
    """One epoch, or its first `steps`."""
    keras.utils.set_random_seed(0)
    calibration = Images(dataset.train.paths[:: len(dataset.train) // 128], size)[:]
    int8 = kzoo.quantize(model, calibration=calibration)
    paths, targets = dataset.train.paths, dataset.train.targets
    batches = Batches(
        Images(paths, round(size * MARGIN)), targets, classes=len(dataset.labels),
        batch_size=32, augment=Augment(), size=size,
    ).shuffled(0, 0)  # fmt: skip
    batches.order = batches.order[: steps * batches.batch_size]
    stage = Stage("qat", 1, QAT_LEARNING_RATE, "categorical_crossentropy")
    taught = kzoo.distill(int8, model)
    compile_stage(taught, stage, len(batches))
    taught.fit(batches, shuffle=False, verbose=2)
    out.mkdir(parents=True, exist_ok=True)
    int8.save(out / "int8.keras")
    images = Images(dataset.val.paths, size)[:]
    np.save(out / "scores.npy", int8.predict(images.astype("float32"), verbose=0))
    print(f"trained under {keras.backend.backend()}: {out / 'int8.keras'}")


def verify(dataset: Dataset, size: int, out: Path) -> None:
    from kzoo.tflite import Runner, audit, convert

    file = convert(out / "int8.keras", out / "int8.tflite")
    print(audit(file))
    said, scores = Runner(file)(Images(dataset.val.paths, size)[:]), np.load(out / "scores.npy")
    for name, answers in (("Keras", scores), ("file", said)):
        print(f"accuracy of the {name}: {np.mean(answers.argmax(-1) == dataset.val.targets):.4f}")
    print(f"agreement: {np.mean(said.argmax(-1) == scores.argmax(-1)):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "verify"))
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1000, help="at most so many")
    options = parser.parse_args()
    model, dataset, size = read_run(options.run)
    if options.what == "train":
        train(model, dataset, size, options.out, options.steps)
    else:
        verify(dataset, size, options.out)


if __name__ == "__main__":
    main()
