"""Postprocessing of a detector's outputs in NumPy, the same for Keras models and .tflite files."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from kzoo.arguments import renamed
from kzoo.detection.boxes import decode, nms, vote


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one image, by descending score. Iterating gives (box, label, score)."""

    boxes: np.ndarray  # (n, 4) y_min, x_min, y_max, x_max, in [0, 1] or in px
    labels: np.ndarray  # (n,) int, the first class is 0
    scores: np.ndarray  # (n,) in [0, 1]

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int, float]]:
        for box, label, score in zip(self.boxes, self.labels, self.scores, strict=True):
            yield box, int(label), float(score)

    def __str__(self) -> str:
        rows = (
            f"class {label} {score:.0%} at {', '.join(f'{v:.4g}' for v in box)}"
            for box, label, score in self
        )
        return "\n".join(rows) or "nothing found"

    def scaled(self, height: float, width: float) -> "Detections":
        """Return a copy with boxes multiplied by the image's size: from [0, 1] to px."""
        return dataclasses.replace(self, boxes=self.boxes * [height, width, height, width])

    def above(self, score: float) -> "Detections":
        """Return the detections with at least this score."""
        keep = self.scores >= score
        return Detections(self.boxes[keep], self.labels[keep], self.scores[keep])


def softmax_scores(logits: np.ndarray) -> np.ndarray:
    """Return scores (..., classes) from logits (..., 1 + classes), background first."""
    rows = np.ascontiguousarray(np.moveaxis(logits, -1, 0))  # NumPy sums rows 5 times as fast
    powers = np.exp(rows - rows.max(axis=0))
    return np.moveaxis(powers[1:] / powers.sum(axis=0), 0, -1)


def sigmoid_scores(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "softmax": softmax_scores,
    "sigmoid": sigmoid_scores,
}


OLD_NAMES = {
    "threshold": "score_threshold",
    "overlap": "iou_threshold",
    "most": "max_detections",
    "agnostic": "class_agnostic",
}


@renamed(**OLD_NAMES)
def detections(
    outputs: Mapping[str, np.ndarray],
    anchors: np.ndarray,
    *,
    activation: str = "softmax",
    score_threshold: float = 0.01,
    iou_threshold: float = 0.55,
    max_detections: int = 100,
    candidates: int = 300,
    class_agnostic: bool = False,
    box_voting: bool = True,
) -> list[Detections]:
    """Return the objects in a detector's outputs, one `Detections` per image, boxes in [0, 1].

    outputs: {"boxes": (N, A, 4), "logits": (N, A, C)} from the model or its file, or with
        "scores" (N, A, classes) instead of the logits.
    anchors: (A, 4), `Detector.anchor_boxes`.
    activation: from logits to scores: "softmax" (background first) or "sigmoid".
    score_threshold: in [0, 1]; boxes with lower scores are dropped. Use .01 to measure mAP, .4 for
        display.
    iou_threshold: in [0, 1]; if two boxes of a class overlap by more, the one with the lower
        score is dropped (non-maximum suppression).
    max_detections: boxes to keep per image.
    candidates: boxes per class that enter suppression, those with the highest scores.
    class_agnostic: suppress across classes as well.
    box_voting: average each box with those that it suppresses, see `kzoo.detection.boxes.vote`;
        False leaves boxes as they are, as MediaPipe and TFLite_Detection_PostProcess do.

    Raises ValueError for an unknown activation and for boxes that do not match the anchors. The old
    names threshold, overlap, most and agnostic still work, with a warning.
    """
    if activation not in SCORES:
        raise ValueError(f"activation must be one of {', '.join(SCORES)}. Received: {activation!r}")
    codes = np.asarray(outputs["boxes"], "float32")
    if codes.ndim != 3 or codes.shape[1:] != anchors.shape:
        raise ValueError(
            f"boxes must be (N, {', '.join(map(str, anchors.shape))}), one code for each anchor. "
            f"Received: shape {codes.shape}"
        )
    if "scores" in outputs:
        scores = np.asarray(outputs["scores"], "float32")
    else:
        scores = SCORES[activation](np.asarray(outputs["logits"], "float32"))
    found = []
    for code, own in zip(codes, scores, strict=True):
        (near,) = np.nonzero(own.max(axis=-1) > score_threshold)  # most anchors are background
        boxes, labels, sure = select(
            decode(code[near], anchors[near]), own[near], score_threshold, iou_threshold,
            candidates, class_agnostic, box_voting,
        )  # fmt: skip
        order = np.argsort(-sure, kind="stable")[:max_detections]
        found.append(Detections(boxes[order], labels[order], sure[order]))
    return found


def select(
    boxes: np.ndarray, scores: np.ndarray, score_threshold: float, iou_threshold: float,
    candidates: int, class_agnostic: bool, box_voting: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Return (boxes (n, 4), labels (n,), scores (n,)) of one image after NMS, unsorted."""
    boxes = np.clip(boxes, 0, 1)
    columns = [scores.max(axis=-1)] if class_agnostic else list(scores.T)
    parts = []
    for label, column in enumerate(columns):
        (chosen,) = np.nonzero(column > score_threshold)
        if len(chosen) > candidates:
            chosen = chosen[np.argsort(-column[chosen], kind="stable")[:candidates]]
        own, sure = boxes[chosen], column[chosen]
        kept = nms(own, sure, threshold=iou_threshold)
        shown = vote(own, sure, kept, threshold=iou_threshold) if box_voting else own[kept]
        chosen = chosen[kept]
        labels = scores[chosen].argmax(axis=-1) if class_agnostic else np.full(len(chosen), label)
        parts.append((shown, labels, column[chosen]))
    first, second, third = (np.concatenate(part) for part in zip(*parts, strict=True))
    return first, second, third
