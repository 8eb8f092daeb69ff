"""Written files, held against the Keras model by the interpreter that apps use."""

import dataclasses
import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import beginning
from keras import layers
from PIL import Image

import kzoo
from kzoo.recipes.cli import main
from kzoo.recipes.evaluation.report import doubt
from kzoo.recipes.programs.convert_model import convert_file
from kzoo.tflite import (
    FORMS,
    SCHEMES,
    Bounds,
    RejectedFile,
    Runner,
    audit,
    compare,
    convert,
    verify,
)
from kzoo.tflite.convert.converter import STEPS
from kzoo.tflite.inspect.layer_noise import noise_by_layer
from kzoo.weights.readers.flatbuffer import read_tflite

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="files are made by TensorFlow"
)


@pytest.fixture(scope="module")
def images(unseen):
    return unseen[0][:40]


@pytest.fixture(scope="module")
def int8_v2(v2, images, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("v2") / "v2.tflite"
    return convert(v2, out, calibration=images, calibrator="tensorflow")


@pytest.fixture(scope="module")
def quantized_tiny(tiny, images) -> keras.Model:
    return kzoo.quantize(tiny, calibration=images)


@pytest.fixture(scope="module")
def tiny_file(tiny, images, tmp_path_factory) -> Callable[..., Path]:
    """`tiny_file(scheme, io)`: the file of `tiny`, made once; not to be changed."""
    folder = tmp_path_factory.mktemp("tiny")

    @functools.cache
    def make(scheme: str, io: str) -> Path:
        out = folder / f"{scheme}_{io}.tflite"
        return convert(tiny, out, scheme=scheme, io=io, calibration=images)

    return make


@pytest.mark.parametrize("name", ["v2", "v3"])
def test_float32_file_computes_what_keras_does(name, request, unseen, tmp_path):
    model = request.getfixturevalue(name)
    found = compare(
        model, convert(model, tmp_path / "a.tflite", scheme="float32"), unseen[0], unseen[1]
    )
    assert found.accuracy[0] > 0.9  # the net has learnt: agreement means something
    assert found.agreement == 1
    assert found.sqnr_db > 100  # 1e-5 of the logits


def test_int8_file_agrees_with_a_net_that_has_learnt(v2, int8_v2, unseen):
    found = compare(v2, int8_v2, *unseen)
    assert found.accuracy[0] > 0.9
    assert found.outputs[0].distinct == (6, 6)
    assert found.agreement > 0.9


def test_bytes_by_way_of_float_are_the_same_bytes(quantized_tiny, unseen, tmp_path, monkeypatch):
    """Against the file whose one QUANTIZE takes uint8 to int8: equal to the bit."""
    monkeypatch.setitem(FORMS, "direct", dataclasses.replace(FORMS["cpu"], float_first=False))
    files = [convert(quantized_tiny, tmp_path / f"{t}.tflite", target=t) for t in ("cpu", "direct")]
    assert [audit(file).outside for file in files] == [(), ("0 QUANTIZE",)]
    ours, direct = (Runner(file)(unseen[0]) for file in files)
    assert len(np.unique(direct)) > 100
    np.testing.assert_array_equal(ours, direct)


def test_int8_file_holds_no_float_but_the_softmax(int8_v2):
    found = audit(int8_v2)
    assert found.float_ops == ()
    assert [op.split()[1] for op in found.tail] == ["SOFTMAX"]
    assert found.per_channel[0] == found.per_channel[1] == 53
    assert found.partitions == 1
    # The camera's bytes: no operator for the preprocessing but the step from uint8 to int8.
    assert found.outside == ()
    assert found.operators[:3] == ("DEQUANTIZE", "QUANTIZE", "CONV_2D")
    assert not {"SHAPE", "PACK", "STRIDED_SLICE", "RESHAPE", "MUL"} & set(found.operators)
    assert found.inputs[0].shape == (1, 64, 64, 3)


@pytest.mark.parametrize("preprocessing", ["tf", "torch"])
def test_preprocessing_vanishes_into_the_input(classifier, preprocessing, images, unseen, tmp_path):
    model = classifier(beginning, preprocessing=preprocessing, padding="symmetric")
    out = convert(
        model, tmp_path / "a.tflite", io="int8", calibration=images, calibrator="tensorflow"
    )
    assert audit(out).operators[0] in ("PAD", "CONV_2D")
    found = compare(model, out, *unseen)
    assert found.accuracy[0] > 0.9
    assert found.agreement > 0.9


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_and_input(scheme, tiny, tiny_file, unseen):
    for io in SCHEMES[scheme].inputs:
        out = tiny_file(scheme, io)
        found = audit(out)
        assert (found.inputs[0].dtype, found.outputs[0].dtype) == (io, "float32")
        assert compare(tiny, out, unseen[0][:60]).agreement > 0.9
        if scheme == "int8":  # floats are scaled as floats, bytes by the input's own grid
            assert found.float_ops == (("0 MUL", "1 ADD") if io == "float32" else ())
        else:
            assert bool(found.float_ops) == (scheme != "int16x8")
    if scheme == "int16x8":
        kinds = {t.dtype for t in read_tensors(out)}
        assert "int16" in kinds


def read_tensors(path):
    return read_tflite(path).graphs[0].tensors


def test_sizes_by_scheme(tiny_file):
    weights = {
        scheme: audit(tiny_file(scheme, SCHEMES[scheme].inputs[0]), run=False).bytes["weights"]
        for scheme in ("float32", "float16", "int8")
    }
    whole = weights["float32"]
    assert weights["float16"] == whole // 2
    assert weights["int8"] == whole // 4


@pytest.mark.slow
def test_a_quantized_model_is_taken_as_it_is(v3, images, unseen, tmp_path):
    quantized = kzoo.quantize(v3, calibration=images)
    out = convert(quantized, tmp_path / "a.tflite")  # no calibration
    found = audit(out)
    assert found.float_ops == ()
    assert "HARD_SWISH" not in found.census
    assert (found.partitions, found.outside) == (1, ())
    assert found.signatures == (f"serving_default({v3.inputs[0].name}) -> {v3.output_names[0]}",)
    compared = compare(quantized, out, *unseen, layers=4)
    assert compared.accuracy[0] > 0.9
    assert compared.agreement > 0.95
    # Folded norms, scaled channels and lowered activations are no noise.
    assert len(compared.layers) > 80
    # 26.3 to 29.9 by what kernels oneDNN takes, of its own 29.6 to 33.5. Norms not folded have 20.7
    # and 20.9, noise of .15 in one layer's weights 7.1 to 16.2 and 11.2 to 16.4.
    assert min(layer.sqnr_db for layer in compared.layers) > 20
    assert min(layer.own_db for layer in compared.layers) > 25
    float_net = noise_by_layer(v3, out, unseen[0][:4])
    assert len(float_net) > 60
    assert min(layer.sqnr_db for layer in float_net) > 10
    with pytest.raises(ValueError, match=r'convert it with scheme="int8"'):
        convert(quantized, tmp_path / "b.tflite", scheme="float16")


def test_convert_quantizes_as_quantize_does(tiny_file, quantized_tiny, tmp_path):
    itself = tiny_file("int8", "uint8")
    again = convert(quantized_tiny, tmp_path / "b.tflite", io="uint8")
    assert itself.read_bytes() == again.read_bytes()


def chain(nested: bool) -> keras.Model:
    """A sequential model, or one with another in it."""
    first = [layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU()]
    if nested:
        first = [keras.Sequential([keras.Input((64, 64, 3)), *first], name="inner")]
    return keras.Sequential([
        keras.Input((64, 64, 3)), *first, layers.AveragePooling2D(8), layers.Flatten(),
        layers.Dense(4),
    ])  # fmt: skip


def twice() -> keras.Model:
    """A layer that reads itself."""
    image = keras.Input((64, 64, 3))
    x = layers.AveragePooling2D(8)(image)
    same = layers.Conv2D(3, 3, padding="same", name="same")
    return keras.Model(image, layers.Dense(4)(layers.Flatten()(same(same(x)))))


def halves() -> keras.Model:
    image = keras.Input((64, 64, 3))
    left, right = keras.ops.split(layers.AveragePooling2D(8)(image), 2, axis=2)
    return keras.Model(image, layers.Dense(4)(layers.Flatten()(left - right)))


@pytest.mark.parametrize(
    ("build", "scheme"),
    [
        (lambda: chain(nested=False), "int8"),
        (lambda: chain(nested=True), "int8"),
        (twice, "int8"),
        (halves, "float32"),
    ],
    ids=["sequential", "nested", "a layer called twice", "an operator with two outputs"],
)
def test_anyone_s_graph(build, scheme, images, unseen, tmp_path):
    keras.utils.set_random_seed(0)
    model = build()
    out = convert(model, tmp_path / "a.tflite", scheme=scheme, calibration=images[:40])
    found = compare(model, out, unseen[0][:16], layers=2)
    assert found.sqnr_db > 25
    assert all(layer.own_db > 25 for layer in found.layers)


@pytest.mark.parametrize("calibrator", ["kzoo", "tensorflow"])
@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (1 / 255, 0), (2 / 255, -1)])
def test_bytes_mean_the_same_without_a_rescaling(
    scale, offset, calibrator, images, unseen, tmp_path
):
    """Whatever range the net is fed in, and however dull its images are."""
    keras.utils.set_random_seed(0)
    model = chain(nested=False)
    dull, other = ((60 + some / 4).astype("uint8") for some in (images[:40], unseen[0][:20]))
    out = convert(
        model, tmp_path / "a.tflite", calibration=dull * scale + offset, calibrator=calibrator
    )
    port = Runner(out).input
    assert port.scale == pytest.approx(scale)
    assert port.zero_point == pytest.approx(-offset / scale, abs=0.51)
    want = model.predict(other * scale + offset, verbose=0)
    np.testing.assert_allclose(Runner(out)(other), want, atol=0.03 * np.abs(want).max())


