"""The folder for Android against the run it is made of."""

import csv
import json
import re

import keras
import pytest

from kzoo.recipes.commands.android_folder import KOTLIN, android, threshold
from kzoo.tflite import Metadata, SegmenterOutput, audit, convert

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="files are made by TensorFlow"
)


@pytest.fixture
def run(tiny, unseen, tmp_path):
    """A run's folder, as far as `android` reads it."""
    folder = tmp_path / "My Run 2"
    folder.mkdir()
    config = {"task": "classify", "model": "a|b", "alpha": 0.35, "data": "/home/me/photos",
              "out": "/home/me/runs", "labels": list("abcdef")}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "labels.txt").write_text("\n".join("abcdef"))
    (folder / "results.json").write_text('{"folder": "x", "int8_accuracy": 0.87654}')
    convert(tiny, folder / "model.tflite", calibration=unseen[0][:40])
    return folder


def test_what_an_app_needs(run):
    folder = android(run)
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "Classifier.kt", "MODEL_CARD.md", "assets/labels.txt", "assets/my_run_2.tflite",
        "build.gradle.kts",
    ]  # fmt: skip
    found = audit(folder / "assets" / "my_run_2.tflite")
    assert found.metadata.labels == tuple("abcdef")  # the run's own file has none
    assert found.metadata.run["config"]["data"] == "photos"
    assert "/home/me" not in json.dumps(dict(found.metadata.run))
    kotlin = (folder / "Classifier.kt").read_text()
    assert 'setModelAssetPath("my_run_2.tflite")' in kotlin
    assert "scaled to 64 x 64" in kotlin
    card = (folder / "MODEL_CARD.md").read_text()
    assert "| int8_accuracy | 0.8765 |" in card
    assert "a\\|b" in card
    assert "/home/me" not in card
    assert "takes every operator" in card
    again = (folder / "assets" / "my_run_2.tflite").read_bytes()
    android(run)
    assert (folder / "assets" / "my_run_2.tflite").read_bytes() == again


@pytest.mark.parametrize("task", KOTLIN)
def test_kotlin_is_whole(task):
    """No compiler for it here: braces and brackets close, and every import is used."""
    from kzoo.recipes.commands.android_folder import HEAD

    kotlin = KOTLIN[task]
    values = {"width": 8, "height": 4, "results": 3, "threshold": 0.5}
    text = HEAD.format(
        title="t", about="a", asset="m.tflite", package=kotlin.package, task=task, doc=kotlin.doc,
        name=kotlin.name, imports=kotlin.imports, options=kotlin.options.format(**values),
        body=kotlin.body.format(**values),
    )  # fmt: skip
    for opening, closing in ("()", "{}"):
        assert text.count(opening) == text.count(closing)
    body = text[text.index("/**") :]
    for name in re.findall(r"import .*\.(\w+)", text):
        assert name in body


def test_a_segmenter_and_files_that_do_not_fit(run, unseen):
    image = keras.Input((32, 32, 3))
    net = keras.Model(image, keras.layers.Conv2D(6, 1)(image))
    said = Metadata(outputs=SegmenterOutput("softmax"))
    convert(net, run / "model.tflite", scheme="float32", labels=list("abcdef"), metadata=said)
    folder = android(run, run.parent / "out")
    assert "ImageSegmenterOptions" in (folder / "Segmenter.kt").read_text()
    convert(net, run / "model.tflite", io="int8", calibration=unseen[0][:8, :32, :32])
    with pytest.raises(ValueError, match=r'takes int8 images.*io="uint8"'):
        android(run)
    (run / "model.tflite").unlink()
    with pytest.raises(ValueError, match=r"has no model\.tflite yet"):
        android(run)
    with pytest.raises(ValueError, match="no run folder"):
        android(run.parent)


def test_threshold_by_hand(tmp_path):
    assert threshold(tmp_path / "none.csv", 10) == 0.2
    file = tmp_path / "predictions.csv"
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["file", "label", "int8", "int8_probability"])
        rows.writerows([["a", "x", "x", 0.9]] * 19 + [["b", "x", "y", 0.8], ["c", "x", "y", 0.7]])
    assert threshold(file, 10) == 0.8  # 19 of 20 are right


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([(0.9985, False), (0.7, True)], 0.2),  # the surest is wrong: no score is sure enough
        ([(1.0, True)] * 18 + [(1.0, False)] * 2, 0.2),  # all as sure, one in ten wrong
        ([(0.9985, True)] * 20, 0.99),  # not 1.00, which none of them reaches
    ],
)
def test_a_threshold_that_some_answer_reaches(scores, expected, tmp_path):
    file = tmp_path / "predictions.csv"
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["file", "label", "int8", "int8_probability"])
        rows.writerows([["a", "x", "x" if right else "y", score] for score, right in scores])
    assert threshold(file, 10) == expected
