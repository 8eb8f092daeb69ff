"""Detections from the outputs of a detector's file."""

from collections.abc import Callable
from typing import Any

import numpy as np

from kzoo.detection.boxes import CODE_WEIGHTS
from kzoo.detection.detections import SCORES, Detections, detections
from kzoo.tflite.metadata.reading import BoxOutputs, DetectionOutputs, read_metadata


def finding(runner: Any) -> Callable[..., list[Detections]]:
    """Return a function of images (N, H, W, C) of the input's size that returns detections.

    Their boxes are in [0, 1]. The function takes the options of `kzoo.detections`; for a file with
    TFLite_Detection_PostProcess only `score_threshold`. Raises ValueError for a file that has
    neither this operator nor anchors in its metadata.
    """
    metadata = read_metadata(runner.path)
    kind = metadata.outputs if metadata else None
    if isinstance(kind, BoxOutputs):
        return lambda images, **options: detections(
            as_own(named(runner.on_pixels(images)), kind), kind.anchors, **options
        )
    if isinstance(kind, DetectionOutputs):
        return lambda images, **options: four_outputs(runner.on_pixels(images), kind, **options)
    raise ValueError(
        f"{runner.path} has no anchors in its metadata: it is not a detector, such as "
        "kzoo.recipes.detect writes."
    )


def named(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return {"boxes", "scores"}, recognized by shape if the file has other names."""
    if set(outputs) == {"boxes", "scores"}:
        return outputs
    ((_, boxes), (_, scores)) = sorted(outputs.items(), key=lambda pair: pair[1].shape[-1] != 4)
    return {"boxes": boxes, "scores": scores}


def as_own(outputs: dict[str, np.ndarray], kind: BoxOutputs) -> dict[str, np.ndarray]:
    """Return the outputs with kzoo's scaling of encoded boxes, and probabilities for logits."""
    codes = outputs["boxes"] * np.array(np.divide(CODE_WEIGHTS, kind.scales), np.float32)
    scores = outputs["scores"]
    if kind.sigmoid:
        scores = SCORES["sigmoid"](scores)
    return {"boxes": codes, "scores": scores}


def four_outputs(
    outputs: dict[str, np.ndarray], kind: DetectionOutputs, *, score_threshold: float = 0.01
) -> list[Detections]:
    """Return detections from the outputs of TFLite_Detection_PostProcess."""
    boxes, classes, scores, counts = (outputs[name] for name in kind.order)
    found = []
    for box, label, score, count in zip(boxes, classes, scores, counts.ravel(), strict=True):
        n = int(count)
        one = Detections(np.clip(box[:n], 0, 1), label[:n].astype(int), score[:n])
        found.append(one.above(score_threshold))
    return found
