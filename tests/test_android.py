"""The app for Android against the run it is made of."""

import csv
import json
import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import keras
import numpy as np
import pytest

from kzoo.files import write_json
from kzoo.recipes.programs.android_folder import (
    android,
    resource_text,
    results_of,
    threshold,
    without_paths,
)
from kzoo.tflite import BoxOutputs, Metadata, SegmenterOutput, audit, convert
from kzoo.tflite.convert.mask_output import end_in_mask
from kzoo.tflite.convert.postprocess import add_postprocess

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="files are made by TensorFlow"
)


def kotlin_parser():
    """Return a parser of Kotlin; skip the test where the dev tools are not installed."""
    tree_sitter = pytest.importorskip("tree_sitter")
    language = pytest.importorskip("tree_sitter_kotlin").language()
    return tree_sitter.Parser(tree_sitter.Language(language))


@pytest.fixture
def run(tiny, unseen, tmp_path):
    """A run's folder, as far as `android` reads it."""
    folder = tmp_path / "My Run 2"
    folder.mkdir()
    config = {"task": "classify", "model": "a|b", "alpha": 0.35, "data": "/home/me/photos",
              "out": "/home/me/runs", "labels": list("abcdef")}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "labels.txt").write_text("\n".join("abcdef"))
    (folder / "results.json").write_text(
        '{"folder": "x", "int8_accuracy": 0.87654, "test": {"int8": {"accuracy": 0.86}}, '
        '"images": {"train": 1234, "val": 12}}'
    )
    convert(tiny, folder / "model.tflite", calibration=unseen[0][:40])
    return folder


KOTLIN = "app/src/main/kotlin/com/example/my_run_2"


def kotlin_errors(text: str) -> list[int]:
    """Lines of what is no Kotlin."""
    found, todo = [], [kotlin_parser().parse(text.encode()).root_node]
    while todo:
        node = todo.pop()
        if node.is_error or node.is_missing:
            found.append(node.start_point[0] + 1)
        todo += node.children
    return sorted(found)


