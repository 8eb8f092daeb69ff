"""Transfer learning from a pretrained classifier: freezing, other sizes, its classes as targets."""

import re
from collections.abc import Collection
from typing import Any

import keras
import numpy as np
from keras import ops

from kzoo.sizes import Size, height_width

ROW = re.compile(r"(row\d+)_")
FEATURES = "head_dropout"  # the layer whose input the pretrained classifier reads


def fine_rows(model: keras.Model, stride: int) -> set[str]:
    """Return the rows ("row0", ...) whose input is finer than 1 / `stride` of the image.

    They detect edges and textures, which all photos share, and take most of a step's time.
    """
    first: dict[str, keras.layers.Layer] = {}
    for layer in model.layers:
        if found := ROW.match(layer.name):
            first.setdefault(found[1], layer)
    side = model.input_shape[1]
    return {row for row, layer in first.items() if side < stride * layer.input.shape[1]}


def freeze_pretrained(model: keras.Model, rows: Collection[str]) -> None:
    """Make all layers trainable except these rows and all batch norms."""
    for layer in model.layers:
        found = ROW.match(layer.name)
        norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = not norm and not (found and found[1] in rows)


def of_any_size(net: keras.Model, size: Size) -> keras.Model | None:
    """Return a copy of the model that takes images of any size; None if it cannot take `size`.

    V4's hybrids, with attention on maps of fixed size, cannot. Training uses smaller images than
    validation because objects look larger in crops than in whole images
    (https://arxiv.org/abs/1906.06423).
    """
    image = keras.Input((None, None, 3), name="image")
    try:
        any_size = keras.models.clone_model(net, input_tensors=image)
        any_size.compute_output_shape((1, *height_width(size), 3))
    except ValueError:
        return None
    any_size.set_weights(net.get_weights())
    return any_size


@keras.saving.register_keras_serializable(package="kzoo")
class CoTuned(keras.Model):
    """A model that trains `student` together with the classifier that it was pretrained with.

    On few images the whole network forgets what its features knew of the pretrained classes.
    Beside its own loss, that of predicting these keeps it: the targets are the probabilities that
    the pretrained network gave them, on average over the training images of each class
    (You et al., Co-Tuning for Transfer Learning, NeurIPS 2020).

    In training it returns (N, classes + pretrained classes): probabilities, then logits.
    """

    def __init__(
        self, student: keras.Model, *, pretrained_classes: int, weight: float, **options: Any
    ):
        super().__init__(**{"name": f"{student.name}_cotuned"} | options)
        self.student, self.weight = student, weight
        features = student.get_layer(FEATURES).input
        self.both = keras.Model(student.input, (student.output, features))
        self.pretrained = keras.layers.Dense(pretrained_classes, name="pretrained")
        self.pretrained.build((None, np.prod(features.shape[1:])))
        self.relation = self.add_weight(
            (student.output.shape[-1], pretrained_classes), trainable=False, name="relation"
        )
        self.built = True  # all parts are built already

    def call(self, x: Any, training: bool | None = None) -> Any:
        if not training:
            return self.student(x, training=False)
        found, features = self.both(x, training=True)
        pretrained = self.pretrained(ops.reshape(features, (ops.shape(features)[0], -1)))
        return ops.concatenate([found, ops.cast(pretrained, found.dtype)], axis=-1)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Any:  # fmt: skip
        classes = self.student.output.shape[-1]
        own = super().compute_loss(x, y, y_pred[..., :classes], sample_weight, training)
        if not training:
            return own
        wanted = ops.matmul(ops.cast(y, "float32"), self.relation)
        found = ops.cast(y_pred[..., classes:], "float32")
        each = keras.losses.categorical_crossentropy(wanted, found, from_logits=True)
        return own + self.weight * ops.mean(each if sample_weight is None else each * sample_weight)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        found = y_pred[..., : self.student.output.shape[-1]]
        return super().compute_metrics(x, y, found, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {
            "student": keras.saving.serialize_keras_object(self.student), "name": self.name,
            "pretrained_classes": self.pretrained.units, "weight": self.weight,
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "CoTuned":
        student = keras.saving.deserialize_keras_object(config["student"])
        return cls(**config | {"student": student})


def cotuned(
    student: keras.Model, classifier: keras.layers.Layer, features: Any, targets: np.ndarray, *,
    weight: float,
) -> CoTuned:  # fmt: skip
    """Return a model to compile and fit, which trains `student` in place.

    classifier: the layer that gave the pretrained classes, with a kernel whose last axis they are.
    features: (N, ..., channels) of the training images, that it read. targets: their classes (N,).
    weight: of the loss of the pretrained classes.
    """
    kernel, bias = classifier.get_weights()
    kernel = kernel.reshape(-1, kernel.shape[-1])
    logits = np.asarray(features, "float32").reshape(len(targets), -1) @ kernel + bias
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    model = CoTuned(student, pretrained_classes=len(bias), weight=weight)
    model.pretrained.set_weights([kernel, bias])
    relation = np.zeros(model.relation.shape, "float32")
    for i in np.unique(targets):
        relation[i] = probabilities[targets == i].mean(axis=0)
    model.relation.assign(relation)
    return model
