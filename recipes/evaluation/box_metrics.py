"""Metrics of detections: mean average precision by pycocotools, and the errors of each image."""

import contextlib
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from kzoo.detection.boxes import iou
from kzoo.detection.detections import Detections
from kzoo.files import finite
from kzoo.recipes.data.box_dataset import Boxes, Example

# Indices in pycocotools' array of precisions (IoU, recall, class, area, max detections).
ALL, MOST = 0, 2  # any area; 100 detections per image
AREAS = {"small": 1, "medium": 2, "large": 3}
SIDES = (32, 96)  # px: square roots of the bounds of small and medium areas
IGNORED_AREA = 1e11  # px: outside all ranges, so that the object counts as neither hit nor miss
RECALLS = np.linspace(0, 1, 101)
OVERLAP = 0.5  # least IoU of a detection with its object
Pair = tuple[int, int]  # (index of a detection, index of an object)


@dataclasses.dataclass(frozen=True, eq=False)
class BoxScore:
    """Average precisions in [0, 1]; nan without objects."""

    labels: tuple[str, ...]
    map: float  # mean over IoU .5 to .95
    map50: float
    map75: float
    by_area: dict[str, float]
    by_class: dict[str, tuple[float, float]]  # (over IoU .5 to .95, at .5)
    precision: np.ndarray  # (classes, 101) at IoU .5, for recalls 0 to 1

    def __str__(self) -> str:
        areas = ", ".join(f"{key} {value:.3f}" for key, value in self.by_area.items())
        return f"mAP {self.map:.3f}, mAP50 {self.map50:.3f}, mAP75 {self.map75:.3f} ({areas})"

    def figures(self) -> dict[str, Any]:
        """Return the figures for results.json, with None for nan."""
        figures = {"map": self.map, "map50": self.map50, "map75": self.map75, **self.by_area}
        by_class = {name: list(map(finite, pair)) for name, pair in self.by_class.items()}
        return {**{name: finite(value) for name, value in figures.items()}, "by_class": by_class}


def score_boxes(
    examples: Sequence[Example], found: Sequence[Detections], labels: Sequence[str]
) -> BoxScore:
    """Return COCO's average precisions of detections, boxes in [0, 1]; areas are in image px."""
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints every step
        precision = evaluated(examples, found, labels)
    present = precision > -1  # classes without objects are -1 everywhere

    def mean(part: np.ndarray, real: np.ndarray) -> float:
        return float(part[real].mean()) if real.any() else float("nan")

    def at(iou: Any = slice(None), label: Any = slice(None), area: int = ALL) -> float:
        own = precision[iou, :, label, area, MOST], present[iou, :, label, area, MOST]
        return mean(*own)

    return BoxScore(
        tuple(labels), at(), at(0), at(5), {name: at(area=i) for name, i in AREAS.items()},
        {label: (at(label=k), at(0, k)) for k, label in enumerate(labels)},
        precision[0, :, :, ALL, MOST].T,
    )  # fmt: skip


def evaluated(
    examples: Sequence[Example], found: Sequence[Detections], labels: Sequence[str]
) -> np.ndarray:
    """Return pycocotools' precisions, -1 for classes without objects.

    Shape: (10 IoU thresholds, 101 recalls, classes, 4 areas, 3 limits of detections).
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truths: list[dict[str, Any]] = []
    guesses: list[dict[str, Any]] = []
    for i, (example, one) in enumerate(zip(examples, found, strict=True), 1):
        objects = zip(example.boxes, example.labels, example.counted, strict=True)
        crowds = ((box, label, True) for box, label in zip(*example.crowds, strict=True))
        for place, (box, label, counts) in enumerate((*objects, *crowds)):
            corner = placed(box, example.size)
            truths.append({
                "id": len(truths) + 1, "image_id": i, "category_id": int(label), "bbox": corner,
                "area": corner[2] * corner[3] if counts else IGNORED_AREA,
                "iscrowd": int(place >= len(example.labels)),
            })  # fmt: skip
        for box, label, score in one:
            guesses.append({
                "image_id": i, "category_id": label, "bbox": placed(box, example.size),
                "score": score,
            })  # fmt: skip
    truth = COCO()
    truth.dataset = {
        "info": {}, "images": [{"id": i + 1} for i in range(len(examples))],
        "annotations": truths, "categories": [{"id": k} for k in range(len(labels))],
    }  # fmt: skip
    truth.createIndex()
    if not guesses:
        counted = [t for t in truths if not t["iscrowd"] and t["area"] < IGNORED_AREA]
        present = np.isin(range(len(labels)), [int(t["category_id"]) for t in counted])
        shape = (10, len(RECALLS), len(labels), 1 + len(AREAS), 3)
        return np.broadcast_to(np.where(present, 0.0, -1.0)[:, None, None], shape)
    evaluation = COCOeval(truth, truth.loadRes(guesses), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"]


def placed(box: np.ndarray, size: tuple[int, int]) -> list[float]:
    """Return a box of [0, 1] as COCO's [x, y, width, height] in px."""
    y0, x0, y1, x1 = (float(v) for v in box * [*size, *size])
    return [x0, y0, x1 - x0, y1 - y0]


