"""Conversion of boxes between kzoo, keras-cv and keras-hub; formats are those of keras.utils.

kzoo's targets are {"boxes": (N, M, 4), "labels": (N, M)}: y_min, x_min, y_max, x_max in [0, 1], and
labels of -1 to pad images with fewer than M objects. keras-cv has "classes" instead of "labels" and
pads boxes with -1 too; keras-hub has "labels".
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
    """Return kzoo's targets {"boxes", "labels"} as {"boxes", "classes"} of keras-cv, float32.

    format: of the result: "xyxy", "yxyx", "xywh", "center_xywh", "center_yxhw" in px, or
        "rel_xyxy", "rel_yxyx", "rel_xywh" in [0, 1].
    size: (H, W) of the images in px, required for the formats in px.

    Raises ValueError for a format in px without `size`.
    """
    labels = np.asarray(targets["labels"], np.float32)
    return {"boxes": placed(targets["boxes"], labels, OURS, format, size), "classes": labels}


def from_keras_cv(
    targets: Mapping[str, Any], *, format: str = "yxyx", size: tuple[int, int] | None = None
) -> Targets:
    """Return keras-cv's targets {"boxes", "classes"} as kzoo's; padded boxes become zeros.

    format, size: of the given boxes, as in `to_keras_cv`.
    """
    labels = np.asarray(targets["classes"]).astype(np.int32)
    boxes = placed(targets["boxes"], labels, format, OURS, size)
    return {"boxes": np.where(labels[..., None] < 0, 0, boxes), "labels": labels}


def to_keras_hub(
    targets: Mapping[str, Any], *, format: str = "yxyx", size: tuple[int, int] | None = None
) -> Targets:
    """Return kzoo's targets as {"boxes", "labels"} of keras-hub's RetinaNet (anchors in px)."""
    found = to_keras_cv(targets, format=format, size=size)
    return {"boxes": found["boxes"], "labels": found["classes"]}


def from_keras_hub(
    targets: Mapping[str, Any], *, format: str = "yxyx", size: tuple[int, int] | None = None
) -> Targets:
    """Return keras-hub's targets as kzoo's; arguments as in `from_keras_cv`."""
    renamed = {"boxes": targets["boxes"], "classes": targets["labels"]}
    return from_keras_cv(renamed, format=format, size=size)


def detections_to_keras_cv(
    found: Sequence[Detections], *, format: str = "yxyx", size: tuple[int, int] | None = None
) -> Targets:
    """Return detections, boxes in [0, 1], as keras-cv's predictions.

    They are {"boxes", "classes", "confidence"}, padded with -1 to the longest image.
    """
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
    """Return predictions of keras-cv or keras-hub as detections with boxes in [0, 1]."""
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
    """Return boxes (N, M, 4) in another format, -1 where the label is negative."""
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