def test_images_scaled_as_no_pixels_are(images, tmp_path):
    standard = (images[:8] - 110.0) / 40
    with pytest.raises(ValueError, match=r"(?s)takes pixels as they are.*Rescaling, Normalization"):
        convert(chain(nested=False), tmp_path / "a.tflite", calibration=standard)
    convert(chain(nested=False), tmp_path / "a.tflite", calibration=standard, io="float32")


def test_layers_kept_in_float_are_float_in_the_file(tiny, images, unseen, tmp_path):
    kept = ("row2_depthwise", "row3_project")
    quantized = kzoo.quantize(tiny, calibration=images, keep_float=kept)
    out = convert(quantized, tmp_path / "a.tflite")
    found = audit(out)
    assert [op.split()[1] for op in found.float_ops] == ["DEPTHWISE_CONV_2D", "CONV_2D"]
    # The bytes by way of float, and in and out of float twice; the softmax.
    assert found.conversions == (3, 4)
    assert "FLOOR" not in found.census
    assert found.partitions == 1
    graph = read_tflite(out).graphs[0]
    kernels = [graph.tensors[op.inputs[1]] for op in graph.operators if "CONV" in op.name]
    assert [kernel.dtype for kernel in kernels].count("float32") == 2
    # 45 to 49 by what kernels oneDNN takes; 34.0 with both layers in int8, 34.3 and 37.5 with one.
    assert compare(quantized, out, *unseen).sqnr_db > 35