@dataclasses.dataclass(frozen=True)
class BoxErrors:
    """Correct and wrong detections of one image, by indices of detections and objects."""

    right: tuple[Pair, ...]
    confused: tuple[Pair, ...]  # detections on an object of another class
    false: tuple[int, ...]  # detections on no object, or duplicates of one with a higher score
    missed: tuple[int, ...]  # objects without a detection

    @property
    def count(self) -> int:
        return len(self.confused) + len(self.false) + len(self.missed)


def box_errors(example: Example, found: Detections) -> BoxErrors:
    """Return the correct and wrong detections of an image, boxes in [0, 1].

    In the order of scores, a detection is matched to the object of its class with the highest IoU,
    of at least .5. The remaining ones are matched to objects of other classes in the same way.
    Detections on a difficult object of their class, or half inside a crowd, are ignored.
    """
    truth = Detections(example.boxes, example.labels, np.ones(len(example.labels)))
    right = pairs(found, truth, same_class=True)
    confused = pairs(found, truth, same_class=False, taken=right)
    used = {i for i, _ in right}.union(np.flatnonzero(in_crowd(found, example.crowds)).tolist())
    counted = example.counted
    right, confused = (tuple((i, j) for i, j in some if counted[j]) for some in (right, confused))
    confused = tuple((i, j) for i, j in confused if i not in used)
    used.update(i for i, _ in confused)
    objects = {j for _, j in (*right, *confused)}
    return BoxErrors(
        right,
        confused,
        tuple(i for i in range(len(found)) if i not in used),
        tuple(j for j in range(len(truth)) if j not in objects and counted[j]),
    )


def in_crowd(found: Detections, crowds: Boxes) -> np.ndarray:
    """Return which detections (n,) lie at least half inside a crowd of their class."""
    boxes, labels = np.asarray(found.boxes)[:, None], np.asarray(found.labels)[:, None]
    sides = np.minimum(boxes[..., 2:], crowds[0][:, 2:]) - np.maximum(
        boxes[..., :2], crowds[0][:, :2]
    )
    own = (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)
    within = sides.clip(0).prod(axis=-1) >= OVERLAP * own
    return (within & (labels == crowds[1])).any(axis=1)


def pairs(
    found: Detections, truth: Detections, *, same_class: bool, taken: Sequence[Pair] = ()
) -> tuple[Pair, ...]:
    """Return (detection, object) for each detection matched to an object that is not `taken`."""
    if not len(found) or not len(truth):
        return ()
    fits = (found.labels[:, None] == truth.labels) == same_class
    overlaps = np.where(fits, iou(np.asarray(found.boxes)[:, None], np.asarray(truth.boxes)), 0.0)
    for i, j in taken:
        overlaps[i], overlaps[:, j] = 0.0, 0.0
    result = []
    for i in np.argsort(-found.scores, kind="stable").tolist():
        j = int(overlaps[i].argmax())
        if overlaps[i, j] >= OVERLAP:
            result.append((i, j))
            overlaps[:, j] = 0.0
    return tuple(result)


def agreement(first: Sequence[Detections], second: Sequence[Detections]) -> tuple[int, int, int]:
    """Return the numbers of (common detections, detections of the first, of the second).

    Common ones have the same class and an IoU of at least .5.
    """
    both = [pairs(b, a, same_class=True) for a, b in zip(first, second, strict=True)]
    return sum(map(len, both)), sum(map(len, first)), sum(map(len, second))
