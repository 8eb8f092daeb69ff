"""Drawing of boxes and masks on images, and writing of mask files."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from kzoo.detection.detections import Detections
from kzoo.files import replacing
from kzoo.recipes.data.images import Source, open_upright, read_image, upright_size
from kzoo.recipes.evaluation.box_metrics import BoxErrors
from kzoo.recipes.prediction import label_of
from kzoo.segmentation.masks import VOID

OPACITY = 0.5  # of a mask
LARGE = 480  # px of the longer side of an image with errors
ERROR_COLOURS = {
    "right": "#1b7f4b", "missed": "#b3261e", "false": "#f58231",
    "taken for another class": "#911eb4",
}  # fmt: skip
COLOURS = ("#e6194b", "#2458d3", "#f58231", "#911eb4", "#008080", "#9a6324", "#d12fb0", "#000075")


def read_upright(path: Source) -> Image.Image:
    """Return an image in its original size, rotated by its EXIF orientation."""
    return open_upright(path)[0]


def fitting(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return (H, W) of an image of `size` scaled to a longer side of `side` px."""
    height, width = (max(1, round(length * side / max(size))) for length in size)
    return height, width


def draw_boxes(
    image: Source | Image.Image, found: Detections, labels: Sequence[str] | None, side: int = 0,
    *, colour: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Return an image, uint8 (H, W, 3), with boxes (in [0, 1]), labels and scores drawn.

    side: longer side of the result in px; 0: the original size.
    colour: of all boxes; None: a colour for each class.
    """
    if not isinstance(image, Image.Image):
        image = Image.fromarray(read_image(image, fitting(upright_size(image), side)))
    elif side:
        image = image.resize(fitting((image.height, image.width), side)[::-1])
    image = image.copy()
    pen = ImageDraw.Draw(image)
    width = max(2, round(min(image.size) / 150))
    for box, label, score in reversed(list(found)):
        y0, x0, y1, x1 = box * [image.height, image.width, image.height, image.width]
        own = colour or COLOURS[label % len(COLOURS)]
        pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=own, width=width)
        text = label_of(labels, label)
        if score < 1:
            text += f" {score:.0%}"
        size = 5 * width + 2
        left, top, right, bottom = pen.textbbox((x0, max(0, y0 - size - 4)), text, font_size=size)
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=own)
        pen.text((x0, max(0, y0 - size - 4)), text, fill="white", font_size=size)
    return np.asarray(image)


def draw_errors(
    image: Source, objects: Detections, found: Detections, errors: BoxErrors,
    labels: Sequence[str],
) -> np.ndarray:  # fmt: skip
    """Return an image (H, W, 3) with correct boxes and errors, each kind in its colour.

    errors: of the detections `found` compared with the true `objects`, boxes in [0, 1].
    """
    drawn = read_upright(image)
    drawn.thumbnail((LARGE, LARGE))

    def label(detections: Detections, i: int) -> str:
        return labels[int(detections.labels[i])]

    texts = [
        ("right", found, {i: label(found, i) for i, _ in errors.right}),
        ("false", found, {i: label(found, i) for i in errors.false}),
        ("taken for another class", found,
         {i: f"{label(found, i)}, is {label(objects, j)}" for i, j in errors.confused}),
        ("missed", objects, {j: label(objects, j) for j in errors.missed}),
    ]  # fmt: skip
    for kind, source, named in texts:
        places = list(named)
        own = Detections(source.boxes[places], np.arange(len(places)), source.scores[places])
        drawn = Image.fromarray(
            draw_boxes(drawn, own, list(named.values()), colour=ERROR_COLOURS[kind])
        )
    return np.asarray(drawn)


def overlay(image: np.ndarray, mask: np.ndarray, *, clear: int | None = 0) -> np.ndarray:
    """Return an image (H, W, 3) with a mask of any size in colours, void pixels in white.

    clear: class that is not coloured, usually background; None colours all classes.
    """
    height, width = image.shape[:2]
    ids = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    colours = palette()
    share = np.where(ids == clear, 0, OPACITY)[..., None] if clear is not None else OPACITY
    return np.rint(image * (1 - share) + colours[ids] * share).astype("uint8")


@functools.cache
def palette() -> np.ndarray:
    """Return Pascal VOC's colours (256, 3), uint8."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), "uint8")
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((ids >> (3 * bit + channel) & 1) << (7 - bit)).astype("uint8")
    colours[VOID] = 224, 224, 192
    return colours


def clear_class(labels: Sequence[str]) -> int | None:
    """Return 0 if the first class is "background", which `overlay` does not colour; else None."""
    return 0 if labels and labels[0] == "background" else None


def write_mask(file: Path, mask: np.ndarray) -> None:
    """Write a palette PNG (mode P) whose pixels are class ids."""
    image = Image.fromarray(mask)
    image.putpalette(palette().tobytes())
    with replacing(file) as part:
        image.save(part, "PNG")