def test_an_activation_kept_in_float_is_float_in_the_file(images, tmp_path):
    """Between int8 layers TensorFlow's converter would make it an int8 HARD_SWISH."""
    image = keras.Input((64, 64, 3), name="image")
    x = layers.Conv2D(8, 3, 2, name="first")(layers.Rescaling(1 / 127.5, -1)(image))
    x = layers.Activation("hard_swish", name="act")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    model = keras.Model(image, layers.Conv2D(4, 1, name="last")(x))
    quantized = kzoo.quantize(model, calibration=images, keep_float=["act"])
    quantized.save(tmp_path / "model.keras")
    found = audit(convert(tmp_path / "model.keras", tmp_path / "a.tflite"))
    assert [op.split()[1] for op in found.float_ops] == ["HARD_SWISH", "MUL"]
    assert found.conversions == (2, 3)  # the bytes and the act; the bytes, the act, the output
    assert found.partitions == 1
    assert "FLOOR" not in found.census


def test_a_batch_of_the_file_s_own(tiny, unseen, tmp_path):
    out = convert(tiny, tmp_path / "a.tflite", scheme="float32", batch_size=4)
    assert audit(out).inputs[0].shape == (4, 64, 64, 3)
    want = tiny.predict(unseen[0][:6], verbose=0)  # the second batch is filled up
    np.testing.assert_allclose(Runner(out)(unseen[0][:6]), want, atol=1e-4)
    np.testing.assert_allclose(Runner(out)(unseen[0][0]), want[:1], atol=1e-4)


def test_steps_are_told(tiny, images, tmp_path):
    told: list[str] = []
    convert(tiny, tmp_path / "a.tflite", calibration=images, progress=told.append)
    assert told == list(STEPS)


