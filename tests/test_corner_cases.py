"""Graphs and arrays that are allowed and rare: each gave a wrong result without a word."""

import sys
import types

import keras
import numpy as np
import pytest
from keras import layers

import kzoo
from kzoo.detection.detections import Detections
from kzoo.detection.detector import Detector
from kzoo.detection.tiles import merged
from kzoo.preprocessing import check_range
from kzoo.quantization.calibration import batched
from kzoo.quantization.rules.translate import function_of
from kzoo.recipes.training.frozen_norms import without_frozen_norms
from kzoo.tflite import Runner
from kzoo.tflite.convert.converter import labels_file
from kzoo.tflite.inspect.compare import measure
from kzoo.tflite.ports import from_pixels
from kzoo.weights.batch_norm import normalize_kernels

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 255, (16, 8, 8, 3)).astype("float32")


def convolution() -> keras.layers.Layer:
    return layers.Conv2D(4, 3, padding="same", use_bias=False)


def with_statistics(model: keras.Model) -> keras.Model:
    for norm in model._flatten_layers():
        if isinstance(norm, layers.BatchNormalization):
            norm.set_weights(
                [RNG.uniform(0.5, 2, 4), *RNG.normal(size=(2, 4)), np.array([0.3, 1, 2, 4])]
            )
            norm.trainable = False
    return model


def shared_norm() -> keras.Model:
    x, norm = keras.Input((8, 8, 3)), layers.BatchNormalization()
    return with_statistics(keras.Model(x, norm(convolution()(norm(convolution()(x))))))


def output_before_the_norm() -> keras.Model:
    x = keras.Input((8, 8, 3))
    y = convolution()(x)
    return with_statistics(keras.Model(x, [y, layers.BatchNormalization()(y)]))


@pytest.mark.parametrize("build", [shared_norm, output_before_the_norm])
def test_norms_that_others_need_are_not_folded(build):
    model = build()
    wanted = model.predict(IMAGES, verbose=0)
    found = without_frozen_norms(model).predict(IMAGES, verbose=0)
    for a, b in zip(*map(keras.tree.flatten, (wanted, found)), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-3)


def test_layers_of_a_nested_model_stay_frozen():
    x = keras.Input((8, 8, 3))
    inner = keras.Model(x, layers.BatchNormalization(name="norm")(convolution()(x)), name="inner")
    y = keras.Input((8, 8, 3))
    model = with_statistics(keras.Model(y, inner(y)))
    copy = without_frozen_norms(model)
    assert not copy.get_layer("inner").get_layer("norm").trainable
    assert len(copy.trainable_variables) == len(model.trainable_variables) == 1


def test_kernels_before_a_shared_norm_keep_their_scale():
    model = shared_norm()
    before = model.predict(IMAGES, verbose=0)
    normalize_kernels(model)
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), before, rtol=1e-4, atol=1e-3)


def elu(x):
    return keras.ops.elu(convolution()(layers.Rescaling(1 / 127.5, -1)(x)) * 3.0, alpha=0.3)


def test_elu_of_another_slope_is_refused():
    x = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="no int8 form for 'elu"):
        kzoo.quantize(keras.Model(x, elu(x)), calibration=IMAGES)


def swish(x):
    """Another one than Keras'."""
    return x * keras.ops.sigmoid(1.702 * x)


def test_an_activation_is_known_by_its_values():
    """Not by its name; so is TensorFlow's, or a lambda."""

    def name(function):
        return function_of(layers.Activation(function))

    assert name(lambda x: keras.ops.minimum(keras.ops.relu(x), 6.0)) == "relu6"
    assert name(lambda x: keras.ops.exp(x) / keras.ops.sum(keras.ops.exp(x))) == "?"
    assert name(lambda x: x * keras.ops.clip(x + 3, 0, 6) / 6) == "hard_silu"
    assert name(lambda x: keras.ops.softmax(x, axis=-1)) == "softmax"
    assert name(lambda x: keras.ops.minimum(keras.ops.relu(x), 20.0)) == "?"
    assert name("gelu") == "gelu"
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, layers.Activation(swish, name="act")(convolution()(x)))
    with pytest.raises(ValueError, match=r"no int8 form for 'act' \(Activation with .* swish"):
        kzoo.quantize(model, calibration=IMAGES)


def test_pixels_scaled_by_a_negative_number():
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, convolution()(layers.Rescaling(-1 / 127.5, 1.0)(x)))
    quantized = kzoo.quantize(model, calibration=IMAGES, ranges="mse")
    wanted, found = (m.predict(IMAGES, verbose=0) for m in (model, quantized))
    assert 10 * np.log10(np.var(wanted) / np.var(found - wanted)) > 30


def test_a_mean_taken_off_tells_no_range():
    x = keras.Input((8, 8, 3))
    y = layers.Rescaling(1.0, [-123.7, -116.8, -103.9])(x)  # as VGG and ResNet have it
    check_range(keras.Model(x, convolution()(y)), 0, 255)


def test_nan_is_no_pixel():
    image = np.full((1, 2, 2, 1), 100, "float32")
    image[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"Received values in \[nan"):
        from_pixels(image, "uint8")


@pytest.mark.parametrize(("agnostic", "left"), [(False, 2), (True, 1)])
def test_tiles_merge_across_classes_if_asked(agnostic, left):
    box = np.array([[10.0, 10, 20, 20]])
    looks = [Detections(box, np.array([i]), np.array([0.9 - i / 10])) for i in (0, 1)]
    assert len(merged(looks, class_agnostic=agnostic)) == left


def test_masks_of_one_probability_are_compared_at_a_half():
    mask = RNG.uniform(0.01, 0.99, (2, 6, 6, 1)).astype("float32")
    found = measure("mask", mask, 1 - mask, 0.0, "LOGISTIC", None)
    assert found.agreement == 0
    assert found.distinct == (2, 2)


def test_labels_of_two_words_are_others(tmp_path):
    (tmp_path / "labels.txt").write_text("hot\ndog\n")
    assert labels_file(tmp_path / "b.tflite", "hot dog\n").name == "b.labels.txt"


def test_dropout_within_a_student_is_turned_off():
    head = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5), layers.Dense(2)])
    x = keras.Input((4,))
    student = keras.Model(x, head(x))
    kzoo.distill(student, keras.models.clone_model(student))
    assert head.layers[0].rate == 0


def test_batches_of_dicts_are_refused_by_name():
    with pytest.raises(ValueError, match="a dict of image"):
        list(batched([{"image": IMAGES}]))


@pytest.mark.parametrize("kind", [Detector, Runner])
def test_old_names_of_detect_reach_the_merging_of_tiles(kind, monkeypatch):
    module = sys.modules[kind.__module__]
    monkeypatch.setattr(module, "at_own_size", lambda *args: args[-1])
    port = types.SimpleNamespace(shape=(1, 8, 8, 3))
    own = types.SimpleNamespace(input_shape=(None, 8, 8, 3), input=port, _find=len)
    with pytest.warns(DeprecationWarning, match="is now called"):
        found = kind.detect(own, [], tiles=(2, 2), overlap=0.3, most=5, agnostic=True)
    assert found == {"iou_threshold": 0.3, "max_detections": 5, "class_agnostic": True}
