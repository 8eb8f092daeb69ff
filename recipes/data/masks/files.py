"""Mask files: reading one, and looking at what it holds."""

import dataclasses
import os
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from kzoo.recipes.data.images import opened
from kzoo.recipes.data.masks.coding import GREY, Coding, Values
from kzoo.recipes.data.masks.names import MOST_COLOURS
from kzoo.recipes.data.pixels import BadImageError, of_frames, turned

LOSSY = ("JPEG", "MPO", "AVIF", "HEIF", "JPEG2000")  # formats that blur class ids
MOST_VALUES = 4096  # of a mask; more are a photo
FLAT = 0.6  # share of neighbours in a row that are equal in a mask of many values


class BadMaskError(ValueError):
    """A file that is no usable mask; the message says why."""


@dataclasses.dataclass(frozen=True)
class MaskFile:
    """A mask in a file of its own."""

    path: Path
    coding: Coding
    orientation: int = 1  # of the image's EXIF, where the mask was drawn on it as it is stored

    @property
    def mark(self) -> bytes:
        """What tells it apart from one that was changed: name and size, as of images."""
        return os.fsencode(f"{self.path.name} {self.path.stat().st_size}")

    def read(self) -> np.ndarray:
        """Return class ids (H, W). Raises BadMaskError."""
        return self.coding(pixels_of(self.path, self.orientation, self.coding.by_colour).values)


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels of a mask file."""

    values: np.ndarray  # (H, W) int32: indices, grey values, or colours 0xRRGGBB
    colours: bool  # whether they are colours because some are not grey
    palette: dict[int, int]  # index: colour
    format: str
    mode: str
    remark: str | None  # on a file of several pages


def pixels_of(path: Path, turn: int = 1, by_colour: bool = False) -> Pixels:
    """Return the pixels of a mask file.

    by_colour: whether to read colours where there is a palette, and of grey pixels too.
    Raises BadMaskError for what is no image.
    """
    try:
        with opened(path) as image:
            stored, form, mode = image, image.format or "", image.mode
            palette = palette_of(image) if mode == "P" else {}
            image = turned(image, turn)
            if by_colour and mode == "P":
                image = image.convert("RGB")
            values, colours = plain_values(image)
            values = values * GREY if by_colour and not colours else values
            return Pixels(values, colours, palette, form, mode, of_frames(stored))
    except BadImageError as error:
        raise BadMaskError(str(error)) from None


def plain_values(image: Image.Image) -> tuple[np.ndarray, bool]:
    """Return (indices, grey values, or colours 0xRRGGBB (H, W) of any image; whether colours)."""
    if image.mode in ("P", "L", "1") or image.mode.startswith("I"):
        return np.asarray(image).astype(np.int32), False
    if image.mode == "F":
        values = np.asarray(image)
        if not np.isfinite(values).all() or (values != np.round(values)).any():
            raise BadImageError("holds fractions, but a mask must hold class ids")
        return values.clip(-1, 1 << 24).astype(np.int32), False
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        rgba = np.asarray(image.convert("RGBA")).astype(np.int32)
        alpha, rgb = rgba[..., 3], rgba[..., :3]
        if (rgb == rgb[0, 0]).all() and alpha.min() < alpha.max():
            return alpha, False  # drawn in transparency alone
        if alpha.any():  # else it is not meant
            rgb = np.where(alpha[..., None] > 0, rgb, 0)
    else:
        rgb = np.asarray(image.convert("RGB")).astype(np.int32)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    if (red == green).all() and (green == blue).all():
        return red, False
    return red << 16 | green << 8 | blue, True


def palette_of(image: Image.Image) -> dict[int, int]:
    """Return {index: colour} of an image of mode P."""
    flat = image.getpalette("RGB") or []
    triples = zip(flat[::3], flat[1::3], flat[2::3], strict=False)
    return {i: r << 16 | g << 8 | b for i, (r, g, b) in enumerate(triples)}


def look_at_mask(path: Path) -> Values:
    """Return what a mask file holds. Raises BadMaskError."""
    found = pixels_of(path)
    values = found.values
    keys, numbers = np.unique(values, return_counts=True)
    if len(keys) > MOST_VALUES:
        raise BadMaskError(f"holds {len(keys)} values: is it a photo? A mask must hold class ids")
    flat = float((values[:, 1:] == values[:, :-1]).mean())
    if len(keys) > MOST_COLOURS and flat < FLAT:
        raise BadMaskError(
            f"holds {len(keys)} values that change from pixel to pixel: is it a photo? A mask "
            "holds class ids"
        )
    counts = {int(k): int(n) for k, n in zip(keys, numbers, strict=True)}
    edges = np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])
    return Values(
        values.shape[:2],
        counts,
        Counter(edges.tolist()),
        colours=found.colours,
        palette={i: found.palette[i] for i in counts if i in found.palette},
        lossy=found.format in LOSSY,
        mode=found.mode,
        remark=found.remark,
    )
