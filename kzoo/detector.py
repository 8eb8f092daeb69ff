"""`Detector`: a functional model that predicts boxes and classes at anchors, and knows its loss."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kzoo.boxes import Anchors, ciou, decode, diou, encode, giou, match
from kzoo.detection import Detections, detections

NEGATIVES = 3  # anchors on background for each one on an object: https://arxiv.org/abs/1512.02325
# ssdlite_mobilenet_v3_large_320x320_coco.config of TF Object Detection
FOCAL_ALPHA, FOCAL_GAMMA = 0.75, 2.0


def hard_negatives(logits: Any, found: Any) -> Any:
    """Crossentropy of the anchors on objects and of the hardest of the others, summed.

    Of an image, three of those for each anchor on an object, and three at least, so that pictures
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
    return ops.sum(ops.where(positive, losses, 0.0)) + ops.sum(mined)


def focal(logits: Any, found: Any) -> Any:
    """Binary crossentropy of every class, weighted by its error: https://arxiv.org/abs/1708.02002.

    Summed over all anchors; the weight of the true class is `FOCAL_ALPHA`.
    """
    truth = ops.one_hot(found, logits.shape[-1], dtype=logits.dtype)  # of -1: zeros everywhere
    losses = ops.maximum(logits, 0.0) - logits * truth + ops.log1p(ops.exp(-ops.abs(logits)))
    error = ops.abs(truth - ops.sigmoid(logits))
    weights = ops.where(truth > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    return ops.sum(weights * error**FOCAL_GAMMA * losses)


@dataclasses.dataclass(frozen=True)
class Classification:
    """A loss of the classes, and what it makes of a head."""

    loss: Callable[[Any, Any], Any]  # logits (N, A, C), index of the class (N, A) or -1
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


BOX_LOSSES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "smooth_l1": smooth_l1,
    "giou": by_overlap(giou),
    "diou": by_overlap(diou),
    "ciou": by_overlap(ciou),
}


@keras.saving.register_keras_serializable(package="kzoo")
class Detector(keras.Model):
    """A net of pictures (N, H, W, 3) with outputs {"boxes": (N, A, 4), "logits": (N, A, C)}.

    `SSDLite` makes one. It is a functional model that is compiled without a loss, since it has its
    own; targets are {"boxes": (N, M, 4), "labels": (N, M)}, boxes as y_min, x_min, y_max, x_max in
    [0, 1], labels from 0 on, -1 where a picture has fewer than M objects:

        detector.compile("adam")
        detector.fit(pictures, {"boxes": boxes, "labels": labels})
        detector.detect(pictures)

    Any functional model with such outputs can be wrapped: `kzoo.quantize` does, by `like`.
    """

    def __init__(
        self, inputs: Any, outputs: Any, *, classes: int, anchors: Anchors, loss: str = "hnm",
        box_loss: str = "smooth_l1", name: str | None = None,
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
        self.anchor_boxes = anchors.boxes()
        wanted = {
            "boxes": (len(self.anchor_boxes), 4),
            "logits": (len(self.anchor_boxes), classes + LOSSES[loss].background),
        }
        found = {key: tuple(x.shape[1:]) for key, x in outputs.items()}
        if found != wanted:
            raise ValueError(
                f"A detector of {classes} classes with loss={loss!r} and these anchors has outputs "
                f"of shapes {wanted} behind the batch. Received: {found}"
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
                "A detector takes no sample_weight and no class_weight: leave out what should not "
                "count."
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
        objects = ops.maximum(ops.sum(ops.cast(positive, "float32")), 1.0)
        box_losses = BOX_LOSSES[self.box_loss_name](codes, targets, anchors)
        box_loss = ops.sum(ops.where(positive, box_losses, 0.0)) / objects
        class_loss = LOSSES[self.loss_name].loss(logits, found) / objects
        self.class_loss_tracker.update_state(class_loss)
        self.box_loss_tracker.update_state(box_loss)
        return sum(self.losses, class_loss + box_loss)  # with those of regularizers

    def detect(
        self, pictures: np.ndarray | Sequence[np.ndarray], *, threshold: float = 0.4,
        **options: Any,
    ) -> list[Detections]:  # fmt: skip
        """What is in pictures of any sizes, boxes in each one's own pixels.

        `pictures`: (N, H, W, 3), or arrays (H, W, 3), in the model's input range. Each is stretched
        to the model's size. `options` are those of `kzoo.detections`.
        """

        def find(stretched: np.ndarray) -> list[Detections]:
            outputs = self.predict(stretched, verbose=0)
            return detections(
                outputs, self.anchor_boxes, activation=self.activation, threshold=threshold,
                **options,
            )  # fmt: skip

        return at_own_size(find, pictures, self.input_shape[1:3])

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
        # JSON has lists where a frozen dataclass has tuples.
        own = config["anchors"]
        anchors = Anchors(
            grids=tuple(map(tuple, own["grids"])), ratios=tuple(own["ratios"]),
            scales=tuple(own["scales"]), reduced_first=own["reduced_first"],
        )  # fmt: skip
        return cls(net.input, net.output, **(config | {"anchors": anchors}), name=net.name)


def resized(picture: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(H, W, C), uint8 or float, stretched to the height and width given, as float32."""
    picture = np.asarray(picture, "float32")
    if picture.ndim != 3:
        raise ValueError(f"A picture is (H, W, C). Received: shape {picture.shape}")
    if picture.shape[:2] == tuple(size):
        return picture
    return ops.convert_to_numpy(
        ops.image.resize(picture, size, antialias=True, data_format="channels_last")
    )


def at_own_size(
    find: Callable[[np.ndarray], list[Detections]],
    pictures: np.ndarray | Sequence[np.ndarray],
    size: tuple[int, ...],
) -> list[Detections]:
    """What `find` sees on pictures stretched to `size`, boxes in each one's own pixels."""
    stretched = [resized(picture, size) for picture in pictures]
    if not stretched:
        return []
    found = find(np.stack(stretched))
    return [one.scaled(*p.shape[:2]) for one, p in zip(found, pictures, strict=True)]
