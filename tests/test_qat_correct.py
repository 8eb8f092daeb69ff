"""Weights fitted to int8 inputs, held against least squares and against images not fitted on."""

import keras
import numpy as np
import pytest
from keras import layers

import kzoo
from kzoo.quantization import correct
from kzoo.quantization.correct import Moments, Sums, images_for, is_fitted
from kzoo.quantization.graph import Linear
from kzoo.quantization.lower import lower
from kzoo.quantization.read import read

pytestmark = pytest.mark.backend


def linear(kernel: np.ndarray, **config) -> Linear:
    bias = np.zeros(kernel.shape[-1], np.float32)
    return Linear("project", ("x",), layers.Conv2D, config, kernel, bias)


def coarse_and_fine() -> keras.Model:
    """Channels p and 4 p of a pixel p have int8 steps of 100; the output reads p alone."""
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(3, 1, name="first")(image)
    model = keras.Model(image, layers.Conv2D(1, 1, name="last")(x))
    first, last = (model.get_layer(name) for name in ("first", "last"))
    first.set_weights([np.reshape([1.0, 4.0, 0.0], (1, 1, 1, 3)), np.array([0, 0, 25500])])
    last.set_weights([np.reshape([1.0, 0.0, 0.0], (1, 1, 3, 1)), np.zeros(1)])
    return model


def pixels(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 1)).astype("float32")


def noise(model: keras.Model, **options) -> float:
    seen = pixels(16, 1)
    int8 = kzoo.quantize(model, calibration=pixels(64, 0), equalization=False, **options)
    y, z = (keras.ops.convert_to_numpy(m.predict_on_batch(seen)) for m in (model, int8))
    return float(np.square(y - z).mean())


def test_weights_go_to_the_channel_that_int8_hurts_least(monkeypatch):
    """A step's square by 12 before; of 4 p a sixteenth, but weights are held to what they are."""
    model = coarse_and_fine()
    after = noise(model, ranges="minmax")
    monkeypatch.setattr(correct, "is_fitted", lambda op: False)
    before = noise(model, ranges="minmax")
    assert before == pytest.approx(100**2 / 12, rel=0.15)
    assert after < 0.4 * before


@pytest.mark.parametrize("strides", [1, 2])
def test_the_change_is_that_of_least_squares(strides):
    rng = np.random.default_rng(0)
    op = linear(np.zeros((1, 1, 3, 2), np.float32), strides=strides)
    x = rng.normal(2, 1, (5, 4, 4, 3)).astype("float32")
    y = rng.normal(size=(5, 4 // strides, 4 // strides, 2)).astype("float32")
    sums = Sums(op, (-np.inf, np.inf))
    for i in (0, 3):
        sums.add(x[i : i + 3], y[i : i + 3])
    seen = x[:, ::strides, ::strides].reshape(-1, 3)
    with_bias = np.concatenate([seen, np.ones_like(seen[:, :1])], axis=1)
    wanted, (left, *_), *_ = np.linalg.lstsq(with_bias, y.reshape(-1, 2), rcond=None)
    moments = sums.moments()
    change = moments.change(1e-9)
    np.testing.assert_allclose(change, wanted[:3], atol=1e-5)
    rest = y.reshape(-1, 2) - with_bias @ wanted
    assert left == pytest.approx(np.square(rest).sum(axis=0)[0], rel=1e-4)
    small = np.full((3, 2), 1e-9)  # steps of weights that round nothing
    assert moments.error(change, small - change) == pytest.approx(np.square(rest).sum(), rel=1e-4)


def test_errors_of_what_a_relu6_cuts_off_count_for_nothing():
    """Of outputs 50, -3 and 4 where 40, -9 and 3 are computed, ReLU6 lets one error of 1 pass."""
    op = linear(np.eye(3, dtype=np.float32)[None, None])
    sums = Sums(op, (0.0, 6.0))
    sums.add(np.array([[[[40.0, -9.0, 3.0]]]]), np.array([[[[50.0, -3.0, 4.0]]]]))
    _, _, residuals, _, _, squares = sums.sums
    assert residuals.tolist() == [0.0, 0.0, 1.0]
    assert squares == 1.0


def test_rounding_coarser_weights_counts():
    """A step of .1 over 127 levels adds a twelfth of its square for each square of inputs."""
    moments = Moments(10, np.eye(2), np.zeros((2, 1)), 1.0)
    kernel = np.array([[12.7], [0.0]])
    assert moments.error(np.zeros((2, 1)), kernel) == pytest.approx(1 + 2 * 0.01 / 12)


def test_which_layers_are_fitted():
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, name="stem")(image)
    x = layers.DepthwiseConv2D(1, name="shift")(x)
    x = layers.Conv2D(8, 1, groups=2, name="grouped")(x)
    x = layers.Conv2D(8, 1, strides=2, name="project")(x)
    x = layers.Conv2DTranspose(8, 1, name="up")(x)
    x = layers.Conv2D(4, 1, name="kept")(x)
    x = layers.Dense(2, name="scores")(layers.GlobalAveragePooling2D()(x))
    graph = lower(read(keras.Model(image, x), ["kept"]), hard_swish="split", bytes_in=False)
    all_linear = [op for op in graph.ops.values() if isinstance(op, Linear)]
    assert [op.name for op in all_linear if is_fitted(op)] == ["project", "scores"]
    assert images_for(graph) == 128  # small tensors


def test_few_images_leave_the_weights_as_they_are():
    model = coarse_and_fine()
    few = kzoo.quantize(model, calibration=pixels(15, 0), equalization=False)
    found, given = (m.get_layer("last").get_weights()[0] for m in (few, model))
    np.testing.assert_array_equal(found, given)


def test_large_tensors_mean_fewer_images():
    shape = (224, 224, 3)
    model = kzoo.MobileNetV3Small(weights=None, input_shape=shape)
    assert images_for(read(model)) == 128
    wide = keras.Sequential([keras.Input(shape), layers.Conv2D(96, 3)])
    assert images_for(read(wide)) == 32