def test_a_file_that_says_something_else_is_put_aside(tiny, tiny_file, unseen, tmp_path):
    good = tmp_path / "good.tflite"
    good.write_bytes(tiny_file("int8", "uint8").read_bytes())
    assert verify(tiny, good, *unseen).agreement > 0.9
    assert good.is_file()
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(good.read_bytes())
    mirrored = keras.Model(tiny.input, keras.ops.flip(tiny.output, axis=-1))
    with pytest.raises(
        RejectedFile, match=r"was not accepted.*bad\.rejected.*Most noise"
    ) as caught:
        verify(mirrored, bad, *unseen)
    assert not bad.exists()
    assert caught.value.path == tmp_path / "bad.rejected.tflite"
    assert caught.value.path.is_file()
    assert caught.value.comparison.agreement < 0.8
    with pytest.raises(RejectedFile, match=r"signal to noise of .* 99\.0 dB are asked for"):
        verify(tiny, good, unseen[0], bounds=Bounds(agreement=None, sqnr_db=99))
    with pytest.raises(ValueError, match=r"in \[0, 1\]. Received: 80"):
        Bounds(agreement=80)


@pytest.fixture
def folder_with_a_good_file(tiny, unseen, tmp_path) -> Path:
    """model.keras, the images it is checked on, and what was made of it before."""
    (tmp_path / "images").mkdir()
    for i, image in enumerate(unseen[0][:24]):
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
    tiny.save(tmp_path / "model.keras")
    (tmp_path / "names.txt").write_text("\n".join("abcdef"))
    (tmp_path / "a.tflite").write_bytes(b"the good file of before")
    (tmp_path / "labels.txt").write_text("its labels")
    return tmp_path


def test_a_rejected_file_leaves_the_good_one_of_before(folder_with_a_good_file):
    folder = folder_with_a_good_file
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    (folder / "fog").mkdir()
    flat = np.random.default_rng(0).integers(124, 132, (64, 64, 3), dtype="uint8")
    Image.fromarray(flat).save(folder / "fog" / "0.png")
    arguments = {"check": folder / "images", "labels": folder / "names.txt"}
    message = r"/a\.tflite was not accepted.*kept as a\.rejected\.tflite\. The a\.tflite of before"
    with pytest.raises(RejectedFile, match=message) as caught:  # its ranges are of grey images
        convert_file(
            folder / "model.keras", folder / "a.tflite", calibration=folder / "fog", **arguments
        )
    assert caught.value.path == folder / "a.rejected.tflite"
    assert audit(caught.value.path, run=False).inputs[0].dtype == "uint8"
    caught.value.path.unlink()
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    made = convert_file(folder / "model.keras", folder / "a.tflite", scheme="float32", **arguments)
    assert made.audit.path == folder / "a.tflite"
    assert made.comparison.agreement == 1
    assert (folder / "labels.txt").read_bytes() == before[folder / "labels.txt"]  # not convert's
    assert (folder / "a.labels.txt").read_text().split() == list("abcdef")
    assert len(list(folder.iterdir())) == len(before) + 3  # and the two folders of images


