"""`Detector`: a functional model that predicts boxes and classes at anchors, with its own loss."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kzoo.arguments import is_number, renamed, require
from kzoo.detection.anchors import Anchors
from kzoo.detection.boxes import match
from kzoo.detection.detections import OLD_NAMES, Detections, detections
from kzoo.detection.losses import BOX_LOSSES, LOSSES, anchor_weights
from kzoo.detection.tiles import Find, check_tiles, detect_in_tiles
from kzoo.preprocessing import stretch
from kzoo.sizes import Tiles

LEAST_WEIGHT = 0.003  # added in `differences` to an anchor's weight, its object score in [0, 1]


@keras.saving.register_keras_serializable(package="kzoo")
class Detector(keras.Model):
    """A model of images (N, H, W, 3) with outputs {"boxes": (N, A, 4), "logits": (N, A, C)}.

    `SSDLite` builds one. Compile it without a loss, since it has its own. Targets are
    {"boxes": (N, M, 4), "labels": (N, M)}: boxes as y_min, x_min, y_max, x_max in [0, 1], labels
    from 0, and -1 to pad images with fewer than M objects:

        detector.compile("adam")
        detector.fit(images, {"boxes": boxes, "labels": labels})
        detector.detect(images)

    inputs, outputs: Keras tensors of a functional model with such outputs, for A anchors.
    classes: number of classes; with loss="hnm", C is one more, for background.
    anchors: the `Anchors` of the feature maps.
    loss, box_loss, balance: as in `SSDLite`.

    Raises ValueError for unknown losses and for outputs of other shapes.
    """

    def __init__(
        self, inputs: Any, outputs: Any, *, classes: int, anchors: Anchors, loss: str = "hnm",
        box_loss: str = "smooth_l1", balance: float = 0.0, name: str | None = None,
    ):  # fmt: skip
        super().__init__(inputs, outputs, name=name)
        for argument, value, allowed in (
            ("loss", loss, LOSSES), ("box_loss", box_loss, BOX_LOSSES),
        ):  # fmt: skip
            if value not in allowed:
                raise ValueError(
                    f"{argument} must be one of {', '.join(allowed)}. Received: {value!r}"
                )
        self.classes, self.anchors, self.loss_name, self.box_loss_name = (
            classes, anchors, loss, box_loss,
        )  # fmt: skip
        require("balance", balance, is_number(balance) and 0 <= balance <= 1, "in [0, 1]")
        self.balance = float(balance)
        self.anchor_boxes = anchors.boxes()
        wanted = {
            "boxes": (len(self.anchor_boxes), 4),
            "logits": (len(self.anchor_boxes), classes + LOSSES[loss].background),
        }
        found = {key: tuple(x.shape[1:]) for key, x in outputs.items()}
        if found != wanted:
            raise ValueError(
                f"A detector of {classes} classes with loss={loss!r} and these anchors has outputs "
                f"of shapes {wanted} after the batch axis. Received: {found}"
            )
        self.class_loss_tracker = keras.metrics.Mean(name="class_loss")
        self.box_loss_tracker = keras.metrics.Mean(name="box_loss")

    def fit(self, x: Any = None, y: Any = None, *more: Any, **options: Any) -> Any:
        """Train like any Keras model; raise ValueError for arrays `y` that are not targets."""
        self.check_arrays(y)
        return super().fit(x, y, *more, **options)

    def evaluate(self, x: Any = None, y: Any = None, *more: Any, **options: Any) -> Any:
        """Return the losses like any Keras model; raise ValueError as `fit` does."""
        self.check_arrays(y)
        return super().evaluate(x, y, *more, **options)

    def check_arrays(self, y: Any) -> None:
        """Raise ValueError for boxes in px and for labels out of range, in NumPy arrays.

        Compiled code would not notice them, or fail with an index out of range.
        """
        if not isinstance(y, Mapping) or not all(isinstance(v, np.ndarray) for v in y.values()):
            return  # an iterable of batches cannot be checked in advance
        check_shapes(y)
        labels, boxes = y["labels"], y["boxes"]
        own = boxes[labels >= 0]
        if labels.size and not (labels.min() >= -1 and labels.max() < self.classes):
            raise ValueError(
                f"labels must be from 0 to {self.classes - 1}, or -1 for no object. Received: "
                f"labels from {labels.min()} to {labels.max()}"
            )
        if not np.isfinite(own).all() or (own.size and not (own.min() >= -1 and own.max() <= 2)):
            raise ValueError(
                "boxes must be y_min, x_min, y_max, x_max in [0, 1]. Received: values from "
                f"{own.min():g} to {own.max():g}. Divide pixels by the image's height and width."
            )
        if (own[:, 2:] < own[:, :2]).any():
            raise ValueError(
                "boxes must be y_min, x_min, y_max, x_max. Received: boxes whose second corner "
                f"lies before the first, such as {own[(own[:, 2:] < own[:, :2]).any(1)][0]}"
            )

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Any:  # fmt: skip
        """Return box loss plus class loss, summed over the batch / number of positive anchors.

        NaN for a batch with labels beyond the classes: focal loss, and JAX, would not notice them.
        """
        if sample_weight is not None:
            raise ValueError(
                "A detector takes no sample_weight and no class_weight: leave out the "
                "examples that should not count."
            )
        check_shapes(y)
        codes, logits = (ops.cast(y_pred[key], "float32") for key in ("boxes", "logits"))
        boxes, labels = ops.cast(y["boxes"], "float32"), ops.cast(y["labels"], "int32")
        anchors = ops.convert_to_tensor(self.anchor_boxes)
        index = ops.stop_gradient(match(boxes, labels, anchors))
        positive, place = index >= 0, ops.maximum(index, 0)
        found = ops.where(positive, ops.take_along_axis(labels, place, axis=1), -1)
        # Padding boxes have no size: the target of a negative anchor is the anchor itself.
        targets = ops.where(
            ops.expand_dims(positive, -1),
            ops.take_along_axis(boxes, ops.expand_dims(place, -1), axis=1),
            anchors,
        )
        weights = ops.stop_gradient(anchor_weights(index, boxes.shape[1], self.balance))
        objects = ops.maximum(ops.sum(ops.cast(positive, "float32")), 1.0)
        box_losses = BOX_LOSSES[self.box_loss_name](codes, targets, anchors)
        box_loss = ops.sum(weights * ops.where(positive, box_losses, 0.0)) / objects
        class_loss = LOSSES[self.loss_name].loss(logits, found, weights) / objects
        known = ops.all((labels >= -1) & (labels < self.classes))
        class_loss = ops.where(known, class_loss, float("nan"))
        self.class_loss_tracker.update_state(class_loss)
        self.box_loss_tracker.update_state(box_loss)
        return sum(self.losses, class_loss + box_loss)  # `losses` are the regularizers'

    @renamed(pictures="images", **OLD_NAMES)
    def detect(
        self, images: np.ndarray | Sequence[np.ndarray], *, score_threshold: float = 0.4,
        tiles: Tiles | None = None, **options: Any,
    ) -> list[Detections]:  # fmt: skip
        """Return the objects in images of any sizes, one `Detections` each, boxes in image px.

        images: (N, H, W, 3), or a list of arrays (H, W, 3), in the model's input range. Each is
            resized to the model's input size.
        score_threshold: in [0, 1]; boxes with lower scores are dropped.
        tiles: (rows, columns) of overlapping tiles to run the model on in addition to the whole
            image, for small objects in large photos; (2, 2) takes five times as long. "auto" takes
            2 x 2, 3 x 3 ... tiles of images larger than the input, as long as they find more. None:
            off.
        options: further arguments of `kzoo.detections`.
        """

        def find(stretched: np.ndarray) -> list[Detections]:
            outputs = self.predict(stretched, verbose=0)
            return detections(
                outputs, self.anchor_boxes, activation=self.activation,
                score_threshold=score_threshold, **options,
            )  # fmt: skip

        return at_own_size(find, images, self.input_shape[1:3], tiles, options)

    def differences(self, wanted: Any, found: Any) -> list[Any]:
        """Return the relative squared errors of outputs, [of boxes (N,), of logits (N,)].

        Each is the mean squared difference divided by the mean square in the batch, weighted by the
        highest class score of each anchor in `wanted`: without an object its box does not matter.
        """
        wanted = {key: ops.stop_gradient(ops.cast(x, "float32")) for key, x in wanted.items()}
        logits = wanted["logits"]
        background = LOSSES[self.loss_name].background
        scores = ops.softmax(logits)[..., 1:] if background else ops.sigmoid(logits)
        weights = ops.max(scores, axis=-1, keepdims=True) + LEAST_WEIGHT
        results = []
        for key in ("boxes", "logits"):
            y, z = wanted[key], ops.cast(found[key], "float32")
            if key == "logits" and background:  # softmax ignores a shift of all logits
                y, z = (x - ops.mean(x, axis=-1, keepdims=True) for x in (y, z))
            square = ops.mean(weights * ops.square(y)) + 1e-9
            results.append(ops.mean(weights * ops.square(z - y), axis=(1, 2)) / square)
        return results

    @property
    def activation(self) -> str:
        """The activation that makes scores of logits: "softmax" (with background) or "sigmoid"."""
        return LOSSES[self.loss_name].activation

    def scored(self) -> keras.Model:
        """Return the model with outputs {"boxes", "scores": (N, A, classes)}, no background."""
        boxes, logits = self.output["boxes"], self.output["logits"]
        scores = layers.Activation(self.activation, dtype="float32", name="scores")(logits)
        if LOSSES[self.loss_name].background:
            scores = scores[..., 1:]
        return keras.Model(self.input, {"boxes": boxes, "scores": scores}, name=self.name)

    def like(self, inputs: Any, outputs: Any) -> "Detector":
        """Return a detector of the same settings around other inputs and outputs."""
        return Detector(inputs, outputs, **self.settings(), name=self.name)

    def settings(self) -> dict[str, Any]:
        return {
            "classes": self.classes,
            "anchors": self.anchors,
            "loss": self.loss_name,
            "box_loss": self.box_loss_name,
            "balance": self.balance,
        }

    def get_config(self) -> dict[str, Any]:
        net = keras.Model(self.input, self.output, name=self.name)
        return {
            **self.settings(), "anchors": dataclasses.asdict(self.anchors), "net": net.get_config()
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Detector":
        config = dict(config)
        net = keras.Model.from_config(config.pop("net"), custom_objects)
        anchors = Anchors.from_config(config["anchors"])
        return cls(net.input, net.output, **(config | {"anchors": anchors}), name=net.name)


def check_shapes(y: Any) -> None:
    """Raise ValueError for targets that are not {"boxes": (N, M, 4), "labels": (N, M)}."""
    wanted = 'Targets of a detector are {"boxes": (N, M, 4), "labels": (N, M)}, M at least 1'
    if not isinstance(y, Mapping) or not {"boxes", "labels"} <= y.keys():
        found = ", ".join(map(str, y)) if isinstance(y, Mapping) else type(y).__name__
        raise ValueError(f"{wanted}. Received: {found}")
    boxes, labels = tuple(y["boxes"].shape), tuple(y["labels"].shape)
    fits = len(boxes) == 3 and boxes[2] in (4, None) and len(labels) == 2
    places = {*boxes[1:2], *labels[1:2]} - {None}
    if not fits or 0 in places or len(places) > 1:
        raise ValueError(f"{wanted}. Received: boxes of shape {boxes}, labels of {labels}")


def at_own_size(
    find: Find,
    images: np.ndarray | Sequence[np.ndarray],
    size: tuple[int, ...],
    tiles: Tiles | None,
    options: Mapping[str, Any],
) -> list[Detections]:
    """Return the detections of `find` on images resized to `size`, boxes in px of each image.

    With `tiles`, `find` runs on each whole image and on its tiles, and their detections are merged
    under the same `options` of `kzoo.detections` that `find` uses.
    """
    if tiles is None:
        stretched = [stretch(image, size) for image in images]
        found = find(np.stack(stretched)) if stretched else []
        return [one.scaled(*p.shape[:2]) for one, p in zip(found, images, strict=True)]
    shared = ("iou_threshold", "max_detections", "class_agnostic")
    limits = {key: options[key] for key in shared if key in options}
    grid, input_size = check_tiles(tiles), (int(size[0]), int(size[1]))
    return [detect_in_tiles(find, image, input_size, grid, limits) for image in images]
