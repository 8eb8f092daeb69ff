"""What is on images, by a detector's file, in place of its raw outputs."""

from collections.abc import Callable
from typing import Any

import numpy as np

from kzoo.detection.boxes import CODE_WEIGHTS
from kzoo.detection.detections import SCORES, Detections, detections
from kzoo.tflite.metadata.reading import BoxOutputs, DetectionOutputs, read_metadata


def finding(runner: Any) -> Callable[..., list[Detections]]:
    """`finding(runner)(images)`: what is on images (N, H, W, C) of its size, boxes in [0, 1].

    A file tells its anchors in its metadata, or has TFLite_Detection_PostProcess within. Raises
    ValueError for one that does neither. Options are those of `kzoo.detections`; the operator takes
    `score_threshold` alone.
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
    """{"boxes", "scores"} by what they must be where the file calls them otherwise."""
    if set(outputs) == {"boxes", "scores"}:
        return outputs
    ((_, boxes), (_, scores)) = sorted(outputs.items(), key=lambda pair: pair[1].shape[-1] != 4)
    return {"boxes": boxes, "scores": scores}


def as_own(outputs: dict[str, np.ndarray], kind: BoxOutputs) -> dict[str, np.ndarray]:
    """Return codes as kzoo scales them, and probabilities where the file gives logits."""
    codes = outputs["boxes"] * np.array(np.divide(CODE_WEIGHTS, kind.scales), np.float32)
    scores = outputs["scores"]
    if kind.sigmoid:
        scores = SCORES["sigmoid"](scores)
    return {"boxes": codes, "scores": scores}


def four_outputs(
    outputs: dict[str, np.ndarray], kind: DetectionOutputs, *, score_threshold: float = 0.01
) -> list[Detections]:
    """What TFLite_Detection_PostProcess has found."""
    boxes, classes, scores, counts = (outputs[name] for name in kind.order)
    found = []
    for box, label, score, count in zip(boxes, classes, scores, counts.ravel(), strict=True):
        n = int(count)
        one = Detections(np.clip(box[:n], 0, 1), label[:n].astype(int), score[:n])
        found.append(one.above(score_threshold))
    return found
