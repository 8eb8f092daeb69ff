"""Learned rounding and ranges by the outputs: what they gain, and that weights lie on the grid."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers
from qat_nets import images, net, randomized

import kzoo
from kzoo.quantization.layers import Quantized
from kzoo.quantization.rounding import rounded

pytestmark = pytest.mark.backend


def decibels(model: keras.Model, other: keras.Model, x: np.ndarray) -> float:
    y, z = (keras.ops.convert_to_numpy(m.predict_on_batch(x)) for m in (model, other))
    return 10 * np.log10(np.square(y - y.mean(0)).sum() / np.square(y - z).sum())


def differences() -> keras.Model:
    """A depthwise layer whose kernels take differences of values that are large and alike."""
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(8, 1, name="first")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    model = randomized(keras.Model(image, layers.Conv2D(4, 1, name="last")(x)))
    kernel, bias = model.get_layer("depthwise").get_weights()
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 1, kernel.shape)
    kernel -= kernel.mean(axis=(0, 1)) - 0.003
    model.get_layer("depthwise").set_weights([kernel, bias])
    return model


def test_differences_of_large_values_are_kept():
    model, x = differences(), images(32, size=16)
    seen = images(16, size=16, seed=1).astype("float32")
    nearest, learned = (
        decibels(model, kzoo.quantize(model, calibration=x, rounding=rounding), seen)
        for rounding in ("nearest", "learned")
    )
    assert learned > nearest + 2


def test_weights_lie_on_the_grid_that_the_layer_rounds_to():
    model = kzoo.quantize(net("v3-small"), calibration=images(8), rounding="learned")
    linear = [layer for layer in model.layers if isinstance(layer, Quantized)]
    assert len(linear) > 40
    for layer in linear:
        kernel = layer.kernel
        if isinstance(layer, layers.DepthwiseConv2D):
            kernel = keras.ops.reshape(kernel, (*kernel.shape[:2], 1, -1))
        found = keras.ops.convert_to_numpy(layer.rounded(kernel, False)[0])
        kernel = keras.ops.convert_to_numpy(kernel)
        assert np.abs(found - kernel).max() <= 1e-5 * np.abs(kernel).max(), layer.name


def test_whole_numbers_near_the_best_that_there_are():
    """Against all of the 3^4 neighbours of each rounding to nearest."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (20, 50, 4)) + 3  # a common mode
    hessian = np.matmul(x.transpose(0, 2, 1), x)
    target = rng.uniform(-5, 5, (20, 4, 1))

    def error(levels: np.ndarray) -> np.ndarray:
        difference = levels - target
        return np.einsum("gkm,gkl,glm->g", difference, hessian, difference)

    steps = itertools.product((-1, 0, 1), repeat=4)
    nearest = np.round(target)
    best = np.min([error(nearest + np.reshape(step, (4, 1))) for step in steps], axis=0)
    found = error(rounded(target, hessian))
    assert (found <= error(nearest) + 1e-9).all()
    assert np.mean(found / best) < 1.2
    assert np.mean(error(nearest) / best) > 2  # nearest is much worse


def test_ranges_by_the_outputs_are_no_worse():
    """One pixel in a hundred is large and clipped behind: least squares keeps it, for nothing."""
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 255, name="preprocessing")(image)
    x = layers.Conv2D(8, 1, activation="hard_swish", name="first")(x)
    x = layers.DepthwiseConv2D(3, activation="relu6", name="depthwise")(x)
    model = randomized(keras.Model(image, layers.GlobalAveragePooling2D(name="pool")(x)))
    kernel, bias = model.get_layer("depthwise").get_weights()
    model.get_layer("depthwise").set_weights([kernel * 6, bias])
    said = []
    x = images(32, size=16)
    seen = images(16, size=16, seed=1).astype("float32")
    plain = kzoo.quantize(model, calibration=x)
    found = kzoo.quantize(model, calibration=x, ranges="output", progress=said.append)
    assert decibels(model, found, seen) > decibels(model, plain, seen) - 0.2
    assert said
    assert said[0].startswith("range 1 of ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounding": "best"}, 'must be "nearest" or "learned". Received: rounding=\'best\''),
        ({"ranges": "best"}, r"must be \"mse\", \"minmax\", \"output\" or a share"),
    ],
)
def test_choices_that_there_are_not(options, message):
    with pytest.raises(ValueError, match=message):
        kzoo.quantize(differences(), calibration=images(2, size=16), **options)
