"""Tiled detection: run a detector on overlapping tiles of a large image and merge the results."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from kzoo.arguments import is_whole, require
from kzoo.detection.boxes import area, nms
from kzoo.detection.detections import Detections
from kzoo.preprocessing import stretch
from kzoo.sizes import Size, Tiles, height_width, mean_side

Find = Callable[[np.ndarray], list[Detections]]  # of images (N, H, W, 3); boxes in [0, 1]
AUTO: Final = "auto"
# Of tiles="auto", chosen by tests/bench/detect_tiles.py:
SURE = 0.4  # lowest score of detections that count
GAIN = 1.1  # least ratio of the sums of scores for which more tiles are taken
PART, LARGER = 0.7, 2.0  # share of a box within another of LARGER times its area: a part of it
MOST_ALONG = 8  # tiles along a side

OVERLAP = 0.2  # share of a tile's side: smaller objects lie whole in one of two neighbours
EDGE = 0.02  # share of a tile's side: a box that ends this near to an inner edge counts as cut off


@dataclasses.dataclass(frozen=True)
class Tile:
    """A part of an image, as y_min, x_min, y_max, x_max in px."""

    window: tuple[int, int, int, int]  # the pixels that the detector sees
    core: tuple[float, float, float, float]  # boxes with centres outside belong to other tiles

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return this part of an image (H, W, C)."""
        y0, x0, y1, x1 = self.window
        return image[y0:y1, x0:x1]

    def whole(self, found: Detections, size: tuple[int, int]) -> Detections:
        """Return the tile's detections, boxes in [0, 1], as boxes in px of the whole image.

        size: (height, width) of the image. Boxes with a centre outside `core`, and those cut off at
        an inner edge, are dropped.
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


def check_tiles(tiles: Any) -> Tiles:
    """Return `tiles`; raise ValueError unless they are "auto" or two whole numbers >= 1."""
    if isinstance(tiles, str) and tiles == AUTO:
        return AUTO
    pair = isinstance(tiles, tuple | list) and len(tiles) == 2
    fits = pair and all(is_whole(n) and n >= 1 for n in tiles)
    require("tiles", tiles, fits, '(rows, columns), whole numbers >= 1, such as (2, 2), or "auto"')
    return int(tiles[0]), int(tiles[1])


def tiles_of(size: tuple[int, int], tiles: tuple[int, int]) -> list[Tile]:
    """Return rows x columns overlapping tiles of an image of (height, width) px."""
    rows, columns = (along(length, n) for length, n in zip(size, tiles, strict=True))
    return [
        Tile((y0, x0, y1, x1), (cy0, cx0, cy1, cx1))
        for (y0, y1), (cy0, cy1) in rows
        for (x0, x1), (cx0, cx1) in columns
    ]


def along(length: int, n: int) -> list[tuple[tuple[int, int], tuple[float, float]]]:
    """Return (window, core) of each of n tiles along a side of `length` px."""
    side = length / (n - (n - 1) * OVERLAP)
    starts = [i * side * (1 - OVERLAP) for i in range(n)]
    seams = [-np.inf, *(start + side * OVERLAP / 2 for start in starts[1:]), np.inf]
    windows = [(round(start), min(length, round(start + side))) for start in starts]
    return list(zip(windows, itertools.pairwise(seams), strict=True))


def merged(
    parts: Sequence[Detections], *, iou_threshold: float = 0.55, max_detections: int = 100,
    class_agnostic: bool = False,
) -> Detections:  # fmt: skip
    """Return the detections of several passes over one image, merged by NMS; boxes in px."""
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


def detect_in_tiles(
    find: Find, image: np.ndarray, size: Size, tiles: Tiles, limits: Mapping[str, Any]
) -> Detections:
    """Return the detections in an image (H, W, 3) and its tiles, merged; boxes in px.

    find: returns the detections of each of several images of `size`, boxes in [0, 1].
    tiles: (rows, columns), or "auto" as in `detect_in_auto_tiles`.
    limits: options of `merged`.
    """
    if isinstance(tiles, str):
        return detect_in_auto_tiles(find, image, size, limits)
    looks = [(1, 1), tiles]
    return merged([one for grid in looks for one in look(find, image, size, grid)], **limits)


def look(find: Find, image: np.ndarray, size: Size, grid: tuple[int, int]) -> list[Detections]:
    """Return the detections of each of rows x columns tiles, boxes in px of the image."""
    parts, whole = tiles_of(image.shape[:2], grid), image.shape[:2]
    found = find(np.stack([stretch(part.cut(image), height_width(size)) for part in parts]))
    return [part.whole(one, whole) for part, one in zip(parts, found, strict=True)]


def detect_in_auto_tiles(
    find: Find, image: np.ndarray, size: Size, limits: Mapping[str, Any]
) -> Detections:
    """Return the detections in an image, in 2 x 2 tiles too, in 3 x 3 ..., as long as that helps.

    More tiles help if the scores of the detections in tiles, summed, are `GAIN` times those before.
    Parts of objects that are found in the whole image do not count. A tile has no fewer pixels than
    the model sees, about.
    """
    whole = look(find, image, size, (1, 1))
    (best,), known = whole, whole[0].above(SURE)
    most = float(known.scores.sum())
    along = round(mean_side(image.shape[:2]) / mean_side(size))
    for n in range(2, min(along, MOST_ALONG) + 1):
        parts = look(find, image, size, (n, n))
        total = total_score(merged(parts, **limits), known.boxes)
        if total <= GAIN * most:
            break
        best, most = merged([*whole, *parts], **limits), total
    return best


def total_score(found: Detections, known: np.ndarray) -> float:
    """Return the sum of the scores >= `SURE`, without the parts of the `known` boxes (N, 4)."""
    sure = found.above(SURE)
    if not len(sure) or not len(known):
        return float(sure.scores.sum())
    own, known = sure.boxes[:, None], known[None]
    sides = np.minimum(own[..., 2:], known[..., 2:]) - np.maximum(own[..., :2], known[..., :2])
    parts = (sides.clip(0).prod(-1) > PART * area(own)) & (area(known) > LARGER * area(own))
    return float(sure.scores[~parts.any(axis=1)].sum())
