"""Boxes as kzoo, keras-cv and keras-hub have them: the formats are those of keras.utils.

kzoo's targets are {"boxes": (N, M, 4), "labels": (N, M)}, y_min, x_min, y_max, x_max in [0, 1],
labels -1 where an image has fewer than M objects. keras-cv says "classes" for labels and has
boxes and classes of -1 there, keras-hub says "labels".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kzoo.detection.detections import Detections

OURS = "rel_yxyx"
Targets = dict[str, np.ndarray]


def to_keras_cv(
    targets: Mapping[str, Any], *, format: str = "yxyx", size: tuple[int, int] | None = None
) -> Targets:
    """Targets {"boxes", "labels"} as {"boxes", "classes"} of keras-cv, float32.

    format: any of keras-cv's: "xyxy", "yxyx", "xywh", "center_xywh", "center_yxhw" in px, or
        "rel_xyxy", "rel_yxyx", "rel_xywh".
    size: (H, W) of the images in px, for the formats in px.
    """
    labels = np.asarray(targets["labels"], np.float32)
    return {"boxes": placed(targets["boxes"], labels, OURS, format, size), "classes": labels}


def from_keras_cv(
    targets: Mapping[str, Any], *, format: str = "yxyx", size: tuple[int, int] | None = None
) -> Targets:
    """The way back. Padded boxes become zeros."""
    labels = np.asarray(targets["classes"]).astype(np.int32)
    boxes = placed(targets["boxes"], labels, format, OURS, size)
    return {"boxes": np.where(labels[..., None] < 0, 0, boxes), "labels": labels}


def to_keras_hub(
    targets: Mapping[str, Any], *, format: str = "yxyx", size: tuple[int, int] | None = None
) -> Targets:
    """Targets as keras-hub's RetinaNet has them, whose anchors are in px: {"boxes", "labels"}."""
    found = to_keras_cv(targets, format=format, size=size)
    return {"boxes": found["boxes"], "labels": found["classes"]}


def from_keras_hub(
    targets: Mapping[str, Any], *, format: str = "yxyx", size: tuple[int, int] | None = None
) -> Targets:
    """The way back."""
    renamed = {"boxes": targets["boxes"], "classes": targets["labels"]}
    return from_keras_cv(renamed, format=format, size=size)


def detections_to_keras_cv(
    found: Sequence[Detections], *, format: str = "yxyx", size: tuple[int, int] | None = None
) -> Targets:
    """What kzoo found, boxes in [0, 1], as keras-cv's predictions: {"boxes", "classes",
    "confidence"}, as long as the longest, padded with -1."""
    most = max((len(one) for one in found), default=0)

    def padded(rows: np.ndarray) -> np.ndarray:
        missing = [(0, most - len(rows))] + [(0, 0)] * (rows.ndim - 1)
        return np.pad(rows.astype(np.float32), missing, constant_values=-1)

    names = ("boxes", "labels", "scores")
    boxes, labels, scores = (np.stack([padded(getattr(o, n)) for o in found]) for n in names)
    result = to_keras_cv({"boxes": boxes, "labels": labels}, format=format, size=size)
    return result | {"confidence": scores}


def detections_from_keras_cv(
    predictions: Mapping[str, Any], *, format: str = "yxyx", size: tuple[int, int] | None = None
) -> list[Detections]:
    """What keras-cv's or keras-hub's `predict` gave, as kzoo has it: boxes in [0, 1]."""
    classes = predictions["classes" if "classes" in predictions else "labels"]
    classes = np.asarray(classes).astype(np.int32)
    boxes = placed(predictions["boxes"], classes, format, OURS, size)
    scores = np.asarray(predictions["confidence"])
    return [
        Detections(b[c >= 0], c[c >= 0], s[c >= 0])
        for b, c, s in zip(boxes, classes, scores, strict=True)
    ]


def placed(
    boxes: Any, labels: np.ndarray, source: str, target: str, size: tuple[int, int] | None
) -> np.ndarray:
    """Boxes (N, M, 4) in another format, -1 where there is no object."""
    for name in (source, target):
        if size is None and not name.startswith("rel_"):
            raise ValueError(
                f'Boxes in the format "{name}" are in px: say of which images, size=(H, W). '
                "Received: size=None"
            )
    height, width = size or (1, 1)
    moved = keras.utils.bounding_boxes.convert_format(
        np.asarray(boxes, np.float32), source=source, target=target, height=height, width=width
    )
    moved = keras.ops.convert_to_numpy(moved)
    return np.where(labels[..., None] < 0, np.float32(-1), moved)
