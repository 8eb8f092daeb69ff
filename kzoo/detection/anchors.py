"""Anchor boxes of SSD: the published layout, or one fitted to the objects of a data set."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kzoo.arguments import is_number, require

Shape = tuple[float, float]  # (height, width), in [0, 1] of the image's height and width
FIRST, LAST = 0.2, 0.95  # published scales of the first and the last feature map
FIRSTS = tuple(round(FIRST * 2 ** (-k / 4), 4) for k in range(14))  # tried by `fit`, down to .021
RARE = 0.01  # `fit` ignores octaves of size that hold a smaller share of the objects


@dataclasses.dataclass(frozen=True)
class Anchors:
    """The anchor boxes of a detector: boxes of several shapes at each cell of each feature map.

    grids: (H, W) of the feature maps, the finest first.
    ratios: aspect ratios. Each adds a wide and a tall box to the two squares of a map, which have
        its scale and the geometric mean of its scale and the next map's.
    scales: of the first and last map, with even steps between; the scale after the last is 1. A
        scale is the square root of the box's share of the image's area.
    reduced_first: the first map has three boxes only: a square of scale .1, and those of the first
        ratio (TF Object Detection's reduce_boxes_in_lowest_layer).
    sizes: for each map a list of (height, width) in (0, 1], for example from k-means, in place of
        ratios, scales and reduced_first.
    clipped: limit sides to the image's, as torchvision does; False, as TF does, does not.
    aspect: width / height of the image, so that square anchors are square in px; 1, as in
        torchvision, makes them square in relative coordinates.

    Source: https://arxiv.org/abs/1512.02325, section 2.2; the order is torchvision's.
    Raises ValueError for `sizes` or `aspect` out of range.
    """

    grids: tuple[tuple[int, int], ...]
    ratios: tuple[float, ...] = (2.0, 3.0)
    scales: tuple[float, float] = (FIRST, LAST)
    reduced_first: bool = False
    sizes: tuple[tuple[Shape, ...], ...] | None = None
    clipped: bool = True
    aspect: float = 1.0

    def __post_init__(self) -> None:
        fits = is_number(self.aspect) and 0 < self.aspect < math.inf
        require("aspect", self.aspect, fits, "width / height of the image, a number > 0")
        if self.sizes is None:
            return
        fits = len(self.sizes) == len(self.grids) and all(
            len(shapes) and all(len(s) == 2 and 0 < min(s) <= max(s) <= 1 for s in shapes)
            for shapes in self.sizes
        )
        wanted = f"a list of (height, width) in (0, 1] for each of {len(self.grids)} maps"
        require("sizes", self.sizes, fits, wanted)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Anchors":
        """Return anchors from the dict of `dataclasses.asdict`, in which JSON made tuples lists."""
        return cls(**{key: tuples(value) for key, value in config.items()})

    @classmethod
    def fit(
        cls, boxes: np.ndarray, maps: Sequence[tuple[int, int]], *, aspect: float = 1.0
    ) -> "Anchors":
        """Return the anchors that overlap objects best, from a search over the first scale.

        boxes: (N, 4) as y_min, x_min, y_max, x_max in [0, 1], the objects of the training images.
        maps: (H, W) of the feature maps, the finest first, such as `grids` of other anchors.
        aspect: width / height of the model's input.

        Objects are grouped by size into octaves. The criterion is, summed over the octaves, the
        share of objects with an IoU of .5 or more plus the mean best IoU, so that rare sizes count
        as much as common ones. Shapes from k-means on the boxes gave objects of the most common
        size 36 anchors each and rare small ones 5 (tests/bench/results/detect_heads.csv).
        """
        boxes = np.asarray(boxes, "float64")
        require("boxes", boxes.shape, boxes.ndim == 2 and boxes.shape[1] == 4, "of shape (N, 4)")
        sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1))
        boxes, sides = boxes[sides > 0], sides[sides > 0]
        octaves = np.floor(np.log2(sides))
        common = [k for k in np.unique(octaves) if (octaves == k).mean() >= RARE]

        def reached(anchors: Anchors) -> float:
            best = anchors.best_iou(boxes)
            of_sizes = (best[octaves == k] for k in common)
            return sum((own >= 0.5).mean() + own.mean() for own in of_sizes)

        grids = tuple((int(rows), int(columns)) for rows, columns in maps)
        tried = (cls(grids, scales=(first, LAST), aspect=aspect) for first in FIRSTS)
        return max(tried, key=reached)

    def shapes(self, level: int) -> list[Shape]:
        """Return the (height, width) of the boxes at each cell of feature map `level`."""
        if self.sizes:
            return list(self.sizes[level])
        first, last = self.scales
        steps = [*np.linspace(first, last, len(self.grids)).tolist(), 1.0]
        scale, between = steps[level], math.sqrt(steps[level] * steps[level + 1])
        reduced = self.reduced_first and level == 0
        found = [(0.1, 0.1)] if reduced else [(scale, scale), (between, between)]
        for ratio in self.ratios[: 1 if reduced else None]:
            short, long = scale / math.sqrt(ratio), scale * math.sqrt(ratio)
            found += [(short, long), (long, short)]
        most, stretch = 1.0 if self.clipped else math.inf, math.sqrt(self.aspect)
        return [(min(h * stretch, most), min(w / stretch, most)) for h, w in found]

    def boxes(self) -> np.ndarray:
        """Return all anchors (A, 4), float32 yxyx in [0, 1], ordered by map, row, column, shape.

        Boxes may extend beyond the image's edge.
        """
        found = []
        for level, (rows, columns) in enumerate(self.grids):
            y = (np.arange(rows) + 0.5) / rows
            x = (np.arange(columns) + 0.5) / columns
            centres = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 1, 2)
            half = np.array(self.shapes(level)) / 2
            found.append(np.concatenate([centres - half, centres + half], axis=-1).reshape(-1, 4))
        return np.concatenate(found).astype("float32")

    def best_iou(self, boxes: np.ndarray) -> np.ndarray:
        """Return the IoU (N,) of each box (N, 4), yxyx in [0, 1], with its best anchor.

        The share of boxes with .5 or more is the best possible recall: the others are learned only
        from the one anchor that `kzoo.detection.boxes.match` assigns to them.
        """
        boxes = np.asarray(boxes, "float64").reshape(-1, 4)
        sides = (boxes[:, 2:] - boxes[:, :2])[:, None]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        best = np.zeros(len(boxes))
        for level, grid in enumerate(self.grids):
            cell = np.clip(np.floor(centres * grid), 0, np.array(grid) - 1)  # the nearest centre
            apart = np.abs((cell + 0.5) / grid - centres)[:, None]
            shapes = np.array(self.shapes(level))
            shared = (sides + shapes) / 2 - apart
            shared = np.clip(np.minimum(shared, np.minimum(sides, shapes)), 0, None).prod(axis=-1)
            union = sides.prod(axis=-1) + shapes.prod(axis=-1) - shared
            best = np.maximum(best, (shared / union).max(axis=1))
        return best


def tuples(value: Any) -> Any:
    """Return `value` with all lists, nested ones included, as tuples."""
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value
