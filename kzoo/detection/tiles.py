"""A large photo in tiles: each is looked at as an image of its own, and what is found is merged."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from kzoo.arguments import is_whole, require
from kzoo.detection.boxes import nms
from kzoo.detection.detections import Detections

OVERLAP = 0.2  # of a tile's side with the next tile: what is smaller is whole in one of the two
EDGE = 0.02  # of a tile's side: a box that ends as near to a seam is taken for cut off


@dataclasses.dataclass(frozen=True)
class Tile:
    """A part of a photo, y_min, x_min, y_max, x_max in px."""

    window: tuple[int, int, int, int]  # what is looked at
    core: tuple[float, float, float, float]  # where the centres of the boxes lie that are kept

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return this part of an image (H, W, C)."""
        y0, x0, y1, x1 = self.window
        return image[y0:y1, x0:x1]

    def whole(self, found: Detections, size: tuple[int, int]) -> Detections:
        """Return what was found on the tile, boxes in [0, 1], in px of the photo of `size`.

        Without boxes whose centre another tile's core holds, and those that a seam cuts off.
        """
        low, high = np.array(self.window[:2]), np.array(self.window[2:])
        boxes = found.boxes * np.tile(high - low, 2) + np.tile(low, 2)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        own = ((centres >= self.core[:2]) & (centres < self.core[2:])).all(axis=1)
        near = EDGE * (high - low)
        cut = ((boxes[:, :2] < low + near) & (low > 0)).any(axis=1)
        cut |= ((boxes[:, 2:] > high - near) & (high < size)).any(axis=1)
        keep = own & ~cut
        return Detections(boxes[keep], found.labels[keep], found.scores[keep])


def check_tiles(tiles: Any) -> tuple[int, int]:
    """Return (rows, columns), or raise ValueError for what is no pair of whole numbers >= 1."""
    pair = isinstance(tiles, tuple | list) and len(tiles) == 2
    fits = pair and all(is_whole(n) and n >= 1 for n in tiles)
    require("tiles", tiles, fits, "(rows, columns), whole numbers >= 1, such as (2, 2)")
    return int(tiles[0]), int(tiles[1])


def tiles_of(size: tuple[int, int], tiles: tuple[int, int]) -> list[Tile]:
    """Return the (rows, columns) overlapping tiles of a photo of (height, width) px."""
    rows, columns = (along(length, n) for length, n in zip(size, tiles, strict=True))
    return [
        Tile((y0, x0, y1, x1), (cy0, cx0, cy1, cx1))
        for (y0, y1), (cy0, cy1) in rows
        for (x0, x1), (cx0, cx1) in columns
    ]


def along(length: int, n: int) -> list[tuple[tuple[int, int], tuple[float, float]]]:
    """Return (window, core) of each of n tiles along a side of the photo."""
    side = length / (n - (n - 1) * OVERLAP)
    starts = [i * side * (1 - OVERLAP) for i in range(n)]
    seams = [-np.inf, *(start + side * OVERLAP / 2 for start in starts[1:]), np.inf]
    windows = [(round(start), min(length, round(start + side))) for start in starts]
    return list(zip(windows, itertools.pairwise(seams), strict=True))


def merged(
    parts: Sequence[Detections], *, iou_threshold: float = 0.55, max_detections: int = 100,
    class_agnostic: bool = False,
) -> Detections:  # fmt: skip
    """Return what several looks at one photo found, in its px: of boxes that overlap the surest."""
    boxes = np.concatenate([part.boxes for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    scores = np.concatenate([part.scores for part in parts])
    keep: list[int] = []
    groups = np.zeros_like(labels) if class_agnostic else labels
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        keep += own[nms(boxes[own], scores[own], threshold=iou_threshold)].tolist()
    order = sorted(keep, key=lambda i: -scores[i])[:max_detections]
    return Detections(boxes[order], labels[order], scores[order])
