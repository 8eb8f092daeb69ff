"""The fake-quantizing layers: hand-computed values and gradients, the same on every backend."""

import keras
import numpy as np
import pytest
from keras import ops

from kzoo.qat import FakeQuant, QuantConv2D, QuantDense, QuantDepthwiseConv2D

pytestmark = pytest.mark.backend


def levels(x, low, high):
    """What an int8 tensor holds of x: zero point and scale as TFLite computes them."""
    scale = (high - low) / 255
    zero_point = -128 - round(low / scale)
    q = np.clip(np.floor(x / scale + 0.5) + zero_point, -128, 127)
    return (q - zero_point) * scale


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 1.02), (-3.2, 0.0), (-0.1, 25.4)])
def test_values_at_and_beyond_the_edges(low, high, training):
    scale = (high - low) / 255
    edges = [low, high, 0.0]
    x = np.array([e + d * scale for e in edges for d in (-300, -0.6, -0.4, 0, 0.4, 0.6, 300)])
    x = x.astype("float32").reshape(1, -1)
    y = ops.convert_to_numpy(FakeQuant(low, high)(x, training=training))
    np.testing.assert_allclose(y, levels(x, low, high), atol=1e-3 * scale)
    assert 0.0 in y


def gradient(function, x):
    """d sum(function(x)) / dx on the backend in use."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(function(x))
        return tape.gradient(y, x).numpy()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: function(x).sum())(x))
    import torch

    x = torch.tensor(x, requires_grad=True)
    function(x).sum().backward()
    return x.grad.numpy()


@pytest.mark.parametrize("training", [False, True])
def test_gradients_pass_within_the_range_and_stop_beyond(training):
    x = np.array([[-5.0, -0.9, 0.0, 0.31, 0.99, 1.7]], "float32")
    layer = FakeQuant(-1.0, 1.0)
    layer(x)
    found = gradient(lambda x: layer(x, training=training), x)
    np.testing.assert_array_equal(found, [[0, 1, 1, 1, 1, 0]])


def test_ranges_stay_unless_they_are_made_trainable():
    layer = FakeQuant(-1.0, 2.0)
    layer.build((None, 4))
    assert not layer.trainable_weights
    layer.trainable = True
    assert [w.name for w in layer.trainable_weights] == ["low", "high"]


@pytest.mark.parametrize(("low", "high"), [(0.5, 1.0), (-2.0, -1.0), (0.0, 0.0)])
def test_a_range_without_zero_or_of_no_width_is_refused(low, high):
    with pytest.raises(ValueError, match="must contain zero and more than one value"):
        FakeQuant(low, high)


KINDS = {
    "conv": (lambda: QuantConv2D(3, 2, use_bias=True), (1, 4, 4, 2)),
    "depthwise": (lambda: QuantDepthwiseConv2D(2, depth_multiplier=2), (1, 4, 4, 2)),
    "dense": (lambda: QuantDense(3), (1, 2)),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_symmetric_levels_of_each_output_channel(kind, training):
    make, shape = KINDS[kind]
    layer = make()
    layer.build(shape)
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 1, layer.kernel.shape).astype("float32")
    layer.kernel.assign(kernel)
    layer.limits.assign(np.stack([np.full(layer.bias.shape, v) for v in (1e-6, 1e6)]))
    layer.input_scale.assign(0.02)
    n = layer.bias.shape[0]
    got = ops.convert_to_numpy(layer.rounded(ops.reshape(layer.kernel, (-1, n)), training)[0])
    kernel, got = (k.reshape(-1, n) for k in (kernel, got))
    scale = np.abs(kernel).max(axis=0) / 127
    np.testing.assert_allclose(got, np.rint(kernel / scale) * scale, rtol=1e-5, atol=1e-6)
    assert np.abs(got / scale).max() < 127.01


def test_a_bias_is_an_int32_in_steps_of_both_scales():
    layer = QuantDense(2)
    layer.build((1, 2))
    layer.kernel.assign([[1.0, 0.5], [-1.27, 0.2]])
    layer.bias.assign([0.123, 1.0])
    layer.limits.assign([[1e-6, 1e-6], [1e6, 1e6]])
    layer.input_scale.assign(0.5)
    bias = ops.convert_to_numpy(layer.rounded(layer.kernel, False)[1])
    step = 0.5 * np.array([1.27, 0.5]) / 127
    np.testing.assert_allclose(bias, np.rint([0.123, 1.0] / step) * step, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_limits_floor_and_clip_the_range_of_weights(training):
    layer = QuantDense(2)
    layer.build((1, 2))
    layer.kernel.assign([[1e-6, 3.0], [-2e-6, 10.0]])
    layer.bias.assign([1.0, 0.0])
    layer.limits.assign([[0.1, 0.1], [5.0, 5.0]])
    layer.input_scale.assign(1e-3)
    kernel, bias = map(ops.convert_to_numpy, layer.rounded(layer.kernel, training))
    np.testing.assert_allclose(kernel[:, 0], 0, atol=1e-9)  # less than half a step of 0.1 / 127
    np.testing.assert_allclose(kernel[:, 1], [3.0, 5.0], atol=0.02)
    assert abs(bias[0] / (1e-3 * 0.1 / 127)) < 2**31


def test_every_weight_of_a_channel_learns():
    """The largest one too: were its range rounded down, it would lie outside and stay."""
    layer = QuantDense(64)
    layer.build((1, 8))
    kernel = np.random.default_rng(0).normal(0, 1, (8, 64)).astype("float32")
    layer.limits.assign(np.stack([np.full(64, v) for v in (1e-6, 1e6)]))
    layer.input_scale.assign(0.02)
    layer.kernel.assign(kernel)
    optimizer = keras.optimizers.SGD(1.0)
    model = keras.Sequential([keras.Input((8,)), layer])
    model.compile(optimizer, lambda _, y: ops.sum(y, axis=-1), jit_compile=False)
    model.fit(np.ones((1, 8)), np.zeros((1, 64)), verbose=0)
    moved = kernel - ops.convert_to_numpy(layer.kernel)
    np.testing.assert_allclose(moved, 1.0, rtol=1e-5)
