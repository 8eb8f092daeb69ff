"""Training with another model's outputs as targets: the float model teaches its quantized copy.

On few images class probabilities teach little that holds for others: a V3-Small trained by their
crossentropy was further from its teacher on unseen photos than before (divergence .015 -> .021),
trained to match the sums of its residual blocks and its logits nearer (.012); with all activations
that int8 leaves as they are .013.
"""

from collections.abc import Callable, Collection
from typing import Any

import keras
from keras import layers as layers_
from keras import ops

from kzoo.quantization.layers import FakeQuant, register
from kzoo.quantization.read import functional


@register
class Distilled(keras.Model):
    """`student`, trained on what `teacher` says; `distill` makes one.

    compile(), fit(), evaluate() and save() are used as on any model. The loss given to compile (or
    the student's own, where it has one) compares the student's outputs with the labels: it is the
    loss of evaluate() and of validation, and in training counts `1 - weight` against the teacher's.
    """

    def __init__(
        self, student: keras.Model, teacher: keras.Model, *, weight: float, loss: Any,
        layers: Collection[str], **kwargs: Any,
    ):  # fmt: skip
        super().__init__(**{"name": f"{student.name}_distilled"} | kwargs)
        if not 0 < weight <= 1:
            raise ValueError(f"weight must be a number in (0, 1]. Received: weight={weight!r}")
        self.student, self.teacher = student, teacher
        self.weight, self.given_loss, self.matched = weight, loss, list(layers)
        teacher.trainable = False
        self.losses_of_outputs = losses_of(teacher, loss)
        self.seen, self.wanted = (tapped(model, self.matched) for model in (student, teacher))
        self.built = True  # all of its layers are

    def call(self, x: Any, training: bool | None = None) -> Any:
        if not training:
            return self.student(x, training=False)
        inner, found = self.seen(x, training=True)
        inner_wanted, wanted = self.wanted(x, training=False)
        between = [
            missed(ops.cast(y, "float32"), ops.cast(z, "float32"))
            for y, z in zip(inner_wanted, inner, strict=True)
        ]
        differences = [*between, *self.differences(wanted, found)]
        # Of each example, (N,). Keras keeps it until compute_loss asks for `losses`.
        self.add_loss(sum(differences) / len(differences))
        return found

    def differences(self, wanted: Any, found: Any) -> list[Any]:
        """Of each output, (N,), in float32: in mixed precision the student's are in half of it.

        By the student's own measure where it has one, as detectors do.
        """
        if self.given_loss is None and hasattr(self.student, "differences"):
            return self.student.differences(wanted, found)
        outputs = ([ops.cast(x, "float32") for x in keras.tree.flatten(y)] for y in (wanted, found))
        pairs = zip(*outputs, strict=True)
        each = zip(self.losses_of_outputs, pairs, strict=True)
        return [by_example(loss(ops.stop_gradient(y), z)) for loss, (y, z) in each]

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Any:  # fmt: skip
        weight = ops.convert_to_tensor(1.0 if sample_weight is None else sample_weight, "float32")
        weight = by_example(weight)
        if y is None and not training:
            differences = self.differences(self.teacher(x, training=False), y_pred)
            return ops.mean(sum(differences) * weight)
        taught = sum(ops.mean(loss * weight) for loss in self.losses)
        if training and (self.weight == 1 or y is None):
            return taught
        if type(self.student).compute_loss is keras.Model.compute_loss:
            own = super().compute_loss(x, y, y_pred, sample_weight, training)
            own -= sum(ops.sum(loss) for loss in self.losses)  # which Keras counts in
        else:
            own = self.student.compute_loss(x, y, y_pred, sample_weight, training)
        return self.weight * taught + (1 - self.weight) * own if training else own

    def get_config(self) -> dict[str, Any]:
        pack = keras.saving.serialize_keras_object
        return {
            "student": pack(self.student), "teacher": pack(self.teacher), "weight": self.weight,
            "loss": pack(self.given_loss), "layers": self.matched, "name": self.name,
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Distilled":
        unpack = keras.saving.deserialize_keras_object
        return cls(**config | {key: unpack(config[key]) for key in ("student", "teacher", "loss")})


def by_example(values: Any) -> Any:
    """Return the mean of each example: (N, ...) -> (N,)."""
    axes = tuple(range(1, len(values.shape)))
    return ops.mean(values, axis=axes) if axes else values


def losses_of(teacher: keras.Model, loss: Any) -> list[Callable[[Any, Any], Any]]:
    """Return the loss of each output, a function of the teacher's and the student's."""

    def of(output: Any) -> Callable[[Any, Any], Any]:
        op = output._keras_history.operation
        function = getattr(op, "activation", None)
        if function is keras.activations.softmax or type(op).__name__ == "Softmax":
            return missed_odds  # as a layer, or of keras.ops
        return missed_logits if function is keras.activations.sigmoid else missed

    return [keras.losses.get(loss) if loss else of(x) for x in teacher.outputs]


def missed(wanted: Any, found: Any) -> Any:
    """Return the squared error (N,) over the variance of the teacher's values in the batch."""
    wanted = ops.stop_gradient(wanted)
    # Sums that a split hard-swish goes into may be six times what they are in float.
    times = ops.where(ops.sum(wanted * found) > 2.5 * ops.sum(ops.square(wanted)), 6.0, 1.0)
    difference = ops.square(found / ops.stop_gradient(times) - wanted)
    return by_example(difference) / (ops.var(wanted) + 1e-6)


def missed_odds(wanted: Any, found: Any) -> Any:
    """`missed` of the logits, from probabilities."""
    return missed(*map(centred_logits, (wanted, found)))


def missed_logits(wanted: Any, found: Any) -> Any:
    """`missed` of the logits, from what a sigmoid makes of each."""
    return missed(*(ops.log(x / (1 - x)) for x in (
        ops.clip(x, 1e-6, 1 - 1e-6) for x in (wanted, found))))  # fmt: skip


def centred_logits(probabilities: Any) -> Any:
    logits = ops.log(ops.maximum(probabilities, 1e-7))
    return logits - ops.mean(logits, axis=-1, keepdims=True)


def tapped(model: keras.Model, names: Collection[str]) -> keras.Model:
    """Return `model` with the outputs of these layers besides its own."""
    model = functional(model)
    return keras.Model(model.input, ([model.get_layer(n).output for n in names], model.output))


def sums_of_both(student: keras.Model, teacher: keras.Model) -> list[str]:
    """Return the names of Add layers that teacher and student share, with equal shapes."""
    own = {layer.name: layer.output.shape for layer in student.layers if is_sum(layer)}
    return [x.name for x in teacher.layers if is_sum(x) and own.get(x.name) == x.output.shape]


def is_sum(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, layers_.Add)


def distill(
    student: keras.Model, teacher: keras.Model, *, weight: float = 1.0, loss: Any = None,
    layers: Collection[str] | None = None,
) -> Distilled:  # fmt: skip
    """Return a model to compile and fit, which trains `student` towards the outputs of `teacher`.

    On small sets of images the teacher's outputs are more useful than the labels. `student` is
    trained in place: after fit(), use it, or the returned model's `student` (the same object unless
    the model was loaded from a file). Its dropout is turned off. `teacher` is copied and does not
    change.

    weight: in (0, 1], weight of the teacher relative to the loss passed to compile().
    loss: loss(teacher's output, student's output), for each output. Default: the squared difference
        as a share of the variance; for a softmax or sigmoid that of the logits before it; for a
        `Detector` its `differences`.
    layers: names of layers whose outputs are matched too, by that squared difference; both models
        must have them. Default: the sums of the residual blocks if `student` is quantized, else
        none. All of these layers and the outputs have the same weight.

    Raises ValueError for a weight out of range or a layer that one of the models lacks.
    """
    plain = functional(teacher)
    copy = keras.models.clone_model(keras.Model(plain.input, plain.output, name=teacher.name))
    copy.set_weights(teacher.get_weights())
    for layer in student._flatten_layers():
        if isinstance(layer, layers_.Dropout):
            layer.rate = 0.0  # the teacher says what comes without
    if layers is None:
        quantized = any(isinstance(layer, FakeQuant) for layer in student.layers)
        layers = sums_of_both(student, copy) if quantized else ()
    return Distilled(student, copy, weight=weight, loss=loss, layers=layers)
