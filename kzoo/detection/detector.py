"""`Detector`: a functional model that predicts boxes and classes at anchors, and knows its loss."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kzoo.arguments import is_number, renamed, require
from kzoo.detection.anchors import Anchors
from kzoo.detection.boxes import match
from kzoo.detection.detections import OLD_NAMES, Detections, detections
from kzoo.detection.losses import BOX_LOSSES, LOSSES, anchor_weights
from kzoo.detection.tiles import check_tiles, merged, tiles_of
from kzoo.preprocessing import stretch

LEAST_WEIGHT = 0.003  # of an anchor without an object, where one with an object has 1


@keras.saving.register_keras_serializable(package="kzoo")
class Detector(keras.Model):
    """A net of images (N, H, W, 3) with outputs {"boxes": (N, A, 4), "logits": (N, A, C)}.

    `SSDLite` makes one. It is a functional model that is compiled without a loss, since it has its
    own; targets are {"boxes": (N, M, 4), "labels": (N, M)}, boxes as y_min, x_min, y_max, x_max in
    [0, 1], labels from 0 on, -1 where an image has fewer than M objects:

        detector.compile("adam")
        detector.fit(images, {"boxes": boxes, "labels": labels})
        detector.detect(images)

    Any functional model with such outputs can be wrapped: `kzoo.quantize` does, by `like`.
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

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Any:  # fmt: skip
        """Both losses, summed over the batch and divided by its anchors on objects."""
        if sample_weight is not None:
            raise ValueError(
                "A detector takes no sample_weight and no class_weight: leave out the "
                "examples that should not count."
            )
        codes, logits = (ops.cast(y_pred[key], "float32") for key in ("boxes", "logits"))
        boxes, labels = ops.cast(y["boxes"], "float32"), ops.cast(y["labels"], "int32")
        anchors = ops.convert_to_tensor(self.anchor_boxes)
        index = ops.stop_gradient(match(boxes, labels, anchors))
        positive, place = index >= 0, ops.maximum(index, 0)
        found = ops.where(positive, ops.take_along_axis(labels, place, axis=1), -1)
        # What an anchor without an object would be compared with has no size: itself stands in.
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
        self.class_loss_tracker.update_state(class_loss)
        self.box_loss_tracker.update_state(box_loss)
        return sum(self.losses, class_loss + box_loss)  # with those of regularizers

    @renamed(pictures="images", **OLD_NAMES)
    def detect(
        self, images: np.ndarray | Sequence[np.ndarray], *, score_threshold: float = 0.4,
        tiles: tuple[int, int] | None = None, **options: Any,
    ) -> list[Detections]:  # fmt: skip
        """Return what is in images of any sizes, boxes in each one's own pixels.

        images: (N, H, W, 3), or arrays (H, W, 3), in the model's input range. Each is stretched to
            the model's size.
        tiles: (rows, columns) to look at as images of their own besides, for small things on large
            photos; (2, 2) takes five times as long. None: the whole photo only.
        options: those of `kzoo.detections`.
        """

        def find(stretched: np.ndarray) -> list[Detections]:
            outputs = self.predict(stretched, verbose=0)
            return detections(
                outputs, self.anchor_boxes, activation=self.activation,
                score_threshold=score_threshold, **options,
            )  # fmt: skip

        return at_own_size(find, images, self.input_shape[1:3], tiles, options)

    def differences(self, wanted: Any, found: Any) -> list[Any]:
        """Return how far outputs are from those wanted, (N,) of the boxes and of the logits.

        Each is the mean squared difference as a share of the mean square in the batch. An anchor
        counts as much as `wanted` is sure of an object there: boxes of the others reach nobody.
        """
        wanted = {key: ops.stop_gradient(ops.cast(x, "float32")) for key, x in wanted.items()}
        logits = wanted["logits"]
        background = LOSSES[self.loss_name].background
        scores = ops.softmax(logits)[..., 1:] if background else ops.sigmoid(logits)
        weights = ops.max(scores, axis=-1, keepdims=True) + LEAST_WEIGHT
        results = []
        for key in ("boxes", "logits"):
            y, z = wanted[key], ops.cast(found[key], "float32")
            if key == "logits" and background:  # a softmax sees no shift of all of them
                y, z = (x - ops.mean(x, axis=-1, keepdims=True) for x in (y, z))
            square = ops.mean(weights * ops.square(y)) + 1e-9
            results.append(ops.mean(weights * ops.square(z - y), axis=(1, 2)) / square)
        return results

    @property
    def activation(self) -> str:
        """From logits to scores: "softmax", over background and classes, or "sigmoid"."""
        return LOSSES[self.loss_name].activation

    def scored(self) -> keras.Model:
        """The net with outputs {"boxes", "scores": (N, A, classes)}, background left out."""
        boxes, logits = self.output["boxes"], self.output["logits"]
        scores = layers.Activation(self.activation, dtype="float32", name="scores")(logits)
        if LOSSES[self.loss_name].background:
            scores = scores[..., 1:]
        return keras.Model(self.input, {"boxes": boxes, "scores": scores}, name=self.name)

    def like(self, inputs: Any, outputs: Any) -> "Detector":
        """A detector as this one, with another net between inputs and outputs."""
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


def at_own_size(
    find: Callable[[np.ndarray], list[Detections]],
    images: np.ndarray | Sequence[np.ndarray],
    size: tuple[int, ...],
    tiles: tuple[int, int] | None,
    options: Mapping[str, Any],
) -> list[Detections]:
    """Return what `find` finds on images stretched to `size`, boxes in each one's own pixels.

    With `tiles`, (rows, columns), an image is looked at as a whole and tile by tile, and what is
    found is merged as the `options` of `kzoo.detections` say that `find` was made with.
    """
    if tiles is None:
        stretched = [stretch(image, size) for image in images]
        found = find(np.stack(stretched)) if stretched else []
        return [one.scaled(*p.shape[:2]) for one, p in zip(found, images, strict=True)]
    shared = ("iou_threshold", "max_detections", "class_agnostic")
    limits = {key: options[key] for key in shared if key in options}
    results, grid = [], check_tiles(tiles)
    for image in images:
        (height, width), parts = image.shape[:2], tiles_of(image.shape[:2], grid)
        looks = [image, *(tile.cut(image) for tile in parts)]
        whole, *found = find(np.stack([stretch(look, size) for look in looks]))
        placed = [t.whole(f, (height, width)) for t, f in zip(parts, found, strict=True)]
        results.append(merged([whole.scaled(height, width), *placed], **limits))
    return results
