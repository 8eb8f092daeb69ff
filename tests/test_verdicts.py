"""What commands say first: one plain sentence with the next step, held against made-up figures."""

import math
from pathlib import Path

import numpy as np
import pytest

from kzoo.qat import Sensitivity
from kzoo.tflite import Benchmark, Comparison
from kzoo.tflite.inspect.benchmark import Timing, shortest_names
from kzoo.tflite.inspect.compare import Output, measure
from kzoo.tflite.inspect.layer_noise import LayerNoise
from kzoo.tflite.inspect.verify import Bounds


def output(name="scores", agreement=0.97, sqnr_db=20.0, distinct=(10, 10), accuracy=None) -> Output:
    return Output(name, "outputs", agreement, distinct, sqnr_db, 0.0, (0.0, 0.0), accuracy)


def test_a_comparison_tells_images_that_were_not_calibrated_for():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (40, 5))
    logits[:6] *= 100
    quantum = np.ptp(logits[6:]) / 255
    clipped = np.clip(logits, logits[6:].min(), logits[6:].max())
    found = Comparison(40, (measure("logits", logits, clipped, quantum, "", None),))
    assert found.outputs[0].beyond == 6 / 40
    words = "on 15% of these images the model's values go beyond the ranges of the file"
    assert words in found.verdict
    assert "calibrated on images like these" in found.verdict
    assert "beyond the file's range: the model, on 15% of the images" in found.table
    alike = Comparison(34, (measure("logits", logits[6:], clipped[6:], quantum, "", None),))
    assert alike.outputs[0].beyond == 0
    assert "beyond" not in str(alike)


def test_a_regressor_has_no_classes_to_agree_on():
    """Its one column made every agreement 1.0, and "names one class on all of these images"."""
    values = np.random.default_rng(0).normal(40, 10, (50, 1))
    near, far = (measure("age", values, values + x, 0.1, "", None) for x in (0.2, 60.0))
    assert (near.distinct, math.isnan(near.agreement)) == ((0, 0), True)
    found = Comparison(50, (near,))
    assert math.isnan(found.agreement)
    assert found.verdict.startswith("The outputs keep 46.")  # 10 log10((40^2 + 10^2) / .2^2)
    assert "the file is as good as the model" in found.verdict
    assert "agreement" not in found.table
    assert Bounds().missed(found) == []
    assert Bounds().missed(Comparison(50, (far,))) == [
        f"age has a signal to noise of {far.sqnr_db:.1f} dB, and 6.0 dB are asked for"
    ]
    probability = measure("cat", np.full((2, 1), 0.9), np.full((2, 1), 0.4), 0.1, "LOGISTIC", None)
    assert probability.agreement == 0


def timing(path: str, cpu_ms: float, ratio: float) -> Timing:
    return Timing(Path(path), "litert", 1000, cpu_ms, cpu_ms, 1.0, 1.0, 1, ratio)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([output()], "agree on 97.0% of the answers: the file is as good as the model. Next: "),
        ([output(agreement=0.85)], "it is usable, and some answers change. Next: kzoo sensitivity"),
        ([output(agreement=0.4)], "the file is much worse than the model. Next: kzoo sensitivity"),
        ([output(accuracy=(0.895, 0.898))], "accuracy is 0.898 in the file, 0.895 in the model"),
        ([output(distinct=(1, 1), agreement=1.0)], "This says little: the model itself names one"),
        # Boxes have no classes to agree on: 18 dB lost no mAP.
        ([output("boxes", 0.2, 18.6), output("scores", 0.9, 34.3)], "keep 18.6 dB of signal to"),
        ([output("boxes", 0.2, 3.0), output("scores")], "the file is much worse than the model"),
    ],
)
def test_a_comparison_begins_with_how_good_the_file_is(outputs, words):
    found = Comparison(100, tuple(outputs))
    first, empty, *_ = str(found).splitlines()
    assert words in first
    assert empty == ""


def test_layers_of_a_comparison_are_a_table_that_explains_its_order():
    found = Comparison(8, (output(),), (LayerNoise("row1_depthwise", 14.5, 13.0),))
    lines = str(found).splitlines()
    at = lines.index("row1_depthwise    14.5 dB    13.0 dB")
    assert lines[at - 1].split() == ["layer", "own", "noise", "all", "noise"]
    assert "sensitivity orders them otherwise" in "\n".join(lines[at + 1 :])


def test_sensitivity_names_the_layer_and_the_next_step():
    found = Sensitivity({"row1_depthwise": 14.5, "row6_expand_act": 21.1, "stem": 40.0})
    first = str(found).splitlines()[0]
    assert first.startswith("row1_depthwise costs most in int8: quantized alone it leaves 14.5 dB")
    assert "the next, row6_expand_act, 21.1 dB. Next: kzoo convert RUN FILE --keep-float" in first
    assert "kzoo compare orders layers otherwise" in str(found)
    assert "stem" not in found.table(2)
    assert str(Sensitivity({"stem": 40.0})).startswith("No layer costs much: stem costs most")


def test_files_of_one_name_are_told_apart():
    paths = [Path("runs/a/model.tflite"), Path("runs/b/model.tflite"), Path("x/small.tflite")]
    assert shortest_names(paths) == ("a/model.tflite", "b/model.tflite", "small.tflite")
    assert shortest_names([Path("m.tflite"), Path("m.tflite")]) == ("m.tflite", "m.tflite")
    found = Benchmark((timing("a/m.tflite", 4.0, 1.0), timing("b/m.tflite", 2.0, 0.5)), 1)
    lines = str(found).splitlines()
    assert lines[0] == (
        "b/m.tflite (litert) is the fastest: 2.00 ms of CPU time an image, 0.50 of a/m.tflite "
        "(litert)."
    )
    assert [line.split()[0] for line in lines[2:]] == ["file", "a/m.tflite", "b/m.tflite"]
