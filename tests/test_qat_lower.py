"""The float rewrites of quantize(), held against the models they rewrite."""

import keras
import numpy as np
import pytest
from keras import layers
from qat_nets import NETS, images, net, randomized

import kzoo
from kzoo.quantization.emit import emit
from kzoo.quantization.graph import Activation, Affine, Linear
from kzoo.quantization.lower import lower
from kzoo.quantization.read import read

pytestmark = pytest.mark.backend


def lowered(model, *, hard_swish="split", bytes_in=False):
    graph = lower(read(model), hard_swish=hard_swish, bytes_in=bytes_in)
    return graph, emit(graph, name=model.name)


def difference(model, other, x):
    """The largest difference of outputs, against the spread of the first model's."""
    y = keras.ops.convert_to_numpy(model.predict_on_batch(x))
    z = keras.ops.convert_to_numpy(other.predict_on_batch(x))
    assert y.std() > 0.1, "the net computes nothing"
    return np.abs(y - z).max() / np.abs(y).max()


def functions(graph):
    return {op.function for op in graph.ops.values() if isinstance(op, Activation)}


@pytest.mark.parametrize("hard_swish", ["split", "op"])
@pytest.mark.parametrize("name", NETS)
def test_the_lowering_computes_what_the_model_does(name, hard_swish):
    model, x = net(name), images(4).astype("float32")
    graph, other = lowered(model, hard_swish=hard_swish)
    assert difference(model, other, x) < 1e-4
    assert "hard_sigmoid" not in functions(graph)
    assert ("hard_swish" in functions(graph)) == (hard_swish == "op" and name != "v2")


def test_the_residual_of_a_hard_swish_stays_six_times_larger():
    """V3-Large adds the stem's hard-swish to row 0's projection: nothing divides in between."""
    graph, _ = lowered(net("v3-large"))
    assert not any(isinstance(op, Affine) for op in graph.ops.values())
    plain, _ = lowered(net("v3-large"), hard_swish="op")
    project, before = (g.ops["row1_project"].kernel for g in (graph, plain))
    np.testing.assert_allclose(project, 6 * before, rtol=1e-6)


@pytest.mark.parametrize("preprocessing", ["tf", "torch"])
def test_pixels_go_into_the_first_convolution(preprocessing):
    """Away from the edges, where zero padding stands for a whole pixel, nothing changes."""
    image = keras.Input((32, 32, 3), name="image")
    scale, offset = {
        "tf": (1 / 127.5, -1.0),
        "torch": ([0.0171, 0.0175, 0.0174], [-2.118, -2.036, -1.804]),
    }[preprocessing]
    x = layers.Rescaling(scale, offset, name="preprocessing")(image)
    x = layers.Conv2D(8, 3, 2, padding="same", use_bias=False, name="conv")(x)
    model = randomized(keras.Model(image, x))
    graph, other = lowered(model, bytes_in=True)
    first = graph.ops["image"]
    assert first.zero == {"tf": 128, "torch": 115}[preprocessing]  # 127.5, and 114.6 on average
    assert not any(isinstance(op, Affine) for op in graph.ops.values())
    y, z = (
        keras.ops.convert_to_numpy(m.predict_on_batch(images(2, size=32))) for m in (model, other)
    )
    np.testing.assert_allclose(y[:, :-1, :-1], z[:, :-1, :-1], atol=1e-5)
    # At the edge by no more than the bound: what `zero` is instead of 0, times absolute weights.
    padded = np.abs(np.float32(scale) * first.zero + np.float32(offset)) * np.ones(3)
    kernel = np.abs(keras.ops.convert_to_numpy(model.get_layer("conv").kernel))
    corner = kernel[2:].sum(axis=(0, 1)) + kernel[:2, 2:].sum(axis=(0, 1))  # (3, 8)
    assert np.all(np.abs(y - z).max(axis=(0, 1, 2)) <= padded @ corner + 1e-5)
    assert padded.max() <= {"tf": 0.5 / 127.5 + 1e-6, "torch": 0.21}[preprocessing]


def tower(*stack, shape=(16, 16, 8)):
    image = keras.Input(shape, name="image")
    x = image
    for layer in stack:
        x = layer(x)
    return randomized(keras.Model(image, x))


larger = [
    pytest.mark.slow,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="the graph is the same on every backend, and compiling takes its time",
    ),
]


@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV2",
        "MobileNetV3Small",
        pytest.param("MobileNet", marks=larger),
        pytest.param("EfficientNetB0", marks=larger),
        pytest.param("ResNet50", marks=larger),
    ],
)
def test_keras_applications(name):
    build = getattr(keras.applications, name)
    model = randomized(build(input_shape=(64, 64, 3), weights=None, classes=10))
    model.layers[-1].activation = keras.activations.linear
    graph, other = lowered(model)
    assert difference(model, other, images(4).astype("float32")) < 1e-4
    linear = [op for op in graph.ops.values() if isinstance(op, Linear)]
    convs = [layer.name for layer in model.layers if hasattr(layer, "kernel")]
    more = {op.name for op in linear} - set(convs)
    assert all(name.startswith("rescaling") for name in more)
    assert len(linear) - len(convs) <= 1


