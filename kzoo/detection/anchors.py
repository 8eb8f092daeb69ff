"""The boxes that a detector starts from, published or fitted to the objects of a data set."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kzoo.arguments import is_whole, require

Shape = tuple[float, float]  # (height, width), in [0, 1] of the image's
CELLS = 3.5  # a map is for objects from that many of its cells on: half a cell off leaves IoU .55
FIRST, LAST = 0.2, 0.95  # scales of the published first and last map
SPREAD = (0.75, 1.0, 1.33)  # fitted shapes are fitted to objects of these sizes: augmentation zooms
ROUNDS = 30  # of k-means, which settles in fewer


@dataclasses.dataclass(frozen=True)
class Anchors:
    """The boxes that a detector starts from: some of every shape at each cell of each feature map.

    A map's boxes are squares of its scale and of the geometric mean of it and the next, and for
    each of `ratios` a wide and a high one. Scales go from `scales[0]` to `scales[1]` in even steps,
    and then to 1. With `reduced_first` the first map has three boxes: a square of scale .1, and
    those of ratio 2 (TF Object Detection's reduce_boxes_in_lowest_layer).
    Source: https://arxiv.org/abs/1512.02325, section 2.2; the order is torchvision's.

    `sizes`, if given, says for each map which (height, width) its boxes have, in place of all that:
    `Anchors.fit` makes them of the objects of a data set. Raises ValueError if they make no sense.
    """

    grids: tuple[tuple[int, int], ...]  # (H, W) of the feature maps
    ratios: tuple[float, ...] = (2.0, 3.0)
    scales: tuple[float, float] = (FIRST, LAST)
    reduced_first: bool = False
    sizes: tuple[tuple[Shape, ...], ...] | None = None

    def __post_init__(self) -> None:
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
        cls, boxes: np.ndarray, maps: Sequence[tuple[int, int]], *, per_map: int = 6
    ) -> "Anchors":
        """Return anchors whose shapes are fitted to objects: k-means by IoU, map by map.

        boxes: (N, 4) as y_min, x_min, y_max, x_max in [0, 1], the training images' objects.
        maps: (H, W) of the feature maps, the finest first, `Anchors.grids` of another one.
        per_map: how many shapes each cell has; 6 is the published number.

        A map gets the objects of `CELLS` of its cells and more, the first one all smaller ones.
        The published shapes count as one object each; a map without objects keeps them.
        """
        boxes = np.asarray(boxes, "float64")
        require("boxes", boxes.shape, boxes.ndim == 2 and boxes.shape[1] == 4, "of shape (N, 4)")
        require("per_map", per_map, is_whole(per_map) and per_map >= 1, "a whole number >= 1")
        grids = tuple((int(rows), int(columns)) for rows, columns in maps)
        starts = first_sizes(grids)
        published = cls(grids, scales=(starts[0], LAST))
        sides = boxes[:, 2:] - boxes[:, :2]
        sides = sides[(sides > 0).all(axis=1)]
        sides = (sides[:, None] * np.array(SPREAD)[:, None]).reshape(-1, 2).clip(max=1)
        level = np.searchsorted(starts[1:], np.sqrt(sides.prod(axis=1)), side="right")
        sizes = []
        for i in range(len(grids)):
            usual, own = np.array(published.shapes(i)), sides[level == i]
            weights = np.r_[np.full(len(own), 1 / len(SPREAD)), np.ones(len(usual))]
            points = np.concatenate([own, usual]) if len(own) else usual[:per_map]
            sizes.append(k_means(points, weights[-len(points) :], min(per_map, len(points))))
        return cls(grids, sizes=tuple(sizes))

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
        return [(min(height, 1.0), min(width, 1.0)) for height, width in found]

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

        The share of them from .5 on is the best possible recall: the rest have only the one anchor
        that `kzoo.detection.boxes.match` forces on them to learn from.
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


def first_sizes(grids: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the size (root of the area) from which on objects belong to each map."""
    published = np.linspace(FIRST, LAST, 6)[-len(grids) :]
    published = np.r_[np.ones(len(grids) - len(published)), published]
    cells = [CELLS / math.sqrt(rows * columns) for rows, columns in grids]
    return np.minimum.accumulate(np.minimum(published, cells)[::-1])[::-1]


def k_means(sides: np.ndarray, weights: np.ndarray, k: int) -> tuple[Shape, ...]:
    """Return the `k` (height, width) that overlap `sides` (N, 2) best, the smallest first.

    Overlap is the IoU of boxes with one centre. Begins with the shape in the middle and then, in
    turn, the one that the chosen ones overlap least, so that it is a function of `sides` alone.
    """
    chosen = sides if len(sides) == k else np.average(sides, axis=0, weights=weights)[None]
    while len(chosen) < k:
        best = centred_iou(sides, chosen).max(axis=1)
        chosen = np.concatenate([chosen, sides[[np.argmin(best)]]])
    for _ in range(ROUNDS):
        nearest = centred_iou(sides, chosen).argmax(axis=1)
        before = chosen.copy()
        for i in range(k):
            own = nearest == i
            if own.any():
                logs = np.average(np.log(sides[own]), axis=0, weights=weights[own])
                chosen[i] = np.exp(logs)
        if np.allclose(chosen, before, rtol=1e-4):
            break
    chosen = chosen[np.argsort(chosen.prod(axis=1), kind="stable")]
    return tuple((round(float(h), 4), round(float(w), 4)) for h, w in chosen.clip(1e-3, 1))


def centred_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes (N, 2) and (M, 2), height and width, that share their centre: (N, M)."""
    shared = np.minimum(a[:, None], b).prod(axis=-1)
    return shared / (a.prod(axis=-1)[:, None] + b.prod(axis=-1) - shared)
