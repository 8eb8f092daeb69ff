"""The boxes that a detector starts from, published or fitted to the objects of a data set."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kzoo.arguments import is_number, require

Shape = tuple[float, float]  # (height, width), in [0, 1] of the image's
FIRST, LAST = 0.2, 0.95  # scales of the published first and last map
FIRSTS = tuple(round(FIRST * 2 ** (-k / 4), 4) for k in range(14))  # that are tried, to .021
RARE = 0.01  # share of objects below which a size does not count


@dataclasses.dataclass(frozen=True)
class Anchors:
    """The boxes that a detector starts from: some of every shape at each cell of each feature map.

    A map's boxes are squares of its scale and of the geometric mean of it and the next, and for
    each of `ratios` a wide and a high one. Scales go from `scales[0]` to `scales[1]` in even steps,
    and then to 1. With `reduced_first` the first map has three boxes: a square of scale .1, and
    those of ratio 2 (TF Object Detection's reduce_boxes_in_lowest_layer).
    Sides end at the image's, as torchvision's do, or with clipped=False at none, as TF's.
    Scales are roots of shares of the image's area. `aspect` is the image's width by its height, by
    which squares are squares in px; at 1, as torchvision has it, they are squares of shares.
    Source: https://arxiv.org/abs/1512.02325, section 2.2; the order is torchvision's.

    `sizes`, if given, says for each map which (height, width) its boxes have, in place of all that,
    from k-means on a data set's boxes, say. Raises ValueError if they make no sense.
    """

    grids: tuple[tuple[int, int], ...]  # (H, W) of the feature maps
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
        """Return the anchors that `dataclasses.asdict` made a dict of, lists for tuples too."""
        return cls(**{key: tuples(value) for key, value in config.items()})

    @classmethod
    def fit(
        cls, boxes: np.ndarray, maps: Sequence[tuple[int, int]], *, aspect: float = 1.0
    ) -> "Anchors":
        """Return the anchors that overlap objects best, from a search over the first scale.

        boxes: (N, 4) as y_min, x_min, y_max, x_max in [0, 1], the training images' objects.
        maps: (H, W) of the feature maps, the finest first, `Anchors.grids` of another one.
        aspect: width / height of the model's input.

        For objects of each size, grouped by octaves, this measures the share that overlaps an
        anchor by IoU .5 and the mean of the best IoU; all sizes have the same weight, however rare.
        Shapes from k-means on the boxes were worse: they gave objects of the most common size 36
        anchors each and rare small ones 5 (tests/bench/results/detect_heads.csv).
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
        """Return the (height, width) of the boxes at each cell of a map."""
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
        """(A, 4) float32: map by map, row by row, cell by cell. They may reach over the edge."""
        found = []
        for level, (rows, columns) in enumerate(self.grids):
            y = (np.arange(rows) + 0.5) / rows
            x = (np.arange(columns) + 0.5) / columns
            centres = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 1, 2)
            half = np.array(self.shapes(level)) / 2
            found.append(np.concatenate([centres - half, centres + half], axis=-1).reshape(-1, 4))
        return np.concatenate(found).astype("float32")

    def best_iou(self, boxes: np.ndarray) -> np.ndarray:
        """Return the IoU (N,) of each box (N, 4) with the anchor that overlaps it most.

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
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value