def check_sources(folder: Path) -> None:
    """Everything parses, no word is left to fill in, and every import is used."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        if path.suffix in (".tflite", ".bin"):
            continue
        text = path.read_text()
        assert not re.search(r"@[A-Z_]+@", text), path
        if path.suffix in (".kt", ".kts"):
            assert kotlin_errors(text) == [], path
        if path.suffix == ".xml":
            ElementTree.fromstring(text)
        if path.suffix == ".toml":
            tomllib.loads(text)
        if path.suffix == ".kt":
            package, imports = re.findall(r"^package (.*)", text)[0], set()
            assert path.parent.as_posix().endswith(package.replace(".", "/"))
            imports = set(re.findall(r"^import .*\.(\w+)$", text, re.MULTILINE))
            body = re.sub(r"^import .*$", "", text, flags=re.MULTILINE)
            assert not {name for name in imports if not re.search(rf"\b{name}\b", body)}, path


def test_the_parser_sees_what_is_no_kotlin():
    assert kotlin_errors("fun f(): Int = 1") == []
    assert kotlin_errors("class A {\n    fun f( = }") != []


def test_an_app_that_opens(run):
    folder = android(run)
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "MODEL_CARD.md", "README.md", "app/build.gradle.kts", "app/src/main/AndroidManifest.xml",
        "app/src/main/assets/labels.txt", "app/src/main/assets/my_run_2.tflite",
        *(f"{KOTLIN}/{name}.kt" for name in ("Draw", "MainActivity", "Model", "Resample", "Task")),
        "app/src/main/res/layout/activity_main.xml", "app/src/main/res/values/strings.xml",
        "build.gradle.kts", "gradle.properties", "gradle/libs.versions.toml", "settings.gradle.kts",
    ]  # fmt: skip
    check_sources(folder)
    asset = folder / "app/src/main/assets/my_run_2.tflite"
    found = audit(asset)
    assert found.metadata.labels == tuple("abcdef")  # the run's own file has none
    assert found.metadata.run["config"]["data"] == "photos"
    assert "/home/me" not in json.dumps(dict(found.metadata.run))
    model = (folder / KOTLIN / "Model.kt").read_text()
    for line in ('ASSET = "my_run_2.tflite"', f'INPUT = "{found.inputs[0].name}"', "WIDTH = 64",
                 "INPUT_IS_BYTES = true", "listOf(Accelerator.CPU)",
                 f'OUTPUTS = listOf("{found.outputs[0].name}")'):  # fmt: skip
        assert line in model
    assert "MAX_RESULTS = 3" in (folder / KOTLIN / "Task.kt").read_text()
    card = (folder / "MODEL_CARD.md").read_text()
    assert "| int8 accuracy | 0.8765 |" in card
    assert "| training images | 1,234 |\n| validation images | 12 |" in card
    assert "| int8 accuracy, test images | 0.86 |" in card
    assert "a\\|b" in card
    assert "/home/me" not in card
    assert "By its published list, not run" in card
    readme = (folder / "README.md").read_text()
    assert "no phone has run this app" in readme.lower()
    assert "\n4. Change `THRESHOLD` in `Task.kt`. Measure it on images of your users.\n" in readme
    again = asset.read_bytes()
    android(run)
    assert asset.read_bytes() == again


def test_a_folder_of_something_else_stays_as_it_is(run, tmp_path):
    own = tmp_path / "app"
    own.mkdir()
    (own / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"app holds files of something else.*a new folder"):
        android(run, out=own)
    assert [path.read_text() for path in own.iterdir()] == ["mine"]
    assert android(run, out=tmp_path / "new") == android(run, out=tmp_path / "new")


def test_the_name_of_the_app(run):
    folder = android(run, run.parent / "a", package="org.flowers.app2", max_results=2)
    assert (folder / "app/src/main/kotlin/org/flowers/app2/MainActivity.kt").is_file()
    assert 'applicationId = "org.flowers.app2"' in (folder / "app/build.gradle.kts").read_text()
    task = (folder / "app/src/main/kotlin/org/flowers/app2/Task.kt").read_text()
    assert "MAX_RESULTS = 2" in task
    check_sources(folder)
    for bad in ("flowers", "com.Example.a", "com.new.app", "com..a", "com.1a"):
        with pytest.raises(ValueError, match=r"is not a valid package name: .* com\.example\.f"):
            android(run, run.parent / "b", package=bad)
    with pytest.raises(ValueError, match=r"max_results must be at least 1\. Received: 0"):
        android(run, run.parent / "b", max_results=0)


def test_names_as_android_and_its_readers_have_them(tmp_path):
    assert resource_text('@Anna\'s "R&D" \\') == '\\@Anna\\\'s \\"R&amp;D\\" \\\\'
    assert without_paths({"data": "/home/anna/cats", "test": "C:\\x\\y.csv", "alpha": 1.0}) == {
        "data": "cats", "test": "y.csv", "alpha": 1.0,
    }  # fmt: skip
    made = {"command": "kzoo classify '/home/anna/my cats' --seed 1", "seed": 1}
    write_json(tmp_path / "results.json", {"made": made})
    assert results_of(tmp_path)["made"]["command"] == "kzoo classify 'my cats' --seed 1"


def test_a_segmenter_and_files_that_do_not_fit(run, unseen):
    image = keras.Input((32, 32, 3))
    net = keras.Model(image, keras.layers.Conv2D(6, 1)(image))
    metadata = Metadata(outputs=SegmenterOutput("softmax"))
    convert(net, run / "model.tflite", scheme="float32", labels=list("abcdef"), metadata=metadata)
    folder = android(run, run.parent / "out")
    check_sources(folder)
    model = (folder / KOTLIN / "Model.kt").read_text()
    assert "listOf(Accelerator.GPU, Accelerator.CPU)" in model  # it is a float file
    assert "INPUT_IS_BYTES = false" in model
    task = (folder / KOTLIN / "Task.kt").read_text()
    for line in ("WIDTH = 32", "CLASSES = 6"):
        assert line in task
    assert "4. Measure the masks on images of your users." in (folder / "README.md").read_text()
    end_in_mask(run / "model.tflite")
    check_sources(android(run, run.parent / "mask"))
    assert "outputs[0].readInt8()" in (run.parent / "mask" / KOTLIN / "Task.kt").read_text()
    convert(net, run / "model.tflite", io="int8", calibration=unseen[0][:8, :32, :32])
    with pytest.raises(ValueError, match=r'takes int8 images.*io="uint8"'):
        android(run)
    convert(net, run / "model.tflite", target="edgetpu", calibration=unseen[0][:8, :32, :32])
    with pytest.raises(ValueError, match=r"in int8, the app reads float32: convert"):
        android(run)
    (run / "model.tflite").unlink()
    with pytest.raises(ValueError, match="has no model yet: it stopped"):
        android(run)
    with pytest.raises(ValueError, match="not a kzoo run folder"):
        android(run.parent)


@pytest.mark.parametrize("operator", [False, True])
def test_a_detector_with_its_anchors_or_its_operator(run, operator):
    """Two boxes, from the outputs' own names: their order in the file does not matter."""
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.GlobalAveragePooling2D()(image)
    boxes = keras.layers.Reshape((2, 4), name="boxes")(keras.layers.Dense(8)(x))
    scores = keras.layers.Reshape((2, 6), name="scores")(keras.layers.Dense(12)(x))
    net = keras.Model(image, {"boxes": boxes, "scores": scores})
    anchors = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    metadata = Metadata(labels=tuple("abcdef"), outputs=BoxOutputs(anchors))
    file = convert(net, run / "model.tflite", scheme="float32", metadata=metadata)
    if operator:
        add_postprocess(file, file)
    folder = android(run, run.parent / "out")
    check_sources(folder)
    assets = folder / "app/src/main/assets"
    model = (folder / KOTLIN / "Model.kt").read_text()
    if operator:
        assert not (assets / "anchors.bin").exists()
        assert not (folder / KOTLIN / "Tiles.kt").exists()
        assert 'OUTPUTS = listOf("boxes", "classes", "scores", "count")' in model
    else:
        stored = np.fromfile(assets / "anchors.bin", "<f4").reshape(-1, 4)
        np.testing.assert_allclose(stored, anchors, atol=1e-6)
        assert 'OUTPUTS = listOf("boxes", "scores")' in model
        assert (
            "SCALES = floatArrayOf(10f, 10f, 5f, 5f)" in (folder / KOTLIN / "Task.kt").read_text()
        )

    tiled = android(run, run.parent / "tiled", tiles=(2, 3), max_results=7)
    check_sources(tiled)
    activity = (tiled / KOTLIN / "MainActivity.kt").read_text()
    assert "inTiles(bitmap, 2, 3, 7, model::run)" in activity
    assert "fun inTiles(" in (tiled / KOTLIN / "Tiles.kt").read_text()
    android(run, tiled, tiles="auto", max_results=7)
    activity = (tiled / KOTLIN / "MainActivity.kt").read_text()
    assert "inAutoTiles(bitmap, 32.000, 7, model::run)" in activity
    check_sources(android(run, tiled))
    assert not (tiled / KOTLIN / "Tiles.kt").exists()


def test_tiles_of_what_is_no_detector(run):
    image = keras.Input((32, 32, 3))
    net = keras.Model(image, keras.layers.Conv2D(6, 1)(image))
    described = Metadata(outputs=SegmenterOutput("softmax"))
    convert(net, run / "model.tflite", scheme="float32", labels=list("abcdef"), metadata=described)
    with pytest.raises(ValueError, match=r"Tiles are for detectors.*is ImageSegmenter"):
        android(run, tiles=(2, 2))


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
