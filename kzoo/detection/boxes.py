"""Operations on boxes: IoU and its variants, encoding, matching to anchors, NMS and box voting.

Boxes are (..., 4) as y_min, x_min, y_max, x_max, in [0, 1] of the image's height and width, or in
px where only ratios matter. Functions for training and inference take and return NumPy arrays, or
take and return tensors of the Keras backend.
"""

import math
from types import ModuleType
from typing import Any

import keras
import numpy as np

Array = Any  # a NumPy array or a tensor
TINY = 1e-7  # keeps quotients and logarithms finite; no real box is that small

# Weights of the encoded (y offset, x offset, log height, log width):
# torchvision/models/detection/ssd.py.
CODE_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
LARGEST_LOG = math.log(1000 / 16)  # limit of a decoded log size (torchvision's BoxCoder)


def library(*arrays: Array) -> ModuleType:
    """Return the numpy module if all arguments are NumPy arrays, else keras.ops."""
    return np if all(isinstance(a, np.ndarray) for a in arrays) else keras.ops


def area(boxes: Array) -> Array:
    """Return the areas (...) of boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: Array, b: Array) -> Array:
    """Return the intersection over union, broadcast: (N, 1, 4) and (M, 4) give (N, M)."""
    return overlap(a, b)[0]


def overlap(a: Array, b: Array) -> tuple[Array, Array]:
    """Return (intersection over union, area of the union)."""
    np_ = library(a, b)

    def side(least: int, most: int) -> Array:  # one axis at a time: 8 times as fast in NumPy
        shared = np_.minimum(a[..., most], b[..., most]) - np_.maximum(a[..., least], b[..., least])
        return np_.maximum(shared, 0.0)

    shared = side(0, 2) * side(1, 3)
    union = area(a) + area(b) - shared
    return shared / np_.maximum(union, TINY), union


def giou(a: Array, b: Array) -> Array:
    """Return the generalized IoU, in [-1, 1]: https://arxiv.org/abs/1902.09630."""
    ratio, union = overlap(a, b)
    around = library(a, b).maximum(area(hull(a, b)), TINY)
    return ratio - (around - union) / around


