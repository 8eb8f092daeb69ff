"""Files written for a place: each held against its model, and against the place's own list."""

import keras
import numpy as np
import pytest

from kzoo.recipes.commands.files.convert import TARGETS
from kzoo.recipes.programs.convert_model import convert_file
from kzoo.tflite import FORMS, audit, compare, convert, targets
from kzoo.tflite.convert.forms import require_fit
from kzoo.weights.readers.flatbuffer import TfliteGraph, TfliteModel, TfliteOperator, TfliteTensor

makes_files = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="files are made by TensorFlow"
)
SWISHES = 19  # of V3-Small: the stem's, two in each of its 8 hard-swish rows, and the head's two


@pytest.fixture(scope="module")
def files(v3, unseen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    return {
        name: convert(v3, folder / f"{name}.tflite", calibration=unseen[0][:40], target=name)
        for name in FORMS
    }


@makes_files
@pytest.mark.slow
def test_every_form_says_what_the_model_does(files, v3, unseen):
    for name, file in files.items():
        found = compare(v3, file, unseen[0], unseen[1])
        assert found.accuracy[0] > 0.9, name  # the net has learnt: agreement means something
        assert found.agreement > 0.95, name
        verdicts = targets(file, FORMS[name].lists)
        assert all(v.answer in ("yes", "unknown") or name in ("cpu", "web") for v in verdicts)


@makes_files
@pytest.mark.slow
def test_what_each_form_is_made_of(files):
    found = {name: audit(file) for name, file in files.items()}
    # NPUs have hard-swish as one operator; MediaTek has no RELU6 that stands alone.
    assert found["npu"].census["HARD_SWISH"] == SWISHES
    assert "RELU6" not in found["npu"].census
    assert "HARD_SWISH" not in found["cpu"].census
    assert found["gpu"].census["HARD_SWISH"] == SWISHES
    assert found["gpu"].inputs[0].dtype == "float32"
    # XNNPACK takes all of it; the NPUs' form costs the swishes there, and uint8 -> int8.
    assert found["cpu"].outside == found["web"].outside == ()
    assert len(found["npu"].outside) == 1 + SWISHES
    for name, dtype in (("micro", "int8"), ("edgetpu", "uint8")):
        assert found[name].inputs[0].dtype == dtype
        assert [port.dtype for port in found[name].outputs] == ["int8"]
        assert "DEQUANTIZE" not in found[name].census
        assert found[name].float_ops == ()
        assert found[name].tail == ()


@makes_files
def test_what_is_said_goes_before_the_form(tiny, unseen, tmp_path):
    file = convert(tiny, tmp_path / "a.tflite", target="gpu", scheme="float32", io="uint8")
    assert audit(file, run=False).inputs[0].dtype == "uint8"
    assert "DEQUANTIZE" not in audit(file, run=False).census
    file = convert(
        tiny, tmp_path / "b.tflite", target="micro", io="uint8", calibration=unseen[0][:20]
    )
    assert [port.dtype for port in audit(file).inputs] == ["uint8"]
    with pytest.raises(ValueError, match=r"target must be one of 'cpu', .* target='nnapi'"):
        convert(tiny, tmp_path / "c.tflite", target="nnapi")
    assert not (tmp_path / "c.tflite").exists()


@makes_files
def test_the_command_takes_a_target(tiny, unseen, tmp_path):
    from PIL import Image

    tiny.save(tmp_path / "model.keras")
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(unseen[0][:20]):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    out = tmp_path / "a.tflite"
    found = convert_file(
        tmp_path / "model.keras", out, calibration=tmp_path / "photos", target="micro"
    )
    assert found.audit.inputs[0].dtype == "int8"
    assert found.comparison.agreement > 0.8


def test_the_command_knows_the_forms():
    assert {name: form.about for name, form in FORMS.items()} == TARGETS


def test_a_file_that_its_target_can_not_run():
    tensors = tuple(TfliteTensor(name, (1, 4), "int8", 0, (0.1,)) for name in "ab")
    operators = (TfliteOperator("TILE", 1, (0,), (1,), {}),)
    graph = TfliteGraph("main", tensors, (0,), (1,), operators)
    file = TfliteModel("", (graph,), (memoryview(np.zeros(0, np.uint8)),), {}, ())
    with pytest.raises(ValueError, match=r'does not fit target="micro"\. Microcontroller .* TILE'):
        require_fit(file, "micro")
    assert require_fit(file, "cpu")[0].answer == "no"
