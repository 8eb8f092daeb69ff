"""Training quantized models: ranges still or learned, and the float model as teacher."""

import keras
import numpy as np
import pytest
from keras import layers
from qat_nets import images, randomized

import kzoo
from kzoo.qat import FakeQuant

pytestmark = pytest.mark.backend
JIT = keras.backend.backend() == "jax"  # which computes operation by operation without


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
    model = kzoo.quantize(classifier(), calibration=images(8, size=16))
    before, kernel = ranges(model), np.array(model.get_layer("conv").kernel)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=JIT)
    losses = model.fit(images(8, size=16), np.arange(8) % 3, epochs=10, verbose=0)
    assert losses.history["loss"][-1] < losses.history["loss"][0]
    np.testing.assert_array_equal(ranges(model), before)
    assert np.abs(kernel - np.array(model.get_layer("conv").kernel)).max() > 1e-3


def test_ranges_learn_when_they_are_made_trainable():
    model = kzoo.quantize(classifier(), calibration=images(8, size=16), ranges=0.05)
    before = ranges(model)
    for layer in model.layers:
        if isinstance(layer, FakeQuant):
            layer.trainable = True
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=JIT)
    model.fit(images(8, size=16), np.arange(8) % 3, epochs=3, verbose=0)
    assert np.abs(ranges(model) - before).max() > 1e-4


@pytest.mark.parametrize("activation", ["softmax", "linear"])
def test_a_student_moves_towards_its_teacher(activation, tmp_path):
    """Without labels: the quantized model of other weights comes to say what the teacher says."""
    teacher = classifier(activation)
    x = images(32, size=16).astype("float32")
    student = kzoo.quantize(teacher, calibration=x)
    head = student.get_layer("predictions" if activation == "linear" else "logits")
    head.kernel.assign(np.array(head.kernel) + np.random.default_rng(1).normal(0, 0.3, (8, 3)))

    def distance():
        y, z = teacher.predict_on_batch(x), student.predict_on_batch(x)
        y, z = (keras.ops.softmax(v) if activation == "linear" else v for v in (y, z))
        return float(np.abs(np.array(y) - np.array(z)).mean())

    before, weights = distance(), [np.array(w) for w in teacher.get_weights()]
    both = kzoo.distill(student, teacher)
    both.compile(keras.optimizers.Adam(3e-3), jit_compile=JIT)
    both.fit(x, epochs=30, batch_size=16, verbose=0)
    assert distance() < before / 2
    for was, now in zip(weights, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(x), student.predict_on_batch(x))


def residual():
    """Two sums: in a six times larger one goes a hard-swish, in the other what comes from it."""
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Activation("hard_swish", name="act")(layers.Conv2D(8, 3, 2, name="stem")(image))
    for i in range(2):
        y = layers.Conv2D(8, 1, activation="relu", name=f"expand{i}")(x)
        x = layers.Add(name=f"sum{i}")([x, layers.Conv2D(8, 1, name=f"project{i}")(y)])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return randomized(keras.Model(image, layers.Dense(3, activation="softmax", name="head")(x)))


def test_sums_of_residual_blocks_are_matched():
    teacher, x = residual(), images(64, size=8).astype("float32")
    student = kzoo.quantize(teacher, calibration=x)
    both = kzoo.distill(student, teacher)
    assert both.matched == ["sum0", "sum1"]

    def sums():
        """(Of the teacher, of the student): the first is six times larger in int8."""
        names = both.matched
        models = (keras.Model(m.input, [m.get_layer(n).output for n in names]) for m in
                  (teacher, student))  # fmt: skip
        return [[keras.ops.convert_to_numpy(v) for v in m.predict_on_batch(x)] for m in models]

    def missed():
        pairs = zip(*sums(), strict=True)
        return [np.var(z / round(z.std() / y.std()) - y) / np.var(y) for y, z in pairs]

    wanted, found = sums()
    assert found[0].std() / wanted[0].std() == pytest.approx(6, rel=0.02)
    assert max(missed()) < 1e-3
    kernel = student.get_layer("project0").kernel
    kernel.assign(kernel + np.random.default_rng(1).normal(0, 1.5, kernel.shape).astype("float32"))
    before = missed()
    assert min(before) > 0.01
    both.compile(keras.optimizers.Adam(0.01), jit_compile=JIT)
    both.fit(x, epochs=60, batch_size=16, verbose=0)
    assert all(now < was / 3 for now, was in zip(missed(), before, strict=True))


def test_examples_of_no_weight_teach_nothing():
    teacher, x = residual(), images(4, size=8).astype("float32")
    both = kzoo.distill(kzoo.quantize(teacher, calibration=x), teacher)

    def loss(*weights):
        found = both(x, training=True)
        lost = both.compute_loss(x, None, found, np.float32(weights))
        return float(keras.ops.convert_to_numpy(lost))

    alone = [loss(*4 * row) for row in np.eye(4)]
    assert max(alone) > 1.1 * min(alone) > 0
    assert loss(1, 1, 1, 1) == pytest.approx(np.mean(alone), rel=1e-4)
    assert loss(2, 0, 2, 0) == pytest.approx((alone[0] + alone[2]) / 2, rel=1e-4)


def test_a_distilled_model_goes_on_from_its_file(tmp_path):
    teacher, x = residual(), images(32, size=8).astype("float32")
    y = np.eye(3)[np.arange(32) % 3]
    both = kzoo.distill(kzoo.quantize(teacher, calibration=x), teacher, weight=0.5)
    both.compile("adam", "categorical_crossentropy", metrics=["accuracy"], jit_compile=JIT)
    both.fit(x, y, verbose=0, shuffle=False)
    both.save(tmp_path / "both.keras")
    loaded = keras.saving.load_model(tmp_path / "both.keras")
    assert (loaded.matched, loaded.weight) == (both.matched, 0.5)
    for model in (both, loaded):
        model.fit(x, y, verbose=0, shuffle=False)
    # The same step, but for the order in which kernels sum up.
    for got, want in zip(loaded.get_weights(), both.get_weights(), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max() + 1e-6)


def test_labels_count_beside_the_teacher():
    teacher = classifier()
    student = kzoo.quantize(teacher, calibration=images(8, size=16))
    both = kzoo.distill(student, teacher, weight=0.5)
    both.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=JIT)
    history = both.fit(images(8, size=16), np.arange(8) % 3, epochs=2, verbose=0).history
    assert {"loss", "accuracy"} <= set(history)
    with pytest.raises(
        ValueError, match=r"weight must be a number in \(0, 1\]. Received: weight=0"
    ):
        kzoo.distill(student, teacher, weight=0)
