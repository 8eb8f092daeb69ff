"""Training quantized models: ranges still or learned, and the float model as teacher."""

import keras
import numpy as np
import pytest
from keras import layers
from qat_nets import pictures, randomized

import kzoo
from kzoo.qat import FakeQuant

pytestmark = pytest.mark.backend


def classifier(activation="softmax"):
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1, name="preprocessing")(image)
    x = layers.Conv2D(8, 3, 2, name="conv")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Activation("hard_swish", name="act")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(3, name="logits")(x)
    return randomized(keras.Model(image, layers.Activation(activation, name="predictions")(x)))


def ranges(model):
    fake_quants = [layer for layer in model.layers if isinstance(layer, FakeQuant)]
    return np.array([layer.get_weights() for layer in fake_quants])


def test_fit_moves_weights_and_leaves_ranges():
    model = kzoo.quantize(classifier(), calibration=pictures(8, size=16))
    before, kernel = ranges(model), np.array(model.get_layer("conv").kernel)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    losses = model.fit(pictures(8, size=16), np.arange(8) % 3, epochs=10, verbose=0)
    assert losses.history["loss"][-1] < losses.history["loss"][0]
    np.testing.assert_array_equal(ranges(model), before)
    assert np.abs(kernel - np.array(model.get_layer("conv").kernel)).max() > 1e-3


def test_ranges_learn_when_they_are_made_trainable():
    model = kzoo.quantize(classifier(), calibration=pictures(8, size=16), ranges=0.05)
    before = ranges(model)
    for layer in model.layers:
        if isinstance(layer, FakeQuant):
            layer.trainable = True
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(pictures(8, size=16), np.arange(8) % 3, epochs=3, verbose=0)
    assert np.abs(ranges(model) - before).max() > 1e-4


@pytest.mark.parametrize("activation", ["softmax", "linear"])
def test_a_student_moves_towards_its_teacher(activation, tmp_path):
    """Without labels: the quantized model of other weights comes to say what the teacher says."""
    teacher = classifier(activation)
    x = pictures(32, size=16).astype("float32")
    student = kzoo.quantize(teacher, calibration=x)
    head = student.get_layer("logits")
    head.kernel.assign(np.array(head.kernel) + np.random.default_rng(1).normal(0, 0.3, (8, 3)))

    def distance():
        y, z = teacher.predict_on_batch(x), student.predict_on_batch(x)
        y, z = (keras.ops.softmax(v) if activation == "linear" else v for v in (y, z))
        return float(np.abs(np.array(y) - np.array(z)).mean())

    before, weights = distance(), [np.array(w) for w in teacher.get_weights()]
    both = kzoo.distill(student, teacher)
    both.compile(keras.optimizers.Adam(3e-3), jit_compile=False)
    both.fit(x, epochs=30, batch_size=16, verbose=0)
    assert distance() < before / 2
    for was, now in zip(weights, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(x), student.predict_on_batch(x))


def test_labels_count_beside_the_teacher():
    teacher = classifier()
    student = kzoo.quantize(teacher, calibration=pictures(8, size=16))
    both = kzoo.distill(student, teacher, weight=0.5)
    both.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    history = both.fit(pictures(8, size=16), np.arange(8) % 3, epochs=2, verbose=0).history
    assert {"loss", "accuracy"} <= set(history)
    with pytest.raises(
        ValueError, match=r"weight must be a number in \(0, 1\]. Received: weight=0"
    ):
        kzoo.distill(student, teacher, weight=0)
