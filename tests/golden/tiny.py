"""What the saved goldens are made of: nets of a few rows, and images of a few colours.

Images are .bmp files: a run knows its images by name and size, and .png's size is zlib's choice.
"""

import zipfile
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import kzoo
from kzoo.backbones.rows import Bneck, Conv, Head, SqueezeExcite

SIDE, COLOURS = 32, ("blue", "green", "red")
SE = SqueezeExcite(1 / 4, round=False)
CLASSIFIER = (
    Conv(3, 8, 2, "hard_swish"),
    Bneck(3, 2, 8, 2, "hard_swish", SE),
    Bneck(3, 2, 8, 1, "hard_swish", SE),
)
# To stride 32, where it expands.
DETECTOR = (Conv(3, 8, 2), *[Bneck(3, 1, 8, 2)] * 3, Bneck(3, 2, 8, 2))


def classifier(alpha: float = 1.0, **options) -> keras.Model:
    """A net with hard-swish, squeeze-excite, a residual sum and a dense layer."""
    return kzoo.build("tiny", CLASSIFIER, Head(), alpha, **options)


def images(n: int, seed: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Return noise (n, side, side, 3) uint8 with more of one colour, and which colour."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    noise = random.integers(0, 200, (n, side, side, 3))
    noise[np.arange(n), ..., 2 - labels] += random.integers(0, 55, n)[:, None, None]
    return noise.astype("uint8"), labels


def draw(folder: Path) -> Path:
    """Write a data set for `kzoo classify`: train/ and val/ of a folder a class."""
    for split, count, seed in (("train", 48, 0), ("val", 24, 1)):
        for i, (image, label) in enumerate(zip(*images(count, seed), strict=True)):
            file = folder / split / COLOURS[label] / f"{i:02d}.bmp"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    return folder


def randomized(model: keras.Model, seed: int = 0) -> keras.Model:
    """Return the model with weights that keep activations at order one."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        path, shape = weight.path, weight.shape
        if path.endswith(("gamma", "moving_variance")):
            value = random.uniform(0.6, 1.4, shape)
        elif path.endswith("kernel"):
            fan_in = np.prod(shape[:-2] if "depthwise" in path else shape[:-1])
            value = random.normal(0, (1.6 / fan_in) ** 0.5, shape)
        elif path.endswith(("beta", "moving_mean", "bias")):
            value = random.normal(0, 0.2, shape)
        else:
            continue
        weight.assign(value)
    return model


def squeeze(file: Path) -> None:
    """Deflate the members of a .keras or .npz file: Keras stores them as they are."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)
