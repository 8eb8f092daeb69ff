"""Images with any number of labels: read, learnt, converted, used."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image
from test_android import check_sources

from kzoo.recipes import multilabel
from kzoo.recipes.cli import main
from kzoo.recipes.configs.image_labels import LABEL_LOSSES
from kzoo.recipes.data import read_dataset, read_label_sets
from kzoo.recipes.data.label_sets import drawn_by_label, read_label_sets_test
from kzoo.recipes.evaluation.classification.label_metrics import (
    Scored,
    average_precision,
    best_thresholds,
    score_labels,
)
from kzoo.recipes.inspection.inspection import inspect_data
from kzoo.recipes.multilabel import LOSSES, LabelLoss, image_quality, label_weights
from kzoo.recipes.programs.android_folder import android
from kzoo.recipes.programs.predict_images import task_of
from kzoo.recipes.programs.serve_page import about
from kzoo.tflite import Metadata, audit, compare
from kzoo.tflite.metadata.reading import read_metadata

tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="files are made by TensorFlow"
)
COLOURS = ("red", "green", "blue")
# What every table below says of five images, of which the last two are given as val.
WANTED = {"a": {"red", "round"}, "b": set(), "c": {"round"}, "d": {"red"}, "e": {"red", "round"}}
TABLES = {
    "semicolons": "file,labels,split\na.png,red;round,train\nb.png,,train\nc.png,round,train\n"
    "d.png,red,val\ne.png,round; red,val\n",
    "commas": 'image,tags,set\na.png,"red,round",train\nb.png,"",train\nc.png,round,train\n'
    'd.png,red,valid\ne.png,"red, round",valid\n',
    "bars": "file;label;split\na.png;red|round;train\nb.png;;train\nc.png;round;train\n"
    "d.png;red;val\ne.png;red|round;val\n",
    "columns": "filename,split,red,round\na.png,train,1,1\nb.png,train,0,0\nc.png,train,0,1\n"
    "d.png,val,1,0\ne.png,val,1,1\n",
    "celeba": "image_id,red,round,split\na.png,1,1,train\nb.png,-1,-1,train\nc.png,-1,1,train\n"
    "d.png,1,-1,val\ne.png,1,1,val\n",
    "rows": "file,label,split\na.png,red,train\na.png,round,train\nb.png,,train\n"
    "c.png,round,train\nd.png,red,val\ne.png,red,val\ne.png,round,val\n",
}


def noise(folder: Path, names: str = "abcde") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        values = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype="uint8")
        Image.fromarray(values).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("kind", TABLES)
def test_every_layout_is_the_same_data(kind, tmp_path):
    noise(tmp_path)
    (tmp_path / "list.csv").write_text(TABLES[kind])
    for data in (tmp_path / "list.csv", tmp_path):
        found = read_label_sets(data)
        assert set(found.labels) == {"red", "round"}
        read = {
            path.stem: {label for label, has in zip(found.labels, row, strict=True) if has}
            for split in (found.train, found.val)
            for path, row in zip(split.paths, split.targets, strict=True)
        }
        assert read == WANTED
        assert [path.stem for path in found.val.paths] == ["d", "e"]
        assert not found.issues
    assert "3 images to train on, 2 to validate (" in str(found)
    assert "1 without a label" in str(found)
    for data in (tmp_path / "list.csv", tmp_path):  # the file ended in "Not a directory"
        assert inspect_data(data, near=False).task == "multilabel"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file,labels\na.png,red\n", "only the label 'red'"),
        ("file,labels\na.png,\nb.png,\n", "no labels"),
        ("x,y,z\n1,2,3\n", r"the first line must name the columns file,labels .*'x,y,z'"),
        ("file,red,round\na.png,1,0\nb.png,2,1\nc.png,0,0\n", r"line 3: the column 'red' .*'2'"),
        ("file,labels,split\na.png,red;blue,later\n", "split must be train, val or test"),
        ("file,labels\n,red;blue\n", "line 2: a row needs a file"),
        ("file,labels\na.png,red;nan\nb.png,blue\n", r"1 rows have the label 'nan' \(lines 2\)"),
        ("file,labels\na.png,\"['red', 'NaN']\"\nb.png,blue\n", "rows have the label 'NaN'"),
        ("file,red\na.png,1\nb.png,0\n", "one column of 0 and 1, 'red'.*kzoo classify"),
        ("file,red,red\na.png,1,0\nb.png,0,1\n", "several columns called 'red'"),
        ("file,red,rare\na.png,1,\nb.png,0,\nc.png,0,1\n", "'rare' holds 0 and 1.*Write 0"),
        ("file,red,blue\na.png,x,\nb.png,,x\n", "and the column 'red' holds 'x'"),
        (
            "file,labels,dim,night\na.png,red;blue,0,1\nb.png,red,1,0\n",
            r"labels in the column 'labels' and in columns of 0 and 1 \(dim, night\)",
        ),
    ],
)
def test_broken_tables_are_told_with_the_place(table, words, tmp_path):
    noise(tmp_path)
    (tmp_path / "list.csv").write_text(table)
    with pytest.raises(ValueError, match=words):
        read_label_sets(tmp_path / "list.csv")


def test_what_is_left_out_is_told(tmp_path):
    noise(tmp_path)
    (tmp_path / "list.csv").write_text(
        "file,red,round,rare,width,split\na.png,1,0,0,40,train\nb.png,0,1,0,40,train\n"
        "c.png,1,1,0,40,val\nd.png,1,1,1,40,val\nnone.png,1,1,1,40,train\n"
    )
    found = read_label_sets(tmp_path / "list.csv")
    told = "\n".join(map(str, found.issues))
    assert found.labels == ("red", "round")
    assert "label 'rare' is on no image to train on: left out" in told
    assert "columns that are not used: width" in told
    assert "none.png" in told
    (tmp_path / "test.csv").write_text("file,labels\na.png,red;big\nb.png,\n")
    split, issues = read_label_sets_test(tmp_path / "test.csv", ("red", "round"))
    assert split.targets.tolist() == [[1, 0], [0, 0]]
    assert "label 'big' is none of the model's: left out" in str(issues[0])
    with pytest.raises(ValueError, match="no image of huge to test on"):
        read_label_sets_test(tmp_path / "test.csv", ("huge",))
    with pytest.raises(ValueError, match="There is no"):
        read_label_sets(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file,labels\na.png,red|blue\nb.png,red;blue\nc.png,red;blue\n", "such as 'red|blue' are"),
        (
            "file,label\na.png,red/blue\nb.png,red\nc.png,blue\nd.png,red\n",
            "such as 'red/blue' are",
        ),
        ("file,labels\na.png,\"['red'\"\nb.png,red;blue\nc.png,red;blue\n", "a piece of a list"),
        ("file,red,blue\na.png,1,0\nb.png,0,1\na.png,0,1\n", "again with other labels"),
        ("file,labels\na.png,red;blue\nb.png,red\nb.png,blue\n", "again with other labels"),
        ("file,red,blue,is_valid\na.png,1,0,0\nb.png,0,1,1\nc.png,1,1,0\n", "For a split, say"),
        ("file,red,blue,\na.png,1,0,0\nb.png,0,1,1\nc.png,1,1,0\n", "column 4 has no name"),
        ("file,red,blue\na.png,1,0\nb.png,1,1\nc.png,1,1\n", "'red' is on all training images"),
        ("file,labels\na.png,red;blue\nb.png,\u200bred;blue\nc.png,red;\u200bred\n", "spelt alike"),
    ],
)
def test_what_may_be_read_wrongly_is_told(table, words, tmp_path):
    noise(tmp_path)
    (tmp_path / "list.csv").write_text(table, encoding="utf-8")
    found = read_label_sets(tmp_path / "list.csv")
    assert words in "\n".join(map(str, found.issues))
    assert "is_valid" not in found.labels


def test_every_label_is_drawn_for_validation():
    """Each label has its share, and a label of two images one of them."""
    from kzoo.recipes.data.label_sets import Tagged

    rng = np.random.default_rng(0)
    rows = [
        Tagged(Path(f"{i}.png"), frozenset(
            name for name, share in (("often", 0.5), ("seldom", 0.1)) if rng.random() < share
        ) | ({"rare"} if i < 2 else set()), None)
        for i in range(400)
    ]  # fmt: skip
    drawn = drawn_by_label(rows, 0.2, seed=1)
    for label in ("often", "seldom", "rare"):
        own = [row for row in drawn if label in row.labels]
        val = sum(row.split == "val" for row in own)
        assert val == (1 if label == "rare" else pytest.approx(0.2 * len(own), abs=3))
    without = [row for row in drawn if not row.labels]
    assert sum(row.split == "val" for row in without) == round(0.2 * len(without))
    assert drawn == drawn_by_label(rows, 0.2, seed=1)
    assert drawn != drawn_by_label(rows, 0.2, seed=2)


def test_average_precision_and_thresholds_by_hand():
    scores, truth = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0])
    assert average_precision(scores, truth) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.ones(4), truth) == pytest.approx(0.5)  # all at one place
    assert np.isnan(average_precision(scores, np.zeros(4)))
    # F1 is 2/3 with one given, 1/2 with two, 4/5 with three, 2/3 with four.
    (threshold, none) = best_thresholds(
        np.stack([scores, scores], 1), np.stack([truth, 0 * truth], 1)
    )
    assert threshold == pytest.approx(0.65)
    assert none == 0.5


def test_the_score_by_hand():
    probabilities = np.array([[0.9, 0.2], [0.6, 0.7], [0.1, 0.6], [0.3, 0.1]])
    targets = np.array([[1, 0], [0, 1], [1, 0], [0, 0]])
    split = read_split(targets)
    score = score_labels(Scored(probabilities, np.array([0.5, 0.65])), split, ("a", "b"))
    assert (score.true.tolist(), score.false.tolist(), score.missed.tolist()) == (
        [1, 1], [1, 0], [1, 0],
    )  # fmt: skip
    assert score.f1.tolist() == [0.5, 1.0]
    assert score.macro_f1 == 0.75
    assert score.micro_f1 == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert score.exact == 0.5
    assert score.map == pytest.approx(((1 + 2 / 4) / 2 + 1) / 2)
    assert score.figures(("a", "b"))["by_label"]["b"]["threshold"] == 0.65


def read_split(targets):
    from kzoo.recipes.data.class_dataset import Split

    return Split(tuple(Path(f"{i}.png") for i in range(len(targets))), targets)


def test_the_losses_by_hand():
    yes, p = np.array([[1.0, 0.0]], "float32"), np.array([[0.8, 0.4]], "float32")
    plain = keras.losses.BinaryCrossentropy()(yes, p)
    np.testing.assert_allclose(LabelLoss()(yes, p), plain, rtol=1e-5)
    np.testing.assert_allclose(
        LabelLoss(weights=[3, 7])(yes, p), (-3 * np.log(0.8) - np.log(0.6)) / 2, rtol=1e-5
    )
    asymmetric = LOSSES["asymmetric"]([1, 1])
    wanted = (-np.log(0.8) - 0.35**4 * np.log(0.65)) / 2  # a margin of .05 off .4
    np.testing.assert_allclose(asymmetric(yes, p), wanted, rtol=1e-5)
    again = LabelLoss.from_config(asymmetric.get_config())
    np.testing.assert_allclose(again(yes, p), wanted, rtol=1e-5)
    assert tuple(LOSSES) == LABEL_LOSSES
    targets = np.array([[1, 1], [0, 1], [0, 1], [0, 1], [0, 0]])
    np.testing.assert_allclose(label_weights(targets), [2, 1])


def test_the_quality_of_an_image_is_the_share_of_the_variance():
    """Rare labels: answers of 0 explain nothing, however small their squared error."""
    targets = np.zeros((100, 40), "float32")
    targets[np.arange(100), np.arange(100) % 40] = 1
    val = SimpleNamespace(targets=targets, batch=lambda i: np.arange(100))
    assert np.mean(image_quality(None, targets, val, 0)) == 1
    frequent = np.broadcast_to(targets.mean(axis=0), targets.shape)
    assert np.mean(image_quality(None, frequent, val, 0)) == pytest.approx(0, abs=1e-5)
    assert np.mean(image_quality(None, 0 * targets, val, 0)) < 0


@tensorflow
def test_thresholds_travel_in_the_file(tmp_path):
    """The fields are those that MediaPipe reads; tests/clients runs it."""
    from kzoo.tflite import convert

    pixels = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pixels))
    net = keras.Model(pixels, keras.layers.Dense(3, activation="sigmoid")(x))
    made = Metadata(labels=COLOURS, thresholds=(0.25, 0.5, 0.75))
    file = convert(net, tmp_path / "a.tflite", scheme="float32", metadata=made)
    assert read_metadata(file).thresholds == (0.25, 0.5, 0.75)
    assert task_of(file).name == "multilabel"
    assert about(audit(file), [])["thresholds"] == (0.25, 0.5, 0.75)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("uint8")
    found = compare(net, file, images, thresholds=made.thresholds, labels=np.ones((8, 3), int))
    assert (found.agreement, found.outputs[0].values) == (1.0, "logits")
    given = net.predict(images.astype("float32"), verbose=0) >= made.thresholds
    assert found.accuracy == (pytest.approx(given.mean()),) * 2
    with pytest.raises(ValueError, match="3 labels, but there are 2 thresholds"):
        convert(net, tmp_path / "b.tflite", scheme="float32", metadata=Metadata(
            thresholds=(0.5, 0.5)))  # fmt: skip


# A run

QUICK = ["--model", "mobilenet_v1", "--alpha", "0.25", "--size", "32", "--weights", "none"]
QUICK += [
    "--epochs",
    "10",
    "--batch-size",
    "8",
    "--learning-rate",
    "0.01",
    "--qat-epochs",
    "1",
    "--qat",
    "always",
]


def draw(folder: Path) -> Path:
    """Write images in which each of three colours is bright or not, and a table of them."""
    folder.mkdir()
    rows = [["file", "split", *COLOURS]]
    rng = np.random.default_rng(0)
    for split, count in (("train", 96), ("val", 32), ("test", 40)):
        for i in range(count):
            has = rng.integers(0, 2, 3)
            pixels = rng.integers(0, 90, (32, 32, 3)) + 110 * has
            Image.fromarray(pixels.astype("uint8")).save(folder / f"{split}{i}.png")
            rows.append([f"{split}{i}.png", split, *map(str, has)])
    (folder / "labels.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data") / "colours")


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "quick"
    assert main(["multilabel", str(images), *QUICK, "--out", str(folder), "--quiet"]) == 0
    return folder


@tensorflow
@pytest.mark.slow
class TestRun:
    def test_it_learns_and_its_file_agrees(self, run):
        results = json.loads((run / "results.json").read_text())
        assert results["test"]["float"]["map"] > 0.75  # of one that guesses it is .5
        assert results["test"]["int8"]["micro_f1"] > 0.7  # of one that says all: .67
        assert results["agreement"] > 0.9
        assert list(results["thresholds"]) == list(COLOURS)
        found = audit(run / "model.tflite")
        assert not found.float_ops  # but for the sigmoid at the end
        assert found.metadata.thresholds == pytest.approx(
            tuple(results["thresholds"].values()), abs=1e-5
        )
        page = (run / "report.html").read_text()
        for text in ("By label, validation", "By label, test", "all labels right"):
            assert text in page
        rows = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
        assert len(rows) == 32 * 3

    def test_predict_compare_evaluate_and_the_rest(self, run, images, tmp_path, capsys):
        for model in (run, run / "model.keras"):
            assert main(["predict", str(model), str(images / "test0.png"), "--json"]) == 0
            (found,) = json.loads(capsys.readouterr().out)["predictions"]
            assert {one["label"] for one in found["found"]} <= {*COLOURS}
        assert main(["compare", str(run)]) == 0
        assert "on the test images" in capsys.readouterr().out
        assert main(["evaluate", str(run), str(images), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        kept = json.loads((run / "results.json").read_text())
        assert (told["task"], told["images"]) == ("multilabel", 40)
        assert told["figures"]["model.tflite"] == kept["test"]["int8"]
        assert main(["inspect", str(images), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["task"] == "multilabel"
        folder = android(run, tmp_path / "app")
        assert "Change `THRESHOLDS` in `Task.kt`" in (folder / "README.md").read_text()
        (source,) = folder.rglob("Task.kt")
        assert source.read_text().count("f,") + 1 == 3  # a threshold for each label
        check_sources(folder)

    def test_packed_images_are_the_same(self, images, tmp_path):
        pytest.importorskip("array_record")
        assert main(["pack", str(images), str(tmp_path / "p"), "--task", "multilabel"]) == 0
        plain, packed = read_label_sets(images), read_label_sets(tmp_path / "p")
        assert plain.labels == packed.labels
        np.testing.assert_array_equal(plain.test.targets, packed.test.targets)
        with pytest.raises(ValueError, match="packed for `kzoo multilabel`"):
            read_dataset(tmp_path / "p")


def test_settings_that_make_no_sense(tmp_path, capsys):
    noise(tmp_path)
    (tmp_path / "list.csv").write_text(TABLES["columns"])
    assert main(["multilabel", str(tmp_path), "--loss", "bcee"]) == 1
    assert "Did you mean 'bce'?" in capsys.readouterr().err
    assert callable(multilabel)
