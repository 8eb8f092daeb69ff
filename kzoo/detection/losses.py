"""What a detector is trained with: losses of its classes and of its boxes."""

import dataclasses
from collections.abc import Callable
from typing import Any

from keras import ops

from kzoo.detection.boxes import ciou, decode, diou, encode, giou

NEGATIVES = 3  # anchors on background for each one on an object: https://arxiv.org/abs/1512.02325

GIOU_WEIGHT = 2.0  # beside smooth L1; DETR's, https://arxiv.org/abs/2005.12872

# ssdlite_mobilenet_v3_large_320x320_coco.config of TF Object Detection
FOCAL_ALPHA, FOCAL_GAMMA = 0.75, 2.0


def hard_negatives(logits: Any, found: Any, weights: Any) -> Any:
    """Crossentropy of the anchors on objects, weighted, and of the hardest of the others, summed.

    Of an image, three of those for each anchor on an object, and three at least, so that images
    without objects teach something (torchvision takes none of these; elsewhere the two agree).
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
    """Binary crossentropy of every class, weighted by its error: https://arxiv.org/abs/1708.02002.

    Summed over all anchors; the weight of the true class is `FOCAL_ALPHA`.
    """
    truth = ops.one_hot(found, logits.shape[-1], dtype=logits.dtype)  # of -1: zeros everywhere
    losses = ops.maximum(logits, 0.0) - logits * truth + ops.log1p(ops.exp(-ops.abs(logits)))
    error = ops.abs(truth - ops.sigmoid(logits))
    alphas = ops.where(truth > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    whole = ops.sum(alphas * error**FOCAL_GAMMA * losses, axis=-1)
    return ops.sum(ops.where(found >= 0, weights, 1.0) * whole)


def anchor_weights(index: Any, objects: int, balance: float) -> Any:
    """Return what each anchor on an object counts (N, A): less, the more anchors its object has.

    index: the object of each anchor (N, A), or -1; such an anchor counts nothing here.
    balance: 0 weighs anchors alike, 1 objects; a weight is the number of anchors to minus this
        power. Their sum over the batch is the number of anchors on objects whatever it is.
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
    """A loss of the classes, and what it makes of a head."""

    # logits (N, A, C), index of the class (N, A) or -1, weights of anchors on objects (N, A)
    loss: Callable[[Any, Any, Any], Any]
    activation: str  # from logits to scores
    background: int  # columns of background, before the classes
    prior: float  # what the head's bias says of an object at first


LOSSES: dict[str, Classification] = {
    "hnm": Classification(hard_negatives, "softmax", 1, 0.5),
    "focal": Classification(focal, "sigmoid", 0, 0.01),  # section 3.3 there
}


def smooth_l1(codes: Any, boxes: Any, anchors: Any) -> Any:
    """(N, A): of the codes, as torchvision has it."""
    error = ops.abs(codes - encode(boxes, anchors))
    return ops.sum(ops.where(error < 1, 0.5 * error**2, error - 0.5), axis=-1)


def by_overlap(overlap: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    return lambda codes, boxes, anchors: 1 - overlap(decode(codes, anchors), boxes)


def smooth_l1_giou(codes: Any, boxes: Any, anchors: Any) -> Any:
    """(N, A): both, of which smooth L1 leads far boxes and GIoU makes near ones tight."""
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
