"""Filters of one image, after RandAugment (https://arxiv.org/abs/1909.13719), and random erasing.

All are functions of an image and a random generator. Pillow and OpenCV do the work: Keras'
RandAugment layer draws from a generator of its own, so that what it does to an example depends on
those before it.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from kzoo.recipes.data.augmentation.opencv import OPENCV, cv2

Filter = Callable[[Image.Image, float], Image.Image]  # (image, strength in [0, 1]) -> image


def posterize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(4 * strength))


def solarize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.solarize(image, round(256 - 128 * strength))


def sharpen(image: Image.Image, strength: float) -> Image.Image:
    """Return the image with its distance from a smoothed one 1 to 3 times as large."""
    factor = 1 + 2 * strength
    if not OPENCV:
        return ImageEnhance.Sharpness(image).enhance(factor)
    kernel = (1 - factor) * np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], "float32") / 13  # Pillow's
    kernel[1, 1] += factor
    return Image.fromarray(cv2.filter2D(np.asarray(image), -1, kernel))


def blur(image: Image.Image, strength: float) -> Image.Image:
    """Blur by a Gaussian of up to 1 % of the side."""
    sigma = 0.01 * strength * image.width
    if not OPENCV or sigma <= 0:
        return image.filter(ImageFilter.GaussianBlur(sigma))
    blurred = cv2.GaussianBlur(np.asarray(image), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return Image.fromarray(blurred)


def compress(image: Image.Image, strength: float) -> Image.Image:
    """Return the image as JPEG shows it, at quality 80 down to 20."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=round(80 - 60 * strength))
    return Image.open(file).convert("RGB")


FILTERS: dict[str, Filter] = {
    "unchanged": lambda image, strength: image,
    "autocontrast": lambda image, strength: ImageOps.autocontrast(image),
    "equalize": lambda image, strength: ImageOps.equalize(image),
    "posterize": posterize,
    "solarize": solarize,
    "sharpen": sharpen,
    "blur": blur,
    "compress": compress,
}


def filtered(image: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return the image (H, W, 3) uint8 after `count` of the filters, drawn anew each time."""
    changed = Image.fromarray(image)
    for name in rng.choice(list(FILTERS), count):
        changed = FILTERS[name](changed, rng.uniform())
    return np.asarray(changed)


def erase(image: np.ndarray, share: float, rng: np.random.Generator) -> None:
    """Fill a rectangle of the image (H, W, 3) with noise, in place, of that share of images.

    It has 2 % to 25 % of the area and sides of 3:10 to 10:3 (https://arxiv.org/abs/1708.04896).
    """
    if rng.random() >= share:
        return
    sides = np.array(image.shape[:2])
    ratio = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)) / 2)
    box = np.sqrt(rng.uniform(0.02, 0.25)) * sides * [ratio, 1 / ratio]
    height, width = np.clip(box.round().astype(int), 1, sides)
    y, x = (rng.integers(0, sides - [height, width] + 1)).tolist()
    image[y : y + height, x : x + width] = rng.uniform(0, 255, (height, width, image.shape[2]))
