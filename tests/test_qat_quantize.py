"""quantize(): what it promises of a model, and how it says no."""

import re

import keras
import numpy as np
import pytest
from keras import layers
from qat_nets import images, net, randomized

import kzoo
from kzoo.qat import FakeQuant, sensitivity
from kzoo.tflite.convert.request import image_shape, output_names

pytestmark = pytest.mark.backend


@pytest.fixture(scope="module")
def small():
    return net("v3-small")


@pytest.fixture(scope="module")
def before(small):
    """(What the float model says of `images(2)`, its weights), before it was quantized."""
    outputs = small.predict_on_batch(images(2).astype("float32"))
    return outputs, [np.array(w) for w in small.get_weights()]


@pytest.fixture(scope="module")
def quantized(small, before):
    return kzoo.quantize(small, calibration=images())


def test_the_float_model_stays_as_it_was(small, before, quantized):
    outputs, weights = before
    np.testing.assert_array_equal(outputs, small.predict_on_batch(images(2).astype("float32")))
    for was, now in zip(weights, small.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)
    assert all(len(layer._inbound_nodes) == 1 for layer in small.layers)


def test_the_quantized_model_is_near_the_float_one(small, quantized):
    x = images(16, seed=1).astype("float32")
    y, z = small.predict_on_batch(x), quantized.predict_on_batch(x)
    noise = np.sum((y - z) ** 2) / np.sum((y - y.mean(axis=0)) ** 2)
    assert 1e-6 < noise < 0.3


def test_saved_and_loaded_it_computes_the_same(quantized, tmp_path):
    quantized.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = images(2).astype("float32")
    np.testing.assert_array_equal(quantized.predict_on_batch(x), loaded.predict_on_batch(x))


def test_calibration_comes_in_any_form():
    image = keras.Input((64, 64, 3), name="image")
    x = layers.Conv2D(8, 3, 4, activation="hard_swish", name="first")(image)
    net = randomized(keras.Model(image, layers.Conv2D(4, 1, name="last")(x)))

    def ranges(calibration):
        model = kzoo.quantize(net, calibration=calibration)
        return [
            w for layer in model.layers if isinstance(layer, FakeQuant) for w in layer.get_weights()
        ]

    x = images(8)
    array = ranges(x)
    labelled = ranges([(x[:5].astype("float32"), np.zeros(5)), (x[5:], np.zeros(3))])
    streamed = ranges(iter([keras.ops.convert_to_tensor(x)]))
    np.testing.assert_allclose(array, labelled, rtol=1e-5)
    np.testing.assert_allclose(array, streamed, rtol=1e-5)


def test_bias_correction_takes_off_what_int8_shifts():
    """Every pixel rounds the same way: without correction the whole output is shifted."""
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 1, name="first")(image)
    model = randomized(keras.Model(image, layers.Conv2D(4, 1, name="last")(x)))
    x = np.full((4, 8, 8, 3), 0.1234, "float32")
    x[:, 0, 0] = [5.0, -5.0, 3.0]
    y = model.predict_on_batch(x)
    shifts = []
    for bias_correction in (False, True):
        z = kzoo.quantize(model, calibration=x, bias_correction=bias_correction).predict_on_batch(x)
        shifts.append(np.abs((z - y).mean(axis=(0, 1, 2))).max())
    assert shifts[1] < shifts[0]


def test_zero_is_a_level_of_every_range(quantized):
    for layer in quantized.layers:
        if isinstance(layer, FakeQuant):
            low, high = (float(w) for w in layer.get_weights())
            zero = -low / ((high - low) / 255)
            assert abs(zero - round(zero)) < 1e-3
            assert low <= 0 <= high


def test_layers_kept_in_float_lose_nothing():
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = layers.LayerNormalization(name="odd")(x)
    model = randomized(keras.Model(image, layers.Conv2D(2, 1, name="last")(x)))
    with pytest.raises(
        ValueError, match=r"no int8 form for 'odd' \(LayerNormalization.*keep_float"
    ):
        kzoo.quantize(model, calibration=images(4, size=16))
    kept = kzoo.quantize(model, calibration=images(4, size=16), keep_float=["odd", "last"])
    assert type(kept.get_layer("last")) is layers.Conv2D
    names = [layer.name for layer in kept.layers if isinstance(layer, FakeQuant)]
    assert names == ["image_quant", "conv_quant"]
    np.testing.assert_array_equal(kept.get_layer("last").kernel, model.get_layer("last").kernel)


