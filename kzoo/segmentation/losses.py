"""What a segmenter is trained with: its loss, and metrics that know the void label."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kzoo.arguments import is_number, is_whole, require
from kzoo.segmentation.masks import VOID

LOVASZ_SIDE = 64  # px of a map that the Lovasz loss sees whole
register = keras.saving.register_keras_serializable(package="kzoo")


@register
class SegmentationLoss(keras.losses.Loss):
    """A weighted sum of cross-entropy, Dice, focal and Lovasz loss, without the void pixels.

    Targets are class ids (N, H, W) or (N, H, W, 1), predictions logits (N, H, W, classes).

    cross_entropy, dice, focal, lovasz: their weights; 0 leaves one out. Dice is 1 less the overlap
        of each class over the whole batch, averaged over the classes that occur in it
        (https://arxiv.org/abs/1606.04797). Focal loss is cross-entropy times (1 - p)^gamma, p being
        what the model gives the right class (https://arxiv.org/abs/1708.02002). Lovasz-Softmax is 1
        less the IoU of each class over the batch, extended from masks to probabilities, averaged
        as Dice is (https://arxiv.org/abs/1705.08790); it sees every n-th row and column of
        larger maps than `LOVASZ_SIDE`: sorting all pixels takes longer than a small net's step.
    gamma: of the focal loss.
    class_weights: one per class; cross-entropy and focal loss are means weighted by them.
    void: the label of pixels that do not count. A batch of nothing else has the loss 0.
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
        return total

    def get_config(self) -> dict[str, Any]:
        own = {"gamma": self.gamma, "class_weights": self.class_weights, "void": self.void}
        return {**super().get_config(), **self.terms, **own}


def overlap_loss(labels: Any, logits: Any, counts: Any) -> Any:
    """Dice loss, averaged over the classes that occur."""
    counts = ops.expand_dims(counts, -1)
    truth = ops.one_hot(labels, logits.shape[-1]) * counts
    losses = keras.losses.dice(truth, ops.softmax(logits) * counts, axis=(0, 1, 2))
    occurs = ops.cast(ops.any(truth > 0, axis=(0, 1, 2)), "float32")
    return weighted_mean(losses, occurs)


def lovasz_softmax(labels: Any, logits: Any, counts: Any) -> Any:
    """Lovasz-Softmax loss, averaged over the classes that occur.

    A class's errors are sorted, and each weighs what the Jaccard loss grows by when it joins those
    that are larger: algorithm 1 of https://arxiv.org/abs/1705.08790.
    """
    height, width, classes = logits.shape[-3:]
    step = max(1, (height or 0) // LOVASZ_SIDE), max(1, (width or 0) // LOVASZ_SIDE)
    labels, logits, counts = (x[:, :: step[0], :: step[1]] for x in (labels, logits, counts))
    counts = ops.reshape(counts, (1, -1))
    truth = ops.transpose(ops.one_hot(ops.reshape(labels, (-1,)), classes)) * counts
    found = ops.transpose(ops.reshape(ops.softmax(logits), (-1, classes)))
    errors = ops.abs(truth - found) * counts  # void: no error, and last in the order
    order = ops.argsort(-ops.stop_gradient(errors), axis=-1)
    errors, truth = (ops.take_along_axis(x, order, axis=-1) for x in (errors, truth))
    area = ops.sum(truth, axis=-1, keepdims=True)
    union = area + ops.cumsum(1 - truth, axis=-1)
    jaccard = 1 - (area - ops.cumsum(truth, axis=-1)) / ops.maximum(union, 1)
    weights = ops.concatenate([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], axis=-1)
    losses = ops.sum(errors * ops.stop_gradient(weights), axis=-1)
    return weighted_mean(losses, ops.cast(area[:, 0] > 0, "float32"))


def weighted_mean(values: Any, weights: Any) -> Any:
    """0 where all weights are 0."""
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), keras.config.epsilon())


@register
class MeanIoU(keras.metrics.MeanIoU):
    """keras.metrics.MeanIoU of logits (N, H, W, classes), without the void pixels."""

    def __init__(
        self, classes: int, *, void: int = VOID, name: str = "mean_iou", dtype: Any = "float32"
    ):
        # Keras' own dtype is int: int32 under JAX, which is full after some 8,000 images.
        super().__init__(classes, name, dtype, ignore_class=void, sparse_y_pred=False)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        with warnings.catch_warnings():
            # keras 3.15 asks JAX for int64 indices, and JAX says that it makes them int32.
            warnings.filterwarnings("ignore", "Explicitly requested dtype", UserWarning)
            return super().update_state(y_true, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        own = {"classes": self.num_classes, "void": self.ignore_class}
        return {**own, "name": self.name, "dtype": self.dtype}


@register
class PixelAccuracy(keras.metrics.SparseCategoricalAccuracy):
    """The share of pixels that are right, of those that are not void."""

    def __init__(self, *, void: int = VOID, name: str = "pixel_accuracy", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.void = void

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        y_true = ops.reshape(ops.convert_to_tensor(y_true), ops.shape(y_pred)[:-1])
        counts = ops.cast(ops.not_equal(y_true, self.void), "float32")
        return super().update_state(y_true, y_pred, counts)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "void": self.void}
