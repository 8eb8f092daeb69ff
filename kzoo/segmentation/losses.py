"""Loss of segmenters, and metrics that ignore void pixels."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kzoo.arguments import is_number, is_whole, require
from kzoo.segmentation.masks import VOID

LOVASZ_SIDE = 64  # px; the Lovasz loss subsamples larger maps
register = keras.saving.register_keras_serializable(package="kzoo")


@register
class SegmentationLoss(keras.losses.Loss):
    """A weighted sum of cross-entropy, Dice, focal and Lovasz loss that ignores void pixels.

    Targets are class ids (N, H, W) or (N, H, W, 1), predictions logits (N, H, W, classes).

    cross_entropy, dice, focal, lovasz: weights >= 0 of the terms; 0 leaves one out. Dice loss is 1
        minus the overlap of each class over the whole batch, averaged over the classes present
        (https://arxiv.org/abs/1606.04797). Focal loss is cross-entropy times (1 - p)^gamma, where p
        is the probability of the true class (https://arxiv.org/abs/1708.02002). Lovasz-Softmax is a
        differentiable extension of 1 - IoU of each class over the batch, averaged like Dice
        (https://arxiv.org/abs/1705.08790). It uses every n-th row and column of maps larger than
        `LOVASZ_SIDE`, since sorting all pixels takes longer than a training step of a small net.
    gamma: of the focal loss.
    class_weights: one per class; cross-entropy and focal loss are means weighted by them.
    void: the label of pixels that are ignored. A batch of only void pixels has loss 0.

    Raises ValueError for negative weights, all terms 0, class_weights of another length, and
    targets that are neither class ids nor void. In compiled steps, where values are unknown, the
    loss of such targets is NaN (JAX, XLA), or TensorFlow's cross-entropy raises.
    """

    def __init__(
        self,
        *,
        cross_entropy: float = 1.0,
        dice: float = 0.0,
        focal: float = 0.0,
        lovasz: float = 0.0,
        gamma: float = 2.0,
        class_weights: Sequence[float] | None = None,
        void: int = VOID,
        name: str = "segmentation_loss",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        terms = {"cross_entropy": cross_entropy, "dice": dice, "focal": focal, "lovasz": lovasz}
        for argument, value in {**terms, "gamma": gamma}.items():
            require(argument, value, is_number(value) and value >= 0, "a number >= 0")
        if not any(terms.values()):
            raise ValueError(
                "All loss weights are 0: set cross_entropy, dice, focal or lovasz above 0."
            )
        require("void", void, is_whole(void), "a whole number")
        weights = None if class_weights is None else [float(weight) for weight in class_weights]
        fits = weights is None or (min(weights, default=-1) >= 0 and max(weights) > 0)
        require("class_weights", class_weights, fits, "numbers >= 0, not all 0, one per class")
        self.terms, self.gamma, self.class_weights, self.void = terms, gamma, weights, void

    def call(self, y_true: Any, y_pred: Any) -> Any:
        logits = ops.cast(y_pred, "float32")
        classes = logits.shape[-1]
        if self.class_weights and len(self.class_weights) != classes:
            raise ValueError(
                f"class_weights has {len(self.class_weights)} numbers, and the model has "
                f"{classes} classes. Give one per class."
            )
        given, wanted = tuple(y_true.shape), tuple(logits.shape[:-1])
        if not (may_equal(given, wanted) or may_equal(given, (*wanted, 1))):
            raise ValueError(
                f"Masks must be class ids of shape {wanted}, as large as the model's output. "
                f"Received: shape {given}"
            )
        wrong = has_wrong_ids(y_true, classes, self.void)
        labels = ops.cast(ops.reshape(y_true, ops.shape(logits)[:-1]), "int32")
        counts = ops.not_equal(labels, self.void)
        labels = ops.where(counts, labels, 0)
        weights = ops.cast(counts, "float32")
        total = 0.0
        if self.terms["dice"]:
            total += self.terms["dice"] * overlap_loss(labels, logits, weights)
        if self.terms["lovasz"]:
            total += self.terms["lovasz"] * lovasz_softmax(labels, logits, weights)
        if self.class_weights:
            weights = weights * ops.take(ops.convert_to_tensor(self.class_weights), labels)
        entropy = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        if self.terms["cross_entropy"]:
            total += self.terms["cross_entropy"] * weighted_mean(entropy, weights)
        if self.terms["focal"]:
            hard = (1.0 - ops.exp(-entropy)) ** self.gamma
            total += self.terms["focal"] * weighted_mean(hard * entropy, weights)
        return ops.where(wrong, float("nan"), total)

    def get_config(self) -> dict[str, Any]:
        own = {"gamma": self.gamma, "class_weights": self.class_weights, "void": self.void}
        return {**super().get_config(), **self.terms, **own}


def may_equal(given: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> bool:
    """Return whether two shapes may be equal, where None is any length."""
    return len(given) == len(wanted) and all(
        None in (a, b) or a == b for a, b in zip(given, wanted, strict=True)
    )


def has_wrong_ids(targets: Any, classes: int, void: int) -> Any:
    """Return whether a target is neither a class id nor void, as a boolean scalar.

    Raises ValueError if one is, where values are known: not while a step is compiled.
    """
    ids = ops.cast(targets, "float32")
    is_class = (ids >= 0) & (ids < classes) & (ids == ops.floor(ids))
    fits = is_class | (ids == void)
    wrong = ops.logical_not(ops.all(fits))
    try:
        known = bool(ops.convert_to_numpy(wrong))
    except (NotImplementedError, TypeError):  # TensorFlow's and JAX's of a traced value
        return wrong
    if known:
        first = ops.convert_to_numpy(ids)[~ops.convert_to_numpy(fits)][0]
        raise ValueError(
            f"Masks must hold whole class ids from 0 to {classes - 1}, as the model has {classes} "
            f"classes, or {void} for pixels to ignore. Received: {first:g}. Build the model with "
            "more classes, or set such pixels to the void value."
        )
    return wrong


def overlap_loss(labels: Any, logits: Any, counts: Any) -> Any:
    """Return the Dice loss, averaged over the classes that occur in the batch."""
    counts = ops.expand_dims(counts, -1)
    truth = ops.one_hot(labels, logits.shape[-1]) * counts
    losses = keras.losses.dice(truth, ops.softmax(logits) * counts, axis=(0, 1, 2))
    occurs = ops.cast(ops.any(truth > 0, axis=(0, 1, 2)), "float32")
    return weighted_mean(losses, occurs)


def lovasz_softmax(labels: Any, logits: Any, counts: Any) -> Any:
    """Return the Lovasz-Softmax loss, averaged over the classes that occur in the batch.

    The errors of a class are sorted in descending order; each is weighted by the increase of the
    Jaccard loss when its pixel is added: algorithm 1 of https://arxiv.org/abs/1705.08790.
    """
    height, width, classes = logits.shape[-3:]
    step = max(1, (height or 0) // LOVASZ_SIDE), max(1, (width or 0) // LOVASZ_SIDE)
    labels, logits, counts = (x[:, :: step[0], :: step[1]] for x in (labels, logits, counts))
    counts = ops.reshape(counts, (1, -1))
    truth = ops.transpose(ops.one_hot(ops.reshape(labels, (-1,)), classes)) * counts
    found = ops.transpose(ops.reshape(ops.softmax(logits), (-1, classes)))
    errors = ops.abs(truth - found) * counts  # void pixels have error 0 and are sorted last
    order = ops.argsort(-ops.stop_gradient(errors), axis=-1)
    errors, truth = (ops.take_along_axis(x, order, axis=-1) for x in (errors, truth))
    area = ops.sum(truth, axis=-1, keepdims=True)
    union = area + ops.cumsum(1 - truth, axis=-1)
    jaccard = 1 - (area - ops.cumsum(truth, axis=-1)) / ops.maximum(union, 1)
    weights = ops.concatenate([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], axis=-1)
    losses = ops.sum(errors * ops.stop_gradient(weights), axis=-1)
    return weighted_mean(losses, ops.cast(area[:, 0] > 0, "float32"))


def weighted_mean(values: Any, weights: Any) -> Any:
    """Return the weighted mean, 0 if all weights are 0."""
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), keras.config.epsilon())


@register
class MeanIoU(keras.metrics.MeanIoU):
    """keras.metrics.MeanIoU of logits (N, H, W, classes), ignoring void pixels.

    Raises ValueError for targets that are neither class ids nor void. In compiled steps they are
    not counted.
    """

    def __init__(
        self, classes: int, *, void: int = VOID, name: str = "mean_iou", dtype: Any = "float32"
    ):
        # Keras counts in int, which is int32 under JAX and overflows after some 8,000 images.
        super().__init__(classes, name, dtype, ignore_class=void, sparse_y_pred=False)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        has_wrong_ids(y_true, self.num_classes, self.ignore_class)
        with warnings.catch_warnings():
            # keras 3.15 requests int64 indices, and JAX warns that it truncates them to int32.
            warnings.filterwarnings("ignore", "Explicitly requested dtype", UserWarning)
            return super().update_state(y_true, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        own = {"classes": self.num_classes, "void": self.ignore_class}
        return {**own, "name": self.name, "dtype": self.dtype}


@register
class PixelAccuracy(keras.metrics.SparseCategoricalAccuracy):
    """The share of correctly classified pixels, ignoring void pixels.

    Raises ValueError for targets that are neither class ids nor void. In compiled steps they count
    as wrong answers.
    """

    def __init__(self, *, void: int = VOID, name: str = "pixel_accuracy", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.void = void

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        has_wrong_ids(y_true, y_pred.shape[-1], self.void)
        y_true = ops.reshape(ops.convert_to_tensor(y_true), ops.shape(y_pred)[:-1])
        counts = ops.cast(ops.not_equal(y_true, self.void), "float32")
        return super().update_state(y_true, y_pred, counts)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "void": self.void}
