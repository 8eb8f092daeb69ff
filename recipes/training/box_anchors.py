"""Anchors for the objects of a data set, and the share of objects that they match."""

import dataclasses
from collections.abc import Sequence
from functools import partial

import numpy as np

from kzoo.detection.anchors import Anchors
from kzoo.detection.ssdlite import MakeAnchors
from kzoo.recipes.data.box_dataset import Example
from kzoo.sizes import Size, height_width, mean_side, scaled, size_text

SMALL = 0.1  # of the side: two cells of the map at stride 16; smaller objects need a finer one
FEW, MOST = 0.05, 0.5  # least share of small objects, in all or in a class, for a finer map
REACHED = 0.5  # IoU from which on an anchor is matched to an object
SIZES = (16, 32, 64, 128)  # px: bounds of the ranges of sizes in the report


def objects(examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """Return all boxes (N, 4) and their labels (N,)."""
    boxes = [np.asarray(example.boxes).reshape(-1, 4) for example in examples]
    labels = [np.asarray(example.labels, int) for example in examples]
    empty = np.zeros((0, 4)), np.zeros(0, int)
    return np.concatenate([empty[0], *boxes]), np.concatenate([empty[1], *labels])


def sides(boxes: np.ndarray) -> np.ndarray:
    """Return the square roots of the boxes' areas (N,)."""
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1))


def levels_for(examples: Sequence[Example]) -> tuple[int, ...]:
    """Return the `levels` of `kzoo.SSDLite`: with level 3 (stride 8) for small objects.

    That is, if a twentieth of all objects, or half of a class, are below a tenth of the side.
    """
    boxes, labels = objects(examples)
    small = sides(boxes) < SMALL
    of_classes = [small[labels == k].mean() for k in np.unique(labels)]
    fine = len(small) and (small.mean() >= FEW or max(of_classes) >= MOST)
    return (3, 4, 5) if fine else (4, 5)


def aspect_of(size: Size) -> float:
    """Return width / height."""
    height, width = height_width(size)
    return width / height


def fitted(examples: Sequence[Example], size: Size = 1) -> MakeAnchors:
    """Return a value for `anchors` of `kzoo.SSDLite`: fitted to the objects of these images."""
    return partial(Anchors.fit, objects(examples)[0], aspect=aspect_of(size))


@dataclasses.dataclass(frozen=True)
class Reach:
    """The share of objects with an IoU of .5 or more with an anchor: the best possible recall."""

    name: str  # of a class or a range of sizes
    count: int  # of objects
    share: float  # of the objects, in [0, 1]
    height: float  # median in px at the model's input
    width: float

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.share:.1%} of {self.count} ({self.height:.0f} x {self.width:.0f} "
            "px)"
        )


@dataclasses.dataclass(frozen=True)
class AnchorReport:
    """How well anchors match the objects of a data set at the model's input size."""

    anchors: Anchors
    size: Size  # px
    by_class: tuple[Reach, ...]
    by_size: tuple[Reach, ...]

    @property
    def unreached(self) -> tuple[Reach, ...]:
        """Classes of which most objects match no anchor."""
        return tuple(each for each in self.by_class if each.share < 0.5)

    def __str__(self) -> str:
        count = sum(each.count for each in self.by_class)
        least = (np.array(self.anchors.shapes(0)) * height_width(self.size)).min()
        lines = [
            f"{len(self.anchors.boxes())} anchors on {len(self.anchors.grids)} maps, from "
            f"{least:.0f} px on. Objects that overlap one by IoU .5 or more, of {count}:",
            f"  by class: {', '.join(map(str, self.by_class))}",
            f"  by size: {', '.join(map(str, self.by_size))}",
        ]
        larger = size_text(scaled(self.size, 2, multiple=32))
        lines += [
            f"  class {each.name!r} will hardly be learnt: no anchor fits "
            f"{1 - each.share:.0%} of its objects, {each.height:.0f} x {each.width:.0f} px at "
            f"--size {size_text(self.size)}. Try --size {larger}."
            for each in self.unreached
        ]
        return "\n".join(lines)


def anchor_report(
    anchors: Anchors, examples: Sequence[Example], labels: Sequence[str], size: Size
) -> AnchorReport:
    """Return how well `anchors` match the objects of images at an input size of `size` px."""
    boxes, kinds = objects(examples)
    reached = anchors.best_iou(boxes) >= REACHED
    pixels = (boxes[:, 2:] - boxes[:, :2]) * height_width(size)
    band = np.searchsorted(SIZES, sides(boxes) * mean_side(size), side="right")

    def reach(name: str, own: np.ndarray) -> Reach:
        height, width = np.median(pixels[own], axis=0).tolist()
        return Reach(name, int(own.sum()), float(reached[own].mean()), height, width)

    names = [f"under {SIZES[0]} px", *(f"from {least} px" for least in SIZES)]
    return AnchorReport(
        anchors, size,
        tuple(reach(labels[k], kinds == k) for k in np.unique(kinds)),
        tuple(reach(names[i], band == i) for i in np.unique(band)),
    )  # fmt: skip
