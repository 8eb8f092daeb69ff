"""Losses of a detector: of its classes and of its boxes."""

import dataclasses
from collections.abc import Callable
from typing import Any

from keras import ops

from kzoo.detection.boxes import ciou, decode, diou, encode, giou

NEGATIVES = 3  # hard negatives for each positive anchor: https://arxiv.org/abs/1512.02325

GIOU_WEIGHT = 2.0  # in "smooth_l1_giou"; DETR's, https://arxiv.org/abs/2005.12872

# ssdlite_mobilenet_v3_large_320x320_coco.config of TF Object Detection
FOCAL_ALPHA, FOCAL_GAMMA = 0.75, 2.0


def hard_negatives(logits: Any, found: Any, weights: Any) -> Any:
    """Return the summed softmax cross-entropy of positive anchors and of the hardest negatives.

    logits: (N, A, 1 + classes), background first; found: (N, A), the class of each anchor or -1;
    weights: (N, A), of the positive anchors.

    Each image has three negatives for each positive anchor, and three at least, so that images
    without objects contribute (torchvision takes none of those; otherwise the two agree).
    """
    positive = found >= 0
    own = ops.expand_dims(ops.where(positive, found + 1, 0), -1)  # column 0 is background
    chosen = ops.squeeze(ops.take_along_axis(logits, own, axis=-1), -1)
    losses = ops.logsumexp(logits, axis=-1) - chosen
    counts = ops.sum(ops.cast(positive, "int32"), axis=1, keepdims=True)
    hardest = -ops.sort(-ops.where(positive, 0.0, losses), axis=1)
    places = ops.arange(found.shape[1], dtype="int32")
    mined = ops.where(places < NEGATIVES * ops.maximum(counts, 1), hardest, 0.0)
    return ops.sum(weights * ops.where(positive, losses, 0.0)) + ops.sum(mined)


def focal(logits: Any, found: Any, weights: Any) -> Any:
    """Return the sigmoid focal loss, summed over all anchors: https://arxiv.org/abs/1708.02002.

    logits: (N, A, classes); found: (N, A), the class of each anchor or -1; weights: (N, A), of the
    positive anchors.
    """
    truth = ops.one_hot(found, logits.shape[-1], dtype=logits.dtype)  # all zeros for -1
    losses = ops.maximum(logits, 0.0) - logits * truth + ops.log1p(ops.exp(-ops.abs(logits)))
    error = ops.abs(truth - ops.sigmoid(logits))
    alphas = ops.where(truth > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    whole = ops.sum(alphas * error**FOCAL_GAMMA * losses, axis=-1)
    return ops.sum(ops.where(found >= 0, weights, 1.0) * whole)


def anchor_weights(index: Any, objects: int, balance: float) -> Any:
    """Return the weights (N, A) of positive anchors in the losses; 0 for the others.

    index: (N, A), the object that each anchor is matched to, or -1.
    objects: size M of the objects' axis, padding included.
    balance: in [0, 1]. A weight is n^-balance for an object of n anchors, scaled so that the
        weights of the batch sum to the number of positive anchors: 0 weighs anchors alike, 1
        objects.
    """
    positive = ops.cast(index >= 0, "float32")
    if not balance:
        return positive
    same = ops.expand_dims(index, 1) == ops.reshape(ops.arange(objects, dtype="int32"), (-1, 1))
    counts = ops.maximum(ops.sum(ops.cast(same, "float32"), axis=2), 1.0)
    weights = positive * ops.take_along_axis(counts, ops.maximum(index, 0), axis=1) ** -balance
    return weights * ops.sum(positive) / ops.maximum(ops.sum(weights), 1e-6)


@dataclasses.dataclass(frozen=True)
class Classification:
    """A classification loss, and what it requires of the head."""

    # (logits (N, A, C), class of each anchor (N, A) or -1, weights (N, A)) -> scalar
    loss: Callable[[Any, Any, Any], Any]
    activation: str  # from logits to scores
    background: int  # number of background columns before the classes
    prior: float  # initial probability of an object, which sets the head's bias


LOSSES: dict[str, Classification] = {
    "hnm": Classification(hard_negatives, "softmax", 1, 0.5),
    "focal": Classification(focal, "sigmoid", 0, 0.01),  # prior: section 3.3 of the paper
}


def smooth_l1(codes: Any, boxes: Any, anchors: Any) -> Any:
    """Return the smooth L1 loss (N, A) of encoded boxes, summed over coordinates (torchvision)."""
    error = ops.abs(codes - encode(boxes, anchors))
    return ops.sum(ops.where(error < 1, 0.5 * error**2, error - 0.5), axis=-1)


def by_overlap(overlap: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """Return the loss (N, A) of decoded boxes that is 1 minus an overlap such as `giou`."""
    return lambda codes, boxes, anchors: 1 - overlap(decode(codes, anchors), boxes)


def smooth_l1_giou(codes: Any, boxes: Any, anchors: Any) -> Any:
    """Return smooth L1 plus `GIOU_WEIGHT` times the GIoU loss (N, A).

    Smooth L1 has useful gradients for distant boxes, GIoU makes close ones tight.
    """
    return smooth_l1(codes, boxes, anchors) + GIOU_WEIGHT * (
        1 - giou(decode(codes, anchors), boxes)
    )


BOX_LOSSES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "smooth_l1": smooth_l1,
    "giou": by_overlap(giou),
    "diou": by_overlap(diou),
    "ciou": by_overlap(ciou),
    "smooth_l1_giou": smooth_l1_giou,
}
