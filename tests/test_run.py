"""Runner and compare against the interpreter itself and against hand-computed cases."""

import re
import sys
import types

import keras
import numpy as np
import pytest

from kzoo.tflite import Runner, compare, convert
from kzoo.tflite.inspect.compare import measure
from kzoo.tflite.ports import from_pixels
from kzoo.tflite.runtime.trial import delegated, resident_mb

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the files under test are made by TensorFlow"
)


@pytest.fixture(scope="module")
def files(tiny, unseen, tmp_path_factory):
    """{dtype of the input: an int8 file}."""
    folder = tmp_path_factory.mktemp("run")
    return {
        io: convert(tiny, folder / f"{io}.tflite", io=io, calibration=unseen[0][:40])
        for io in ("uint8", "int8", "float32")
    }


def test_bytes_go_in_as_they_are(files, unseen):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(files["uint8"]))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], unseen[0][:1])
    interpreter.invoke()
    want = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    runner = Runner(files["uint8"])
    np.testing.assert_array_equal(runner(unseen[0][:1]), want)
    np.testing.assert_array_equal(runner(unseen[0][0]), want)
    np.testing.assert_array_equal(runner(unseen[0][:1].astype("float32")), want)


def test_uint8_and_int8_inputs_are_one_net(files, unseen):
    a, b = (Runner(files[io])(unseen[0][:20]) for io in ("uint8", "int8"))
    np.testing.assert_array_equal(a, b)


def test_pixels_by_hand():
    pixels = np.array([0, 127, 128, 255], np.uint8)
    near = pixels + np.array([0.4, 0.4, -0.4, -0.4])
    np.testing.assert_array_equal(from_pixels(pixels, "int8"), [-128, -1, 0, 127])
    np.testing.assert_array_equal(from_pixels(near, "uint8"), [0, 127, 128, 255])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((2, 32, 32, 3), np.uint8),
            r"shape \(64, 64, 3\) or \(N, 64, 64, 3\).*\(2, 32, 32, 3\)",
        ),
        (np.zeros((0, 64, 64, 3), np.uint8), r"There is no image"),
        (np.zeros((64, 64, 3), bool), r"must be numbers.*bool"),
        (np.full((64, 64, 3), -0.5), r"values in \[0, 255\].*unscaled"),
        (np.full((64, 64, 3), 0.5), r"Received values in \[0.5, 0.5\]"),
    ],
)
def test_images_that_do_not_fit(files, images, message):
    with pytest.raises(ValueError, match=message):
        Runner(files["uint8"])(images)


def test_files_that_are_none(tmp_path, files):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        Runner(tmp_path / "none.tflite")
    (tmp_path / "text.tflite").write_text("this is no model")
    with pytest.raises(ValueError, match=r"not a \.tflite file"):
        Runner(tmp_path / "text.tflite")
    (tmp_path / "half.tflite").write_bytes(files["uint8"].read_bytes()[:20_000])
    with pytest.raises(ValueError, match="cut off or damaged"):
        Runner(tmp_path / "half.tflite")


