"""The gradient of wide depthwise kernels in parts is the stock one."""

import keras
import numpy as np
import pytest

from kzoo import depthwise
from kzoo.qat import QuantDepthwiseConv2D
from kzoo.recipes.training.frozen_norms import NormedDepthwiseConv2D

tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the parts are for TensorFlow"
)


@pytest.fixture
def ways(monkeypatch):
    """Two settings, by name: gradients as TensorFlow has them, and in parts on any processor."""

    def choose(in_parts: bool) -> None:
        monkeypatch.setattr(depthwise, "computes_by_onednn", lambda: in_parts)

    return {"stock": lambda: choose(False), "parts": lambda: choose(True)}


def gradients(layer, x, upstream):
    """Return (output, gradient of x, of the kernel) of a layer in training."""
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        total = tf.reduce_sum(y * upstream)
    return [value.numpy() for value in (y, *tape.gradient(total, [x, layer.kernel.value]))]


@tensorflow
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("kind", [NormedDepthwiseConv2D, QuantDepthwiseConv2D])
def test_gradients_are_the_stock_ones(kind, kernel, stride, padding, ways):
    rng = np.random.default_rng(0)
    for size in ((12, 9), (7, 8)):
        layer = kind(
            kernel, strides=stride, padding=padding, depth_multiplier=2,
            use_bias=kind is QuantDepthwiseConv2D,
        )  # fmt: skip
        x = rng.normal(size=(3, *size, 4)).astype("float32")
        layer.build(x.shape)
        layer.set_weights([rng.uniform(0.5, 1, w.shape) for w in layer.get_weights()])
        upstream = rng.normal(size=layer.compute_output_shape(x.shape)).astype("float32")
        found = {}
        for way, choose in ways.items():
            choose()
            found[way] = gradients(layer, x, upstream)
        for stock, parts in zip(found["stock"], found["parts"], strict=True):
            np.testing.assert_allclose(parts, stock, rtol=1e-5, atol=1e-5 * np.abs(stock).max())


def two_kernels():
    """A float and an int8 depthwise layer of five columns, between a stem and a head."""
    keras.utils.set_random_seed(0)
    image = keras.Input((15, 15, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    x = NormedDepthwiseConv2D(5, padding="same", use_bias=False)(x)
    x = QuantDepthwiseConv2D(5, strides=2, padding="same")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(image, keras.layers.Dense(2)(x))


@tensorflow
def test_training_steps_are_the_same(ways):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 15, 15, 3)), rng.normal(size=(8, 2))
    losses, learnt = [], []
    for choose in ways.values():
        choose()
        net = two_kernels()
        net.compile(keras.optimizers.SGD(0.1), "mse")
        losses.append([float(net.train_on_batch(x, y)) for _ in range(4)])
        learnt.append(net.get_weights())
    assert losses[0][-1] < 0.99 * losses[0][0]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for stock, parts in zip(*learnt, strict=True):
        np.testing.assert_allclose(parts, stock, rtol=1e-4, atol=1e-6)


@pytest.mark.backend
def test_inference_and_unknown_sizes_take_the_plain_convolution(ways):
    ways["parts"]()
    layer = NormedDepthwiseConv2D(5, padding="same", use_bias=False)
    x = keras.Input((None, None, 2))
    assert layer(x, training=True).shape == (None, None, None, 2)
    assert not depthwise.splits(x, layer.kernel, layer)
