"""The arguments that every backbone shares: what they build, and what wrong ones are told."""

import inspect

import keras
import numpy as np
import pytest
from golden.backends import fill
from PIL import Image

import kzoo
from kzoo.preprocessing import stretch

BUILDERS = [kzoo.MobileNetV2, kzoo.MobileNetV3Large, kzoo.MobileNetV3Small]
SMALL = {"alpha": 0.35, "input_shape": (32, 32, 3)}


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


def layer_types(model: keras.Model) -> list[type]:
    return [type(layer) for layer in model.layers]


@pytest.mark.parametrize("build", BUILDERS)
def test_any_alpha(build):
    for alpha in (1e-3, np.float32(0.6)):
        model = build(alpha, input_shape=(32, 32, 3), include_top=False)
        widths = [w.shape[-1] for w in model.weights if len(w.shape) == 4 and w.shape[-1] > 1]
        assert all(width % 8 == 0 for width in widths)
    one, whole = (build(alpha, input_shape=(32, 32, 3), include_top=False) for alpha in (1.0, 1))
    assert [w.shape for w in one.weights] == [w.shape for w in whole.weights]


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("shape", [(32, 32, 1), (33, 70, 3), (96, 64, 5), (None, None, 3)])
def test_any_size_and_any_number_of_channels(build, shape):
    model = build(0.35, input_shape=shape, classes=3)
    assert model.input_shape == (None, *shape)
    height, width = (side or 40 for side in shape[:2])
    features = keras.Model(model.input, [kzoo.pyramid(model)["P5"], model.output])
    y, scores = features(np.full((1, height, width, shape[2]), 200, "float32"))
    assert y.shape[1:3] == (-(-height // 32), -(-width // 32))
    assert scores.shape == (1, 3)


@pytest.mark.parametrize("build", BUILDERS)
def test_the_top(build):
    model = build(**SMALL, classes=7, dropout_rate=0.5)
    assert model.output_shape == (None, 7)
    assert model.get_layer("head_dropout").rate == 0.5
    scores = keras.ops.convert_to_numpy(model(np.ones((2, 32, 32, 3))))
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    logits = build(**SMALL, classifier_activation=None).get_layer("predictions")
    assert logits.activation is keras.activations.linear
    assert build(**SMALL, classifier_activation="sigmoid").output_shape == (None, 1000)


@pytest.mark.parametrize("build", BUILDERS)
def test_without_the_top(build):
    n = build(**SMALL, include_top=False).output_shape[-1]
    assert build(**SMALL, include_top=False).output_shape == (None, 1, 1, n)
    for pooling, layer in (
        ("avg", keras.layers.GlobalAveragePooling2D),
        ("max", keras.layers.GlobalMaxPooling2D),
    ):
        pooled = build(**SMALL, include_top=False, pooling=pooling)
        assert pooled.output_shape == (None, n)
        assert type(pooled.layers[-1]) is layer


# Smaller, much smaller, larger, one side only: (H, W) of an image and of what it becomes.
@pytest.mark.parametrize(
    ("have", "size"),
    [((48, 64), (32, 32)), ((300, 17), (31, 9)), ((9, 11), (20, 32)), ((8, 40), (8, 16))],
)
def test_images_are_stretched_as_pillow_does(have, size):
    image = np.random.default_rng(0).integers(0, 256, (*have, 3), dtype="uint8")
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    found = stretch(image, size)
    assert found.dtype == np.float32
    if have != (300, 17):  # Pillow 13 begins with the height where an image is narrow
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=1)
    np.testing.assert_allclose(stretch(image.astype("float32"), size), expected, atol=1.01)


@pytest.mark.parametrize("value", [255, 3.7])
def test_a_flat_image_stays_flat(value):
    """White became 255.00003, which a uint8 input refuses."""
    image = np.full((480, 640, 3), value, "uint8" if value == 255 else "float32")
    assert np.unique(stretch(image, (320, 320))).tolist() == [np.float32(value)]


def test_preprocessing():
    image = np.arange(256, dtype="float32").reshape(1, 16, 16, 1).repeat(3, -1)
    prepared = {
        kind: keras.Model(model.input, model.get_layer("preprocessing").output)(image)
        for kind in ("tf", "torch")
        for model in [kzoo.MobileNetV2(0.35, input_shape=(None, None, 3), preprocessing=kind)]
    }
    tf = keras.ops.convert_to_numpy(prepared["tf"])
    assert (tf.min(), tf.max()) == (-1, 1)
    expected = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    torch = keras.ops.convert_to_numpy(prepared["torch"])
    np.testing.assert_allclose(torch, expected, rtol=0, atol=1e-6)
    bare = kzoo.MobileNetV2(**SMALL, preprocessing=None)
    assert keras.layers.Rescaling not in layer_types(bare)


@pytest.mark.backend
@pytest.mark.parametrize(
    ("build", "preprocessing"), list(zip(BUILDERS, ["torch", "tf", None], strict=True))
)
def test_channels_first(channels_first, build, preprocessing):
    same = {"alpha": 0.35, "classes": 3, "preprocessing": preprocessing}
    first = build(input_shape=(3, 40, 33), **same)
    assert kzoo.pyramid(first)["P2"].shape[2:] == (10, 9)
    with pytest.raises(ValueError, match=r"\(C, H, W\) with H and W at least 32"):
        build(input_shape=(40, 33, 3), **same)
    if keras.backend.backend() == "tensorflow":
        pytest.skip("builds, and TensorFlow's CPU kernels cannot run it")
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 40, 33)).astype("float32")
    found = fill(first).predict_on_batch(image)
    keras.config.set_image_data_format("channels_last")
    last = build(input_shape=(40, 33, 3), **same)
    last.set_weights(first.get_weights())
    expected = last.predict_on_batch(image.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_upon_a_tensor():
    image = keras.Input((48, 48, 4), name="image")
    rgb = keras.layers.Conv2D(3, 1, name="to_rgb")(image)
    model = kzoo.MobileNetV2(0.35, input_tensor=rgb, include_top=False)
    assert model(np.ones((1, 48, 48, 4), "float32")).shape == (1, 2, 2, 1280)
    assert [layer.name for layer in model.layers[:3]] == ["image", "to_rgb", "preprocessing"]


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize(("output_stride", "levels"), [(32, 5), (16, 4), (8, 3)])
def test_output_stride(build, output_stride, levels):
    same = {"input_shape": (64, 64, 3), "include_top": False}
    model, usual = build(0.35, **same, output_stride=output_stride), build(0.35, **same)
    assert model.output_shape[1:3] == (64 // output_stride, 64 // output_stride)
    assert [w.shape for w in model.weights] == [w.shape for w in usual.weights]
    assert list(kzoo.pyramid(model)) == ["P1", "P2", "P3", "P4", "P5"][:levels]


@pytest.mark.parametrize(("output_stride", "step"), [(16, 2), (8, 4)])
def test_a_dilated_net_computes_what_the_strided_one_does_and_more(output_stride, step):
    """Padding "same" puts the middle of a strided window on the last pixel of each `step`."""
    same = {"include_top": False, "input_shape": (128, 128, 3)}
    strided = fill(kzoo.MobileNetV2(0.35, **same))
    dilated = kzoo.MobileNetV2(0.35, **same, output_stride=output_stride)
    dilated.set_weights(strided.get_weights())
    image = np.random.default_rng(0).uniform(0, 255, (1, 128, 128, 3)).astype("float32")
    expected, found = (keras.ops.convert_to_numpy(net(image)) for net in (strided, dilated))
    assert expected.std() > 0.1
    at = slice(step - 1, None, step)
    # Values reach 6, and two kernels sum them up in two orders.
    np.testing.assert_allclose(found[:, at, at], expected, rtol=0, atol=1e-5 * expected.max())


@pytest.mark.parametrize("build", BUILDERS)
def test_the_pyramid_survives_a_file(build, tmp_path):
    model = build(0.35, input_shape=(96, 64, 3), include_top=False)
    levels = {level: tuple(x.shape[1:3]) for level, x in model.pyramid_outputs.items()}
    assert levels == {"P1": (48, 32), "P2": (24, 16), "P3": (12, 8), "P4": (6, 4), "P5": (3, 2)}
    for level, name in model.pyramid_level_inputs.items():
        assert model.get_layer(name).output is model.pyramid_outputs[level]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    found = {level: tuple(x.shape[1:]) for level, x in kzoo.pyramid(loaded).items()}
    assert found == {level: tuple(x.shape[1:]) for level, x in kzoo.pyramid(model).items()}


def test_a_pyramid_of_something_else():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)], name="other")
    with pytest.raises(ValueError, match=r"'other' has no layers called row0_out.*backbone itself"):
        kzoo.pyramid(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0}, r"alpha must be a number > 0. Received: alpha=0"),
        ({"alpha": -1.0}, r"alpha must be a number > 0"),
        ({"alpha": "1.0"}, r"alpha must be a number > 0. Received: alpha='1.0'"),
        ({"alpha": float("nan")}, r"alpha must be a number > 0"),
        ({"alpha": float("inf")}, r"alpha must be a number > 0"),
        ({"classes": 0}, r"classes must be a whole number >= 1. Received: classes=0"),
        ({"classes": 2.5}, r"classes must be a whole number >= 1"),
        ({"classes": True}, r"classes must be a whole number >= 1"),
        ({"dropout_rate": 1}, r"dropout_rate must be a number in \[0, 1\)"),
        ({"dropout_rate": "0.2"}, r"dropout_rate must be a number in \[0, 1\)"),
        ({"norm_momentum": -0.1}, r"norm_momentum must be a number in \[0, 1\)"),
        ({"pooling": "mean"}, r"pooling must be one of 'avg', 'max', None.*'mean'"),
        ({"preprocessing": "caffe"}, r"preprocessing must be one of 'tf', 'torch', None.*'caffe'"),
        ({"padding": "valid"}, r"padding must be one of 'same', 'symmetric'.*'valid'"),
        ({"output_stride": 64}, r"output_stride must be one of 32, 16, 8.*64"),
        ({"input_shape": (31, 64, 3)}, r"input_shape must be \(H, W, C\).*at least 32.*\(31, 64"),
        ({"input_shape": (64, 64)}, r"input_shape must be \(H, W, C\).*\(64, 64\)"),
        ({"input_shape": (64, 64, None)}, r"input_shape must be .*C at least 1"),
        ({"input_shape": (64, 64, 0)}, r"input_shape must be .*C at least 1"),
        ({"input_shape": 224}, r"input_shape must be .*input_shape=224"),
        ({"input_shape": (64.0, 64, 3)}, r"input_shape must be .*at least 32"),
        ({"input_shape": (64, 64, 1), "preprocessing": "torch"}, r"for 3 channels.*has 1.*\"tf\""),
        ({"input_tensor": np.ones((1, 64, 64, 3))}, r"input_tensor must be a Keras tensor"),
        ({"activation": "rleu"}, r"rleu"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        kzoo.MobileNetV2(**{"input_shape": (64, 64, 3)} | arguments)


def test_a_tensor_that_is_too_small():
    with pytest.raises(ValueError, match=r"input_tensor must be .*at least 32.*\(16, 64, 3\)"):
        kzoo.MobileNetV2(input_tensor=keras.Input((16, 64, 3)))


@pytest.mark.parametrize("build", BUILDERS)
def test_a_misspelt_argument_is_told_first_and_then_the_right_ones(build):
    words = (
        r"^\w+\(\) got an unexpected keyword argument 'clases'. Did you mean 'classes'\? It takes"
    )
    with pytest.raises(TypeError, match=words):
        build(clases=3)
    with pytest.raises(
        TypeError, match=r"^\w+\(\): too many positional.* It takes alpha, input_sh"
    ):
        build(1.0, (64, 64, 3))


@pytest.mark.parametrize("build", BUILDERS)
def test_help_shows_every_argument(build):
    shared = ["input_shape", "include_top", "weights", "input_tensor", "pooling", "classes"]
    shared += ["classifier_activation", "dropout_rate", "preprocessing", "padding"]
    shared += ["output_stride", "norm_momentum", "name"]
    parameters = list(inspect.signature(build).parameters)
    assert parameters[: len(shared) + 1] == ["alpha", *shared]
    for name in parameters[1:]:
        assert name in build.__doc__, name


def test_models_by_name():
    assert "mobilenet_v3_small_minimalistic" in kzoo.list_models()
    model = kzoo.get_model("mobilenet_v3_small_minimalistic")(**SMALL)
    assert model.name == "mobilenet_v3_small_minimalistic"
    with pytest.raises(ValueError, match=r"no model 'resnet'. Choose one of: mobilenet_v1, "):
        kzoo.get_model("resnet")
