"""How fast a GPU trains: the step alone, and the step fed with photos as the recipes feed it.

    KERAS_BACKEND=jax uv run python tests/bench/gpu_training.py [--csv FILE]     (2 minutes)
    KERAS_BACKEND=torch uv run python tests/bench/gpu_training.py

Images per second of wall time of a MobileNetV3-Large at 224 px, batch 128, Adam, in float32 and
mixed_bfloat16, of its quantized copy, and of the same float nets on JPEG files of 640 x 480 px that
are decoded and augmented by the recipes' own batches: "cached" when the decoded images are in
memory, "first epoch" when they are not. Neither TensorFlow nor LiteRT is needed.
"""

import argparse
import csv
import os
import platform
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import kzoo
from kzoo.recipes.data.augment import Augment, Batches
from kzoo.recipes.data.images import Images

CLASSES = 10


def photos(folder: Path, count: int) -> list[Path]:
    """JPEG files of noise as coarse as photos are."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        coarse = rng.integers(0, 256, (30, 40, 3), dtype="uint8")
        paths.append(folder / f"{i:05d}.jpg")
        Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def images_per_second(net: keras.Model, batches: keras.utils.PyDataset, epochs: int) -> float:
    """Of the last of some epochs."""
    seconds = 0.0
    for _ in range(epochs):
        start = time.perf_counter()
        net.fit(batches, verbose=0, shuffle=False)
        seconds = time.perf_counter() - start
    return len(batches.order) / seconds


class Fixed(Batches):
    """The same batch again and again: what is left is the step."""

    def __getitem__(self, i: int):
        if not hasattr(self, "only_batch"):
            self.only_batch = super().__getitem__(0)
        return self.only_batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--model", default="mobilenet_v3_large")
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    count, shape = given.steps * given.batch_size, (given.size, given.size, 3)
    targets = np.arange(count) % CLASSES
    options = {"classes": CLASSES, "batch_size": given.batch_size}
    rows = []

    def tell(what: str, precision: str, value: float) -> None:
        backend = keras.backend.backend()
        rows.append((backend, precision, what, round(value, 1), device(), platform.node()))
        print(f"{backend:10} {precision:14} {what:28} {value:10.1f} images/s", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        paths = photos(Path(folder), count)
        repeated = np.zeros((count, 1), "uint8")
        pixels = np.random.default_rng(0).integers(0, 256, (given.batch_size, *shape), "uint8")
        fixed = Fixed(repeated, targets, **options)
        fixed.only_batch = (
            pixels.astype("float32"),
            np.eye(CLASSES, dtype="float32")[targets[: given.batch_size]],
        )
        for precision in ("float32", "mixed_bfloat16"):
            keras.config.set_dtype_policy(precision)
            net = kzoo.get_model(given.model)(input_shape=shape, classes=CLASSES)
            keras.config.set_dtype_policy("float32")
            compiled(net)
            tell("step", precision, images_per_second(net, fixed, 3))
            decoded = Images(paths, round(given.size * 8 / 7))
            fed = Batches(decoded, targets, augment=Augment(), size=given.size, **options)
            net.fit(fixed.only(fixed.order[: given.batch_size]), verbose=0)
            tell("recipe, first epoch", precision, images_per_second(net, fed, 1))
            tell("recipe, cached", precision, images_per_second(net, fed, 1))
        net = kzoo.get_model(given.model)(input_shape=shape, classes=CLASSES)
        int8 = kzoo.quantize(net, calibration=pixels[:32])
        tell("step, quantized", "float32", images_per_second(compiled(int8), fixed, 3))
    if given.csv:
        with given.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("backend", "precision", "what", "images_per_s", "device", "machine"))
            writer.writerows(rows)


def compiled(net: keras.Model) -> keras.Model:
    net.compile("adam", "categorical_crossentropy", jit_compile=keras.backend.backend() == "jax")
    return net


def device() -> str:
    """The name of the accelerator, or of the processor."""
    if keras.backend.backend() == "jax":
        import jax

        return str(jax.devices()[0].device_kind)
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return os.environ.get("KERAS_DEVICE", "cpu")


if __name__ == "__main__":
    main()
