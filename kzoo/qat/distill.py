"""Training with another model's outputs as targets: the float model teaches its quantized copy."""

from typing import Any

import keras


class Distilled(keras.Model):
    """`student`, trained on what `teacher` says. After that, go on with the student.

    compile() and fit() are used as on any model; the loss given to compile compares the student's
    outputs with the labels, and counts `1 - weight` against the teacher's. Without labels, or with
    `weight` 1, only the teacher counts.
    """

    def __init__(
        self, student: keras.Model, teacher: keras.Model, *, weight: float, loss: Any = None
    ):
        super().__init__(name=f"{student.name}_distilled")
        if not 0 < weight <= 1:
            raise ValueError(f"weight must be a number in (0, 1]. Received: weight={weight!r}")
        self.student, self.weight = student, weight
        self.teacher = keras.models.clone_model(teacher)  # a copy, since it is frozen
        self.teacher.set_weights(teacher.get_weights())
        self.teacher.trainable = False
        self.teacher_loss = keras.losses.get(loss) if loss else soft_crossentropy(student)

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.student(x, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Any:  # fmt: skip
        targets = keras.ops.stop_gradient(self.teacher(x, training=False))
        loss = keras.ops.mean(self.teacher_loss(targets, y_pred))
        if self.weight == 1 or y is None:
            return loss
        own = super().compute_loss(x, y, y_pred, sample_weight, training)
        return self.weight * loss + (1 - self.weight) * own


def soft_crossentropy(student: keras.Model) -> Any:
    """Crossentropy with the teacher's probabilities, for models of probabilities or logits."""
    last = student.outputs[0]._keras_history.operation
    if getattr(last, "activation", None) is keras.activations.softmax:
        return keras.losses.categorical_crossentropy

    def from_logits(targets: Any, y_pred: Any) -> Any:
        return keras.losses.categorical_crossentropy(
            keras.ops.softmax(targets), y_pred, from_logits=True
        )

    return from_logits


def distill(
    student: keras.Model, teacher: keras.Model, *, weight: float = 1.0, loss: Any = None
) -> Distilled:
    """A model to compile and fit, whose training moves `student` towards what `teacher` says.

    On small sets of pictures the teacher's outputs say more than the labels. `weight`: of the
    teacher against the loss that compile() gets. `loss(teacher's output, student's output)`:
    crossentropy of the class probabilities unless another is given. After fit(), go on with
    `student`.
    """
    return Distilled(student, teacher, weight=weight, loss=loss)
