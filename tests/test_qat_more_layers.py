"""Layers that no MobileNet has: the same in Keras, and int8 in the file, by the interpreter."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from qat_nets import images, randomized

import kzoo
from kzoo.tflite import Runner, audit, convert


def two(join: layers.Layer) -> Callable[[Any], Any]:
    return lambda x: join([x, layers.Conv2D(8, 1, name="other")(x)])


def three(join: layers.Layer) -> Callable[[Any], Any]:
    return lambda x: join([x, *(layers.Conv2D(8, 1, name=f"other{i}")(x) for i in range(2))])


# What stands between two convolutions, and the operator of the file that it is.
MIDDLES: dict[str, tuple[Callable[[Any], Any], str | None]] = {
    "leaky": (layers.LeakyReLU(negative_slope=0.2), "LEAKY_RELU"),
    "leaky, as ReLU": (layers.ReLU(negative_slope=0.1), "LEAKY_RELU"),
    "prelu": (layers.PReLU("uniform", shared_axes=(1, 2)), "PRELU"),
    "elu": (layers.ELU(), "ELU"),
    "elu within": (layers.Conv2D(8, 1, activation="elu"), "ELU"),
    "subtract": (two(layers.Subtract()), "SUB"),
    "minus": (lambda x: x - layers.Conv2D(8, 1)(x), "SUB"),
    "average of two": (two(layers.Average()), "ADD"),
    "average of three": (three(layers.Average()), "ADD"),
    "cropping": (layers.Cropping2D(2), "STRIDED_SLICE"),
    "permute": (layers.Permute((2, 1, 3)), "TRANSPOSE"),
    "softmax": (layers.Softmax(), "SOFTMAX"),
    "transposed": (layers.Conv2DTranspose(12, 3, strides=2, padding="same"), "TRANSPOSE_CONV"),
    # Each place is made by one weight: all four kinds of places have to be calibrated on.
    "transposed 2": (layers.Conv2DTranspose(8, 2, strides=2, activation="relu"), "TRANSPOSE_CONV"),
    "noise": (layers.GaussianNoise(0.5), None),
    "random flip": (layers.RandomFlip(), None),
    "random contrast": (layers.RandomContrast(0.5), None),
}


def net(middle: str) -> keras.Model:
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.Conv2D(8, 3, name="first")(x)
    x = MIDDLES[middle][0](x)
    x = layers.Conv2D(8, 1, name="last")(x)
    return randomized(keras.Model(image, x))


def decibels(y: np.ndarray, z: np.ndarray) -> float:
    return 10 * np.log10(np.square(y - y.mean(0)).sum() / np.square(y - z).sum())


@pytest.mark.backend
@pytest.mark.parametrize("middle", MIDDLES)
def test_int8_is_near_float(middle):
    model, x = net(middle), images(16, size=16)
    int8 = kzoo.quantize(model, calibration=x)
    seen = images(8, size=16, seed=1).astype("float32")
    y, z = (keras.ops.convert_to_numpy(m.predict_on_batch(seen)) for m in (model, int8))
    assert 25 < decibels(y, z) < 60


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes the files")
@pytest.mark.parametrize("middle", MIDDLES)
def test_in_the_file_it_is_int8(middle, tmp_path):
    int8 = kzoo.quantize(net(middle), calibration=images(16, size=16))
    file = convert(int8, tmp_path / "model.tflite")
    found = audit(file)
    operator = MIDDLES[middle][1]
    assert operator is None or operator in found.census
    # TensorFlow's converter has no int8 ELU.
    assert [op.split()[1] for op in found.float_ops] == ["ELU"] * (operator == "ELU")
    assert found.conversions == ((2, 3) if operator == "ELU" else (1, 2))  # the bytes too
    seen = images(8, size=16, seed=1)
    simulated = int8.predict(seen.astype("float32"), verbose=0)
    assert np.abs(Runner(file)(seen) - simulated).max() < 2.5 * np.ptp(simulated) / 255


@pytest.mark.backend
def test_equal_activations_of_a_tensor_become_one():
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, name="first")(image)
    both = [layers.DepthwiseConv2D(3)(layers.ReLU(name=name)(x)) for name in ("one", "two")]
    model = randomized(keras.Model(image, layers.Add()([*both, layers.Cropping2D(1)(x)])))
    int8 = kzoo.quantize(model, calibration=images(16, size=16))
    assert [x.name for x in int8.layers if "two" in x.name] == []
    seen = images(8, size=16, seed=1).astype("float32")
    y, z = (keras.ops.convert_to_numpy(m.predict_on_batch(seen)) for m in (model, int8))
    assert decibels(y, z) > 25


# Why: TFLite has no operator for it.
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes the files")
def test_what_has_no_int8_form_is_named_and_goes_in_float(tmp_path):
    layer = layers.LayerNormalization(name="middle")
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, name="first")(image)
    x = layers.Conv2D(8, 1, name="last")(layer(x))
    model, taken = randomized(keras.Model(image, x)), images(16, size=16)
    with pytest.raises(ValueError, match=r"no int8 form for 'middle'.*keep_float=\[\"middle\"\]"):
        kzoo.quantize(model, calibration=taken)
    int8 = kzoo.quantize(model, calibration=taken, keep_float=["middle"])
    file = convert(int8, tmp_path / "model.tflite")
    assert audit(file).float_ops
    seen = images(8, size=16, seed=1)
    simulated = int8.predict(seen.astype("float32"), verbose=0)
    assert decibels(simulated, Runner(file)(seen)) > 25


@pytest.mark.backend
def test_a_lambda_that_is_kept_in_float_is_that_function():
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Lambda(lambda pixels: pixels / 127.5 - 1, name="scale")(image)
    model = randomized(keras.Model(image, layers.Conv2D(8, 3, name="conv")(x)))
    int8 = kzoo.quantize(model, calibration=images(16, size=16), keep_float=["scale"])
    seen = images(8, size=16, seed=1).astype("float32")
    y, z = (keras.ops.convert_to_numpy(m.predict_on_batch(seen)) for m in (model, int8))
    assert decibels(y, z) > 25


def test_a_float16_input_is_float32():
    image = keras.Input((16, 16, 3), name="image", dtype="float16")
    model = randomized(keras.Model(image, layers.Conv2D(8, 3, dtype="float16")(image)))
    assert kzoo.quantize(model, calibration=images(16, size=16)).input.dtype == "float32"