def test_ctrl_c_while_a_file_is_compared_leaves_the_one_of_before(
    folder_with_a_good_file, monkeypatch
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    folder = folder_with_a_good_file
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    # kzoo.tflite.inspect.verify is the function of that name, where one asks for an attribute.
    monkeypatch.setattr(sys.modules["kzoo.tflite.inspect.verify"], "compare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_file(
            folder / "model.keras", folder / "a.tflite", scheme="float32",
            check=folder / "images", labels=folder / "names.txt",
        )  # fmt: skip
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_the_command(tiny, unseen, tmp_path, capsys):
    images, model, out = tmp_path / "images", tmp_path / "model.keras", tmp_path / "a.tflite"
    images.mkdir()
    for i, image in enumerate(unseen[0][:12]):
        Image.fromarray(image).save(images / f"{i}.png")
    tiny.save(model)
    command = ["convert", str(model), str(out), "--scheme", "float32", "--author", "me"]
    assert main([*command, "--check", str(images)]) == 0
    output = capsys.readouterr().out
    assert "author me" in output
    assert "12 images" in output
    assert "agreement 1.0000" in output
    assert main([*command, "--check", str(images), "--agreement", "2"]) == 1
    assert "agreement must be in [0, 1]" in capsys.readouterr().err
    assert main(command) == 0
    assert "Not compared with the model" in capsys.readouterr().out
    assert main([*command, "--postprocess"]) == 1
    assert "--postprocess is for detectors; " in capsys.readouterr().err


def test_model_from_a_file_labels_and_a_folder_with_odd_letters(tiny, images, unseen, tmp_path):
    folder = tmp_path / "mein Ordner ö 写"
    folder.mkdir()
    tiny.save(folder / "model.keras")
    labels = ["Hülle", "b", "c", "d", "e", "f"]
    out = convert(folder / "model.keras", folder / "ä b.tflite", calibration=images, labels=labels)
    assert (folder / "labels.txt").read_text(encoding="utf-8").splitlines() == labels
    assert Runner(out)(unseen[0][:3]).shape == (3, 6)
    assert sorted(p.name for p in folder.iterdir()) == ["labels.txt", "model.keras", "ä b.tflite"]


def test_same_model_same_bytes(tiny, tiny_file, tmp_path):
    again = convert(tiny, tmp_path / "b.tflite", scheme="float32", io="float32")
    assert tiny_file("float32", "float32").read_bytes() == again.read_bytes()


def test_open_input_size(tmp_path, tiny):
    model = beginning(0.35, input_shape=(None, None, 3), classes=6)
    model.set_weights(tiny.get_weights())
    with pytest.raises(ValueError, match=r"image_size=\(224, 224\)"):
        convert(model, tmp_path / "a.tflite", scheme="float32")
    out = convert(model, tmp_path / "a.tflite", scheme="float32", image_size=(96, 64))
    assert audit(out).inputs[0].shape == (1, 96, 64, 3)


def test_several_outputs_keep_their_names_and_order(tmp_path, unseen):
    image = keras.Input((64, 64, 3), name="photo")
    x = keras.layers.Conv2D(4, 3, strides=4, name="zeta")(image)
    outputs = [
        keras.layers.Conv2D(n, 1, name=name)(x) for name, n in (("b", 2), ("a", 3), ("c", 5))
    ]
    model = keras.Model(image, outputs)
    out = convert(model, tmp_path / "a.tflite", scheme="float32")
    got = Runner(out)(unseen[0][:4])
    want = dict(zip("bac", model.predict(unseen[0][:4], verbose=0), strict=True))
    assert list(got) == ["b", "a", "c"]
    for name, values in want.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-3)
    assert audit(out, run=False).signatures == ("serving_default(photo) -> b, a, c",)


@pytest.mark.parametrize("which", ["one twice", "two of one kind"])
def test_equal_outputs_keep_their_places(which, tmp_path, unseen):
    """TensorFlow's converter makes one tensor of them, which its file lists again."""
    image = keras.Input((64, 64, 3))
    x = keras.layers.GlobalAveragePooling2D(name="mean")(image)
    a = keras.layers.Softmax(name="a")(x)
    again = a if which == "one twice" else keras.layers.Softmax(name="z")(x)
    model = keras.Model(image, [a, x, again])
    out = convert(model, tmp_path / "a.tflite", scheme="float32")
    want = model.predict(unseen[0][:2], verbose=0)
    for found, values in zip(Runner(out)(unseen[0][:2]).values(), want, strict=True):
        np.testing.assert_allclose(found, values, rtol=1e-4)


def test_mixed_precision_exports_in_float32(tmp_path, unseen):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = beginning(0.35, input_shape=(64, 64, 3), classes=6)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    out = convert(model, tmp_path / "a.tflite", scheme="float32")
    assert {t.dtype for t in read_tensors(out)} <= {"float32", "int32"}


def test_an_operator_that_tflite_lacks_is_named_with_its_layer(tmp_path):
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3)(image)
    odd = keras.layers.Lambda(lambda t: keras.ops.erfinv(t), name="odd_one")(x)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(odd))
    with pytest.raises(ValueError, match=r"no operator for Erfinv in layer 'odd_one'"):
        convert(model, tmp_path / "a.tflite", scheme="float32")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [layers.Conv2D, layers.Conv2DTranspose])
def test_a_file_that_would_kill_its_process_is_not_written(kind, tmp_path, images):
    image = keras.Input((64, 64, 3))
    layer = kind(2, 1, kernel_initializer=keras.initializers.Constant(1e4), bias_initializer="ones")
    model = keras.Model(image, keras.layers.ReLU(6)(layer(image)))
    # Factor: input step 1 x weight step 1e4 / 127 over output step 6 / 255 = 3346.
    out = tmp_path / "a.tflite"
    out.write_bytes(b"the file of before")
    with pytest.raises(ValueError, match=r"was not written.*XNNPACK's bounds.*kzoo.quantize"):
        convert(model, out, calibration=images, calibrator="tensorflow")
    assert out.read_bytes() == b"the file of before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.tflite"]