def diou(a: Array, b: Array) -> Array:
    """Return the distance IoU: IoU - (distance of centres / diagonal of the enclosing box)^2.

    Source: https://arxiv.org/abs/1911.08287.
    """
    np_ = library(a, b)
    outer = hull(a, b)
    diagonal = np_.sum((outer[..., 2:] - outer[..., :2]) ** 2, axis=-1)
    apart = np_.sum(((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2) ** 2, axis=-1)
    return iou(a, b) - apart / np_.maximum(diagonal, TINY)


def ciou(a: Array, b: Array) -> Array:
    """Return the complete IoU: DIoU minus a penalty for different aspect ratios.

    Source: https://arxiv.org/abs/1911.08287.
    """
    np_ = library(a, b)
    differ = (4 / math.pi**2) * (aspect_angle(a) - aspect_angle(b)) ** 2
    weight = differ / np_.maximum(1 - iou(a, b) + differ, TINY)
    if np_ is keras.ops:
        weight = keras.ops.stop_gradient(weight)  # equation 12 of the paper
    return diou(a, b) - weight * differ


def aspect_angle(boxes: Array) -> Array:
    np_ = library(boxes)
    height, width = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return np_.arctan(width / np_.maximum(height, TINY))


def hull(a: Array, b: Array) -> Array:
    """Return the smallest box that encloses both."""
    np_ = library(a, b)
    corners = np_.minimum(a[..., :2], b[..., :2]), np_.maximum(a[..., 2:], b[..., 2:])
    return np_.concatenate(corners, axis=-1)


def centred(boxes: Array) -> tuple[Array, Array]:
    """Return (centres (..., 2), sides (..., 2)) of boxes (..., 4)."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides / 2, sides


def encode(boxes: Array, anchors: Array) -> Array:
    """Return the regression targets (..., 4) of `boxes` relative to `anchors`, broadcast."""
    np_ = library(boxes, anchors)
    (centres, sides), (own, scale) = centred(boxes), centred(anchors)
    logs = np_.log(np_.maximum(sides, TINY) / scale)
    code = np_.concatenate([(centres - own) / scale, logs], axis=-1)
    return code * np_.array(CODE_WEIGHTS, dtype="float32")


def decode(codes: Array, anchors: Array) -> Array:
    """Return the boxes (..., 4) of predictions `codes` at `anchors`: the inverse of `encode`."""
    np_ = library(codes, anchors)
    codes = codes / np_.array(CODE_WEIGHTS, dtype="float32")
    own, scale = centred(anchors)
    centres = codes[..., :2] * scale + own
    half = np_.exp(np_.minimum(codes[..., 2:], LARGEST_LOG)) * scale / 2
    return np_.concatenate([centres - half, centres + half], axis=-1)


def match(boxes: Array, labels: Array, anchors: Array, *, threshold: float = 0.5) -> Array:
    """Return the object of each anchor, (N, A) int32 indices into M, or -1 for none.

    boxes: (N, M, 4); labels: (N, M), negative for padding; anchors: (A, 4).

    An anchor gets the object with which it has the highest IoU, if that is at least `threshold`;
    each object also gets its best anchor, whatever the IoU (torchvision's SSDMatcher).
    """
    ops = keras.ops
    boxes, anchors = ops.convert_to_tensor(boxes), ops.convert_to_tensor(anchors)
    labels = ops.convert_to_tensor(labels)
    objects, cells = ops.shape(boxes)[1], anchors.shape[0]
    real = ops.expand_dims(labels >= 0, -1)
    overlaps = ops.where(real, iou(ops.expand_dims(boxes, 2), anchors), -1.0)  # (N, M, A)
    found = ops.where(
        ops.max(overlaps, axis=1) >= threshold, ops.cast(ops.argmax(overlaps, axis=1), "int32"), -1
    )
    # If two objects have the same best anchor, the later one gets it, as in torchvision.
    best = ops.expand_dims(ops.cast(ops.argmax(overlaps, axis=2), "int32"), -1)
    taken = ops.logical_and(best == ops.arange(cells, dtype="int32"), real)
    forced = ops.max(
        ops.where(taken, ops.reshape(ops.arange(objects, dtype="int32"), (-1, 1)), -1), axis=1
    )
    return ops.where(forced >= 0, forced, found)


def nms(boxes: np.ndarray, scores: np.ndarray, *, threshold: float = 0.55) -> np.ndarray:
    """Return the indices of the boxes that non-maximum suppression keeps, highest score first.

    A box is dropped if its IoU with a kept one is above `threshold`. `boxes` (N, 4) and `scores`
    (N,) are NumPy arrays. Time and memory grow with N squared: 300 boxes take a ms.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = boxes[order]
    covers = iou(ranked[:, None], ranked) > threshold
    alive = np.ones(len(order), bool)
    for i in range(len(order)):
        if alive[i]:
            alive[i + 1 :] &= ~covers[i, i + 1 :]
    return order[alive]


def vote(
    boxes: np.ndarray, scores: np.ndarray, kept: np.ndarray, *, threshold: float = 0.55
) -> np.ndarray:
    """Return the boxes (K, 4) that `nms` kept, each averaged with the boxes that overlap it.

    The mean is weighted by score and taken over all boxes with an IoU above `threshold`, whose
    errors partly cancel. NumPy arrays: boxes (N, 4), scores (N,), kept (K,).
    Source: https://arxiv.org/abs/1505.01749, bounding box voting.
    """
    weights = np.where(iou(boxes[kept][:, None], boxes) > threshold, scores, 0.0)
    weights[np.arange(len(kept)), kept] = scores[kept]  # a box without area has no IoU with itself
    return weights @ boxes / np.maximum(weights.sum(axis=1, keepdims=True), TINY)
