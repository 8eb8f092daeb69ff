"""Batches of images with boxes, augmented so that the boxes stay true.

As in data/augment.py, what a model sees in an epoch is a function of seed and epoch alone.
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np

from kzoo.detection.boxes import iou
from kzoo.recipes.data.augment import Augment, Epoch, warp
from kzoo.recipes.data.box_dataset import Example
from kzoo.recipes.data.images import Images
from kzoo.sizes import Size, height_width, scaled

Objects = tuple[np.ndarray, np.ndarray]  # boxes (n, 4) yxyx in [0, 1], labels (n,)
TRIES = 40  # crops to look at for one that shows enough
OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # of the SSD paper, section 2.2


@dataclasses.dataclass(frozen=True)
class BoxAugment:
    """How far a training image is cropped, shrunk, mirrored and recoloured."""

    crop: float = 0.6  # share of images that are cropped
    smallest: float = 0.3  # a crop shows that much of each side at least
    shrink: float = 0.3  # share of images that are put on a larger grey ground
    largest: float = 2.0  # times the image's side that ground has
    flip: bool = True  # left and right
    colour: float = 0.25  # as of `Augment`

    def __call__(
        self, image: np.ndarray, objects: Objects, rng: np.random.Generator, *, out: np.ndarray
    ) -> Objects:
        """Write the image (H, W, 3) uint8 into `out`; return the objects that it shows.

        `out` is (height, width, 3) float32, in [0, 255]: a row of a batch or a part of one.
        Objects whose centre is not shown any more are gone, the others are cut at the edge.
        """
        window, sides = self.window(objects[0], rng), np.array(image.shape[:2])
        mirrored = self.flip and rng.random() < 0.5
        height, width = out.shape[:2]
        sy, sx = (window[2:] - window[:2]) * sides / [height, width]  # px of image per px
        y, x = window[:2] * sides
        across = [-sx, 0, x + sx * width] if mirrored else [sx, 0, x]
        place = np.array([across, [0, sy, y]])
        moved = warp(image, (height, width), place)
        shown = objects_in(objects, window)
        if mirrored:
            shown = shown[0][:, [0, 3, 2, 1]] * [1, -1, 1, -1] + [0, 1, 0, 1], shown[1]
        Augment(colour=self.colour).recolour(moved, rng, out=out)
        return shown

    def window(self, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The part of the image to show: (4,) yxyx, beyond [0, 1] where it is put on a ground."""
        kind = rng.random()
        if kind < self.crop:
            return self.crop_window(boxes, rng)
        if kind < self.crop + self.shrink:
            side = rng.uniform(1, self.largest)
            corner = rng.uniform(1 - side, 0, 2)
            return np.r_[corner, corner + side]
        return np.array([0.0, 0.0, 1.0, 1.0])

    def crop_window(self, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A crop that overlaps each object it shows by a drawn IoU at least: SSD, section 2.2."""
        least = rng.choice(OVERLAPS)
        for _ in range(TRIES):
            sides = rng.uniform(self.smallest, 1, 2)
            if not 0.5 <= sides[0] / sides[1] <= 2:
                continue
            corner = rng.uniform(0, 1 - sides)
            window = np.r_[corner, corner + sides]
            inside = centres_in(boxes, window)
            if not len(boxes) or (inside.any() and iou(boxes[inside], window).min() >= least):
                return window
        return np.array([0.0, 0.0, 1.0, 1.0])


SCALE_JITTER = {
    "wide": BoxAugment(),  # of the SSD paper, but for a ground of 2 in place of 4 times the side
    "mild": BoxAugment(smallest=0.5, shrink=0.15, largest=1.5),
}


def centres_in(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres > window[:2]) & (centres < window[2:])).all(axis=-1)


def objects_in(objects: Objects, window: np.ndarray) -> Objects:
    """The objects as a part of the image shows them."""
    boxes, labels = objects
    keep = centres_in(boxes, window)
    corner, sides = np.tile(window[:2], 2), np.tile(window[2:] - window[:2], 2)
    return np.clip((boxes[keep] - corner) / sides, 0, 1), labels[keep]


class BoxBatches(Epoch):
    """One epoch of (images (N, H, W, 3), {"boxes": (N, M, 4), "labels": (N, M)}), in order.

    `most` is M: what an image has more is dropped. `mosaic` is the share of training images that
    are made of four, each at half the sides.
    """

    def __init__(
        self, examples: Sequence[Example], size: Size, *, batch_size: int, most: int,
        augment: BoxAugment | None = None, mosaic: float = 0.0, margin: float = 1.0,
    ):  # fmt: skip
        super().__init__(len(examples), batch_size)
        self.examples, self.size, self.most = examples, size, most
        self.images = Images([e.path for e in examples], scaled(size, margin))
        self.augment, self.mosaic = augment, mosaic

    def closing(self) -> Self:
        """Return the same examples whole: mirrored and recoloured, not cropped, shrunk or joined.

        What the last epochs show: the net then sees objects of the size that they have.
        """
        closing = copy.copy(self)
        closing.mosaic = 0.0
        closing.augment = self.augment and dataclasses.replace(self.augment, crop=0.0, shrink=0.0)
        return closing

    def __getitem__(self, i: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        chosen, counted = self.own(i)
        images = np.empty((len(chosen), *height_width(self.size), 3), "float32")
        objects = [self.example(j, row) for j, row in zip(chosen, images, strict=True)]
        images[~counted] = 128.0  # the ground of mosaics: nothing is on it
        boxes = np.zeros((len(chosen), self.most, 4), "float32")
        labels = np.full((len(chosen), self.most), -1, "int32")
        for row in np.flatnonzero(counted):
            own, kinds = objects[row]
            n = min(len(own), self.most)
            boxes[row, :n], labels[row, :n] = own[:n], kinds[:n]
        return images, {"boxes": boxes, "labels": labels}

    def example(self, j: int, out: np.ndarray) -> Objects:
        """Write an image into `out`, (H, W, 3) float32, and return its objects."""
        own = self.examples[j]
        if self.augment is None:
            out[...] = self.images[j]
            return own.boxes, own.labels
        rng = self.rng(j)
        if rng.random() < self.mosaic:
            return self.four([j, *rng.integers(0, len(self.examples), 3)], rng, out)
        return self.augment(self.images[j], (own.boxes, own.labels), rng, out=out)

    def four(self, chosen: Sequence[int], rng: np.random.Generator, out: np.ndarray) -> Objects:
        """Write four images into one, each augmented: https://arxiv.org/abs/2004.10934."""
        assert self.augment
        height, width = out.shape[0] // 2, out.shape[1] // 2
        out[...] = 128.0  # what an odd side leaves over
        boxes, labels = [], []
        for k, j in enumerate(chosen):
            own = self.examples[j]
            top, left = height * (k // 2), width * (k % 2)
            part = out[top : top + height, left : left + width]
            found, kinds = self.augment(self.images[j], (own.boxes, own.labels), rng, out=part)
            placed = found * [height, width, height, width] + [top, left, top, left]
            boxes.append(placed / np.tile(out.shape[:2], 2))
            labels.append(kinds)
        return np.concatenate(boxes), np.concatenate(labels)