@pytest.mark.parametrize(
    ("kept", "names"),
    [
        ("last", {"last"}),
        ([layers.Conv2D], {"first", "last"}),
        ([re.compile("f.*")], {"first"}),
        ([re.compile("irs")], None),
        ([layers.Dense], None),
    ],
)
def test_layers_to_keep_are_chosen_by_name_class_or_pattern(kept, names):
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 1, name="first")(image)
    model = randomized(keras.Model(image, layers.Conv2D(2, 1, name="last")(x)))
    if names is None:
        with pytest.raises(
            ValueError, match=r"keep_float names layers that .* does not have: (irs|Dense)"
        ):
            kzoo.quantize(model, calibration=images(2, size=8), keep_float=kept)
        return
    int8 = kzoo.quantize(model, calibration=images(2, size=8), keep_float=kept)
    assert {x.name for x in int8.layers if type(x) is layers.Conv2D} == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration": None}, "pass about 100 of those"),
        ({"calibration": 3}, r"must be an array \(N, H, W, C\).*Received: int"),
        ({"calibration": []}, "calibration set is empty"),
        ({"hard_swish": "fused"}, "must be one of 'split', 'op'. Received: hard_swish='fused'"),
        ({"ranges": 0.7}, r"a share in \(0, 0.5\). Received: ranges=0.7"),
        ({"keep_float": ["row99"]}, "does not have: row99"),
    ],
)
def test_arguments_that_make_no_sense(small, options, message):
    with pytest.raises(ValueError, match=message):
        kzoo.quantize(small, **{"calibration": images(2)} | options)


def test_subclassed_and_quantized_models_are_refused(quantized):
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="functional and sequential models that are built"):
        kzoo.quantize(Own(), calibration=images(2))
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"Begin it with keras.Input\(\(H, W, C\)\), or call"):
        kzoo.quantize(unbuilt, calibration=images(2))
    with pytest.raises(ValueError, match=r"has int8 ranges already.*the float model"):
        kzoo.quantize(quantized, calibration=images(2))


def test_a_subclassed_model_within_is_named():
    class Block(keras.Model):
        def call(self, x):
            return x + 1

        def compute_output_shape(self, shape):
            return shape

    image = keras.Input((8, 8, 3))
    model = keras.Model(image, Block(name="block")(layers.Conv2D(4, 1)(image)))
    with pytest.raises(ValueError, match="no int8 form for 'block'"):
        kzoo.quantize(model, calibration=images(2, size=8))


def test_values_that_are_not_finite_are_reported():
    image = keras.Input((8, 8, 3), name="image")
    model = keras.Model(image, layers.Conv2D(2, 1, bias_initializer="ones", name="conv")(image))
    model.get_layer("conv").kernel.assign(np.full((1, 1, 3, 2), np.nan))
    with pytest.raises(ValueError, match="values that are not finite"):
        kzoo.quantize(model, calibration=images(2, size=8))


def scaled_net() -> keras.Model:
    """A small net that takes pixels in [0, 255]."""
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 127.5, -1)(image))
    return keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.random.default_rng(0).random((4, 16, 16, 3)), r"are in \[.*another range than"),
        (np.random.default_rng(0).uniform(-128, 127, (4, 16, 16, 3)), "another range than"),
        (np.zeros((4, 16, 16, 3)), "only the value 0, so activations have no"),
        (np.full((4, 16, 16, 3), 200), "only the value 200"),
        (np.ones((4, 16, 8, 3)), r"shape \(N, 16, 16, 3\). Received: .* \(4, 16, 8, 3\)"),
        (np.ones((4, 16, 16, 1)), r"Received: a calibration batch of shape \(4, 16, 16, 1\)"),
        (list(np.ones((4, 16, 16, 3))), r"shape \(16, 16, 3\).*make batches: np.stack"),
        ("photos", "Received: str. For a folder of images"),
    ],
)
def test_calibration_images_that_tell_nothing_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        kzoo.quantize(scaled_net(), calibration=images)


def test_bytes_for_a_net_of_fractions_are_refused():
    image = keras.Input((16, 16, 3))
    net = keras.Model(image, keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(2.0, -1)(image)))
    with pytest.raises(ValueError, match=r"makes \[-1, 50\d\] of that"):
        kzoo.quantize(net, calibration=np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)))


