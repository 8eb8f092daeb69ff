"""Fine-tuning a V3-Small from a .tflite in plain Keras, by what is done about its batch norms.

    uv run python tests/bench/fine_tuning.py FILE.tflite PHOTOS [--seeds 3] [--steps 20 60]

PHOTOS has train/ and val/ with a folder per class; 40 photos a class are trained on, without
augmentation, at 128 px. A new head is fitted on frozen features; then the whole net is trained for
some steps of 32 images with Adam at 1e-4, batch norms frozen (`kzoo.freeze_batch_norm`), free after
`kzoo.recalibrate_batch_norm`, or free as loaded. Accuracy is on all photos of val/. Writes
tests/bench/results/fine_tuning.csv. A minute of CPU for 20 steps.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
from record import record

import kzoo
from kzoo.recipes.data.images import read_image

SIDE, BATCH, PER_CLASS = 128, 32, 40
WAYS = {
    "frozen": lambda model, images: kzoo.freeze_batch_norm(model),
    "recalibrated": kzoo.recalibrate_batch_norm,
    "as loaded": lambda model, images: None,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=(20, 60))
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # that the file has no statistics: it is what is measured
    train, val = photos(given.photos / "train", PER_CLASS), photos(given.photos / "val", None)
    rows: list[dict[str, Any]] = []
    for seed in range(given.seeds):
        rows += fine_tuned(given.file, train, val, seed, given.steps)
        record("fine_tuning", rows)


Photos = tuple[np.ndarray, np.ndarray]


def photos(folder: Path, count: int | None) -> Photos:
    """(images (N, 128, 128, 3), their classes), the first `count` of each class."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [file for path in classes for file in sorted(path.iterdir())[:count]]
    images = np.stack([read_image(file, SIDE) for file in files]).astype("float32")
    return images, np.array([classes.index(file.parent) for file in files])


def fine_tuned(
    file: Path, train: Photos, val: Photos, seed: int, steps: list[int]
) -> list[dict[str, Any]]:
    keras.utils.set_random_seed(seed)
    net = kzoo.MobileNetV3Small(
        input_shape=(SIDE, SIDE, 3), include_top=False, pooling="avg", weights=file
    )
    features = net.predict(train[0], verbose=0)
    layer = keras.layers.Dense(int(train[1].max()) + 1, activation="softmax")
    head = keras.Sequential([keras.Input(features.shape[1:]), layer])
    head.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    head.fit(features, train[1], epochs=30, verbose=0)
    image = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(image, layer(net(image)))
    before, first = model.get_weights(), accuracy(model, val)
    rows = []
    for way, prepare in WAYS.items():
        model.set_weights(before)
        net.trainable = False
        net.trainable = True  # of every layer again
        prepare(model, train[0])
        model.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy")
        order = np.random.default_rng(seed).permuted(np.arange(max(steps) * BATCH) % len(train[0]))
        done = 0
        for count in sorted(steps):
            chosen = order[done * BATCH : count * BATCH]
            model.fit(
                train[0][chosen], train[1][chosen], batch_size=BATCH, shuffle=False, verbose=0
            )
            done = count
            rows.append(
                {"batch norms": way, "steps": count, "accuracy": accuracy(model, val),
                 "head alone": first, "photos": len(val[0]), "run": seed}
            )  # fmt: skip
    return rows


def accuracy(model: keras.Model, photos: Photos) -> float:
    return float(np.mean(model.predict(photos[0], verbose=0).argmax(1) == photos[1]))


if __name__ == "__main__":
    main()