def test_a_model_within_a_model_and_batch_norms_of_all_kinds():
    inner = tower(layers.Conv2D(6, 3, name="conv"), layers.BatchNormalization(name="bn"))
    image = keras.Input((16, 16, 8), name="image")
    x = layers.BatchNormalization(name="first")(image)  # nothing before it, padding after it
    x = layers.Activation("relu", name="act")(x)
    x = layers.Add(name="three")([inner(x), inner(x), inner(x)])
    x = layers.SeparableConv2D(5, 3, activation="hard_swish", name="separable")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.BatchNormalization(name="flat")(x)  # into the Dense after
    x = layers.Dense(4, name="dense")(x)
    model = keras.Model(image, x)
    for layer in model.layers:
        if hasattr(layer, "moving_mean"):
            randomized(keras.Sequential([layer]))
    x = np.random.default_rng(0).normal(0, 1, (4, 16, 16, 8)).astype("float32")
    _, other = lowered(model)
    y, z = model.predict_on_batch(x), other.predict_on_batch(x)
    np.testing.assert_allclose(y, z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["hard_swish", "relu"])
def test_factors_pass_no_border_of_a_value(activation):
    """A border of 3 stays 3: six times larger before it, it would not be."""
    model = tower(
        layers.Conv2D(8, 1, activation=activation),
        layers.Resizing(24, 16, pad_to_aspect_ratio=True, fill_value=3.0),
        layers.DepthwiseConv2D(3),
    )
    x = np.random.default_rng(0).normal(0, 2, (2, 16, 16, 8)).astype("float32")
    assert difference(model, lowered(model)[1], x) < 1e-5
    int8 = kzoo.quantize(model, calibration=x, bias_correction=False)
    assert difference(model, int8, x) < 0.1


def test_a_hard_swish_that_nothing_linear_follows_is_divided_again():
    model = tower(
        layers.Conv2D(8, 1, name="conv"),
        layers.Activation("hard_swish", name="swish"),
        layers.Activation("hard_swish", name="again"),
    )
    graph, other = lowered(model)
    assert sum(isinstance(op, Affine) for op in graph.ops.values()) == 2
    x = np.random.default_rng(0).normal(0, 2, (2, 16, 16, 8)).astype("float32")
    assert difference(model, other, x) < 1e-5


PER_CHANNEL = {"mean": [190.0, 110.0, 20.0], "variance": [9000.0, 4000.0, 1000.0]}


@pytest.mark.parametrize(
    "stack",
    [
        [layers.LeakyReLU(0.1), layers.Conv2D(8, 3)],
        [layers.PReLU(keras.initializers.Constant(0.25)), layers.Conv2D(8, 3)],
        [layers.Flatten(), layers.Dense(8)],
        [layers.Permute((2, 3, 1)), layers.Conv2D(8, 1)],
        [layers.Reshape((16, 48, 1)), layers.Conv2D(8, 3)],
        [layers.Permute((2, 1, 3)), layers.MaxPooling2D(), layers.Conv2D(8, 3)],
    ],
    ids=lambda stack: stack[0].name.rstrip("_0123456789"),
)
def test_pixels_go_past_no_layer_that_changes_or_bends_channels(stack):
    model = tower(layers.Normalization(**PER_CHANNEL), *stack, shape=(16, 16, 3))
    _, other = lowered(model, bytes_in=True)
    assert difference(model, other, images(2, size=16).astype("float32")) < 1e-5


@pytest.mark.parametrize("function", ["hard_swish", "hard_sigmoid", "silu"])
@pytest.mark.parametrize("part", ["gate", "affine", "quant", "ungained"])
def test_layers_may_have_the_names_of_parts_that_are_added(function, part):
    """keras.applications and people call layers x_gate too."""
    image = keras.Input((16, 16, 8), name="image")
    before = layers.Conv2D(8, 1, name=f"act_{part}")(image)
    x = layers.Activation(function, name="act")(layers.Conv2D(8, 1, name="conv")(image))
    x = layers.Concatenate(name="preprocessing")([before, x])
    model = randomized(keras.Model(image, layers.Conv2D(4, 1, name=f"conv_{part}")(x)))
    _, other = lowered(model)
    x = np.random.default_rng(0).normal(0, 2, (2, 16, 16, 8)).astype("float32")
    assert difference(model, other, x) < 1e-5


def test_a_batch_norm_goes_past_dropout_into_all_dense_layers_that_read_it():
    """The usual head: Dense, batch norm, dropout, Dense."""
    image = keras.Input((16, 16, 8), name="image")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(image))
    x = layers.BatchNormalization(name="norm")(layers.Dense(16, activation="relu")(x))
    x = layers.Dropout(0.3)(x)
    model = randomized(keras.Model(image, [layers.Dense(3)(x), layers.Dense(1)(x)]))
    graph, other = lowered(model)
    assert "norm" not in graph.ops
    x = np.random.default_rng(0).normal(0, 2, (4, 16, 16, 8)).astype("float32")
    for y, z in zip(model.predict_on_batch(x), other.predict_on_batch(x), strict=True):
        np.testing.assert_allclose(y, z, rtol=1e-4, atol=1e-5)