def test_weights_that_are_not_finite_are_refused():
    net = scaled_net()
    weights = net.get_weights()
    weights[0][0, 0, 0, 0] = np.inf
    net.set_weights(weights)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3))
    with pytest.raises(ValueError, match=r"kernel' of .* holds values that are not finite"):
        kzoo.quantize(net, calibration=images)


def test_models_of_two_inputs_are_refused_before_anything_is_computed(tmp_path):
    left, right = keras.Input((32, 32, 3), name="left"), keras.Input((32, 32, 3), name="right")
    model = keras.Model([left, right], layers.Conv2D(4, 3)(left + right), name="stereo")
    words = r"'stereo' has 2 \(left, right\)\. Quantize and convert what stands behind each"
    with pytest.raises(ValueError, match=words):
        kzoo.quantize(model, calibration={"left": images(4), "right": images(4)})
    with pytest.raises(ValueError, match=words):
        sensitivity(model, calibration=images(4), images=images(4))
    with pytest.raises(ValueError, match="convert what stands behind each by itself"):
        image_shape(model, None)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_a_model_that_keras_has_quantized_is_refused():
    net = scaled_net()
    net.quantize("int8")
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3))
    with pytest.raises(ValueError, match=r"was quantized by Keras' own quantize\(\)"):
        kzoo.quantize(net, calibration=images)


def named_ends(x) -> dict:
    """Outputs whose last int8 operation is none of a layer's own name."""
    inner = keras.Sequential([keras.Input(x.shape[1:]), layers.Dense(2, "softmax")], name="inner")
    conv = layers.Conv2D(2, 1, name="conv")(x)
    return {
        "scores": layers.Conv2D(2, 1, activation="softmax", name="scores")(x),
        "clipped": layers.Conv2D(2, 1, activation="relu", name="clipped")(x),
        "norm": layers.BatchNormalization(name="norm")(conv),
        "inner": inner(x),
        "swish": layers.Activation("hard_swish", name="swish")(x),
    }


@pytest.mark.parametrize("name", ["scores", "clipped", "norm", "inner", "swish"])
def test_an_output_keeps_its_name(name):
    """Of a Dense layer "scores" with a softmax it was "scores_act", in the file too."""
    image = keras.Input((8, 8, 3))
    model = randomized(keras.Model(image, named_ends(layers.Conv2D(4, 3)(image))[name]))
    quantized = kzoo.quantize(
        model, calibration=images(4, size=8), ranges="mse", bias_correction=False
    )
    assert model.output_names == [name]
    assert output_names(quantized, None) == [name]


@pytest.mark.parametrize("activation", ["softmax", None])
def test_outputs_of_one_layer_have_names_of_their_own(activation):
    """A layer called twice, and a model in the model: Keras names several outputs alike."""
    image = keras.Input((8, 8, 3))
    x, shared = layers.Conv2D(4, 3)(image), layers.Conv2D(2, 1, activation=activation, name="head")
    inner = keras.Input((6, 6, 4))
    parts = [layers.Conv2D(n, 1, name=f"part{n}")(inner) for n in (1, 2)]
    ends = [shared(x), shared(layers.ReLU()(x)), *keras.Model(inner, parts, name="parts")(x)]
    model = randomized(keras.Model(image, ends))
    quantized = kzoo.quantize(
        model, calibration=images(4, size=8), ranges="mse", bias_correction=False
    )
    names = [name.removesuffix("_quant") for name in quantized.output_names]
    assert len(set(names)) == 4
    assert names[0].startswith("head")
    assert "raw" not in "".join(names)


def test_saved_weights_hold_the_ranges(tmp_path):
    """Weights of another calibration bring its ranges, input scales and limits with them."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="hard_swish")(image)
    model = randomized(keras.Model(image, layers.Conv2D(2, 1)(x)))
    bright, dark = (
        kzoo.quantize(model, calibration=x, ranges="mse", bias_correction=False)
        for x in (images(4, size=8), images(4, size=8) / 8)
    )
    x = images(4, size=8, seed=1)
    assert (bright.predict_on_batch(x) != dark.predict_on_batch(x)).any()
    bright.save_weights(tmp_path / "bright.weights.h5")
    dark.load_weights(tmp_path / "bright.weights.h5")
    np.testing.assert_array_equal(bright.predict_on_batch(x), dark.predict_on_batch(x))
