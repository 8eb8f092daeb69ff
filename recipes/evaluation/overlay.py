"""Masks in colour: laid over their image, or as a PNG that keeps the class ids."""

import functools
from pathlib import Path

import numpy as np
from PIL import Image

from kzoo.files import replacing
from kzoo.segmentation.masks import VOID

OPACITY = 0.5


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) with a mask of any size laid over it: background clear, void white."""
    height, width = image.shape[:2]
    ids = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    colours = palette()
    share = np.where(ids == 0, 0, OPACITY)[..., None]
    return np.rint(image * (1 - share) + colours[ids] * share).astype("uint8")


@functools.cache
def palette() -> np.ndarray:
    """Pascal VOC's colours (256, 3): a bit of each channel from every third bit of the id."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), "uint8")
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((ids >> (3 * bit + channel) & 1) << (7 - bit)).astype("uint8")
    colours[VOID] = 224, 224, 192
    return colours


def write_mask(file: Path, mask: np.ndarray) -> None:
    """A PNG in mode P: class ids that a viewer shows in colours."""
    image = Image.fromarray(mask)
    image.putpalette(palette().tobytes())
    with replacing(file) as part:
        image.save(part, "PNG")