def test_measures_by_hand():
    a = np.array([[3.0, 0.0, 1.0], [0.0, 4.0, 2.0]])
    b = np.array([[3.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
    found = measure("scores", a, b, quantum=0.5, scores="", labels=[0, 1])
    assert found.agreement == 0.5
    assert found.distinct == (2, 2)
    assert found.accuracy == (1.0, 0.5)
    assert found.quanta == pytest.approx((4 / 6 / 0.5, 6.0))  # |difference|: 1 and 3 among 6
    assert found.sqnr_db == pytest.approx(10 * np.log10(30 / 10))


def test_masks_by_hand():
    """Class ids in bytes, where 0 - 1 is 255 and the last axis is an image's width."""
    a, b = (np.array(ids, np.uint8).reshape(1, 2, 2) for ids in ([0, 1, 1, 1], [1, 1, 1, 1]))
    found = measure("mask", a, b, quantum=0.0, scores="", labels=a)
    assert found.agreement == 0.75
    assert found.distinct == (2, 1)
    assert found.accuracy == (1.0, 0.75)
    assert found.sqnr_db == pytest.approx(10 * np.log10(3 / 1))


def test_a_constant_predictor_shows():
    found = measure("scores", np.eye(3)[[1, 1, 1]], np.eye(3)[[1, 1, 1]], 0.0, "", None)
    assert found.agreement == 1
    assert "different answers: model 1, file 1" in str(found)


def test_logarithms_of_probabilities_are_the_logits():
    logits = np.random.default_rng(0).normal(size=(5, 7)) * 4
    noisy = logits + 0.1 * np.sin(logits) + 3  # softmax forgets the 3
    probabilities = [np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (logits, noisy)]
    a, b = (x - x.mean(1, keepdims=True) for x in (logits, noisy))
    found = measure("predictions", *probabilities, 0.0, "SOFTMAX", None)
    assert found.sqnr_db == pytest.approx(10 * np.log10((a**2).mean() / ((a - b) ** 2).mean()))


def test_compare_refuses_another_model(tiny, files, unseen):
    with pytest.raises(ValueError, match="another model"):
        compare(keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Flatten()]),
                files["uint8"], unseen[0][:2])  # fmt: skip
    with pytest.raises(ValueError, match=r"labels must be class numbers \(2,\)"):
        compare(tiny, files["uint8"], unseen[0][:2], [1, 2, 3])


def test_the_layer_that_errs_is_named(tiny, unseen, tmp_path):
    """The file is of a net with noise in one layer's weights."""
    noisy = keras.models.clone_model(tiny)
    noisy.set_weights(tiny.get_weights())
    kernel = noisy.get_layer("row3_expand").kernel
    noise = np.random.default_rng(0).normal(0, 0.1 * np.std(kernel), kernel.shape)
    kernel.assign_add(noise.astype("float32"))
    file = convert(noisy, tmp_path / "a.tflite", scheme="float32")
    found = compare(tiny, file, unseen[0][:4], layers=4)
    first = found.layers[0]
    assert first.name == "row3_expand_act"
    assert 10 < first.own_db < 30  # a tenth of the weights is 20 dB
    assert first.sqnr_db == pytest.approx(first.own_db, abs=0.1)
    # Those after it are given its noise; what of that looks like scaled channels is not told apart.
    assert found.layers[1].own_db > first.own_db + 4
    assert min(layer.own_db for layer in found.layers if not layer.name.startswith("row3")) > 40
    before = [layer for layer in found.layers if layer.name.startswith(("row0", "row1", "row2"))]
    assert len(before) == 6
    assert min(layer.sqnr_db for layer in before) > 60
    assert re.search(
        rf"\nrow3_expand_act +{first.own_db:.1f} dB +{first.sqnr_db:.1f} dB\n", str(found)
    )
    assert compare(file, file, unseen[0][:4], layers=4).layers == ()  # there are no layers to ask


@pytest.mark.parametrize(
    ("platform", "megabytes"),
    [("linux", 3.072), ("darwin", 0.003), ("win32", np.nan)],  # of 3000 KB, bytes, nothing
)
def test_memory_by_the_system_s_own_unit(platform, megabytes, monkeypatch):
    def no_proc(_):
        raise FileNotFoundError

    peak = types.SimpleNamespace(ru_maxrss=3000)
    theirs = types.SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: peak)
    monkeypatch.setattr("kzoo.tflite.runtime.trial.Path.read_text", no_proc)
    monkeypatch.setattr("kzoo.tflite.runtime.trial.sys.platform", platform)
    # None: importing it raises ImportError, as on Windows.
    monkeypatch.setitem(sys.modules, "resource", None if platform == "win32" else theirs)
    assert resident_mb() == pytest.approx(megabytes, nan_ok=True)


def test_partitions_by_hand():
    # 0 -> A -> 1 -> B -> 2 -> C -> 3, where a delegate took A and another took C.
    def op(index, name, inputs, outputs):
        return {"index": index, "op_name": name, "inputs": inputs, "outputs": outputs}

    operators = [op(0, "A", [0], [1]), op(1, "B", [1], [2]), op(2, "C", [2, 9], [3])]
    operators += [op(3, "DELEGATE", [0], [1]), op(4, "DELEGATE", [2], [3])]
    assert delegated(operators) == (2, [1])


def test_compiled_model_says_the_same(files, unseen):
    """LiteRT's newer interface, which Android's CompiledModel is."""
    from ai_edge_litert.compiled_model import CompiledModel

    for io, file in files.items():
        want = Runner(file)(unseen[0][:5])
        model = CompiledModel.from_file(str(file))
        inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
        for image, scores in zip(from_pixels(unseen[0][:5], io), want, strict=True):
            inputs[0].write(image[None])
            model.run_by_index(0, inputs, outputs)
            np.testing.assert_allclose(outputs[0].read(6, np.float32), scores, atol=1e-6)