def test_an_error_on_the_way_leaves_nothing(tiny, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        convert(tiny, tmp_path / "a.tflite", scheme="float32", labels=list("abcdef"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "int4"}, r"scheme must be one of float32, .*Received: 'int4'"),
        ({"io": "int16"}, r"io must be one of uint8, float32, int8 .*Received: 'int16'"),
        ({"scheme": "float32", "io": "int8"}, r"io must be one of float32, uint8"),
        ({}, r"needs calibration=images"),
        ({"calibrator": "keras"}, r'calibrator must be "kzoo" or "tensorflow".*keras'),
        ({"calibration": np.zeros((4, 32, 32, 3))}, r"calibration must be .*\(N, 64, 64, 3\)"),
        ({"batch_size": 0, "scheme": "float32"}, r"batch_size must be a whole number >= 1"),
        ({"labels": ["a", "b"], "scheme": "float32"}, r"6 classes, but there are 2 labels"),
        ({"labels": ["a\nb"] * 6, "scheme": "float32"}, r"one line of text"),
        ({"labels": "labels", "scheme": "float32"}, r"must be a list .* Received: str 'labels'"),
        ({"labels": {"cat": 0, "dog": 1}}, r"must be a list of class names.* Received: dict"),
        ({"calibration": iter([np.zeros((4, 8, 8, 3))])}, r"Of batches make one, np.concatenate"),
        ({"image_size": (96, 96), "scheme": "float32"}, r"does not fit the model's input"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message, tiny, tmp_path):
    with pytest.raises(ValueError, match=message):
        convert(tiny, tmp_path / "a.tflite", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_quantized_model_as_a_layer_is_refused(quantized_tiny, tmp_path):
    image = keras.Input(quantized_tiny.input_shape[1:])
    model = keras.Model(image, keras.layers.Softmax()(quantized_tiny(image)))
    with pytest.raises(ValueError, match=r"int8 ranges within.*Continue its graph instead"):
        convert(model, tmp_path / "a.tflite")


def test_paths_that_are_not_there(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        convert(tiny, tmp_path / "none" / "a.tflite", scheme="float32")
    with pytest.raises(FileNotFoundError, match="no model file"):
        convert(tmp_path / "none.keras", tmp_path / "a.tflite", scheme="float32")
    with pytest.raises(ValueError, match=r"is a folder.* A SavedModel is not read"):
        convert(tmp_path, tmp_path / "a.tflite", scheme="float32")
    with pytest.raises(ValueError, match=r"must be named NAME.tflite. Received: .*model.keras"):
        convert(tiny, tmp_path / "model.keras", scheme="float32")


def test_models_that_are_not_of_one_image(tmp_path):
    vector = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=re.escape("one input (N, H, W, C)")):
        convert(vector, tmp_path / "a.tflite", scheme="float32")
    image = keras.Input((3, 32, 32))
    first = keras.layers.GlobalAveragePooling2D(data_format="channels_first", name="pool")(image)
    with pytest.raises(ValueError, match="'pool' is \"channels_first\""):
        convert(keras.Model(image, first), tmp_path / "a.tflite", scheme="float32")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax"])
def test_a_process_of_another_backend_exports(backend, tiny, unseen, tmp_path):
    pytest.importorskip(backend)
    tiny.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", unseen[0][:40])
    program = """
import sys, keras, numpy as np
from kzoo.tflite import compare, convert
model = keras.saving.load_model("model.keras", compile=False)
images = np.load("images.npy")
assert "tensorflow" not in sys.modules  # kzoo's doing; Keras itself imports it to save a model
convert(model, "a.tflite", calibration=images, labels=list("abcdef"))
found = compare(model, "a.tflite", images)
assert found.agreement > 0.9, found
try:
    convert(model, "b.tflite")
except ValueError as error:
    assert "needs calibration=images" in str(error), error
else:
    raise AssertionError("no error")
"""
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "labels.txt").read_text().split() == list("abcdef")


def test_a_report_tells_of_a_file_whose_network_diverged(tmp_path, images):
    image = keras.Input((64, 64, 3))
    x = layers.Conv2D(4, 3, kernel_initializer=keras.initializers.Constant(1e3))(image)
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    # Sums of 27 pixels times 1,000: up to 6.9e6, within XNNPACK's bounds.
    assert "reach" in doubt(convert(model, tmp_path / "a.tflite", calibration=images))
    model.layers[1].set_weights([np.full((3, 3, 3, 4), 0.1), np.zeros(4)])
    assert doubt(convert(model, tmp_path / "b.tflite", calibration=images)) == ""
