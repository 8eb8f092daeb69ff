"""`kzoo predict` without a training run: which images are meant, whose labels name the classes."""

import csv
import io
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from kzoo.recipes.cli import main
from kzoo.recipes.prediction import Found, Prediction, label_of
from kzoo.recipes.programs import predict_images
from kzoo.recipes.programs.benchmark_plot import benchmark_files
from kzoo.recipes.programs.convert_model import sample
from kzoo.recipes.programs.evaluate import evaluate_on
from kzoo.recipes.programs.predict_images import image_files, predict
from kzoo.recipes.training.run_folder import labels_of
from kzoo.tflite.runtime import trial as trial_file

LABELS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A .keras file that names the strongest colour: its scores are a softmax of channel means."""
    folder = tmp_path_factory.mktemp("colours")
    image = keras.Input((16, 16, 3))
    means = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 16)(image))
    keras.Model(image, keras.layers.Softmax()(means)).save(folder / "model.keras")
    (folder / "labels.txt").write_text("\n".join(LABELS))
    return folder / "model.keras"


@pytest.fixture
def photos(tmp_path) -> Path:
    """photos/: one image of each colour, one of them in a folder below, and one that is none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, colour in (("a", (250, 9, 9)), ("b", (9, 250, 9)), ("more/c", (9, 9, 250))):
        Image.new("RGB", (20, 30), colour).save(folder / f"{name}.png")
    (folder / "note.txt").write_text("no image")
    return folder


def test_folders_patterns_and_a_list_are_images(photos, monkeypatch):
    a, b, c = photos / "a.png", photos / "b.png", photos / "more" / "c.png"
    assert image_files([photos]) == [a, b, c]
    assert image_files([f"{photos}/*.png"]) == [a, b]
    assert image_files([f"{photos}/**/*.png"]) == [a, b, c]
    assert image_files([b, photos]) == [b, a, c]  # each once
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{c}\n\n{photos}/a*\n"))
    assert image_files(["-"]) == [c, a]
    strange = photos / "a[1].png"  # a name, not a pattern
    strange.write_bytes(a.read_bytes())
    assert image_files([str(strange)]) == [strange]


def test_drawings_and_hidden_folders_are_no_images_of_a_folder(photos):
    a = (photos / "a.png").read_bytes()
    for folder in ("predicted", ".thumbnails"):
        (photos / folder).mkdir()
        (photos / folder / "d.png").write_bytes(a)
    names = [path.name for path in image_files([photos], leave_out=photos / "predicted")]
    assert names == ["a.png", "b.png", "c.png"]
    drawn = photos / "predicted" / "d.png"
    assert image_files([drawn], leave_out=photos / "predicted") == [drawn]


def test_calibration_images_are_of_all_classes(tmp_path):
    """One folder of 400 images, of which 256 are taken: not the first 256."""
    for colour in ("red", "green", "blue", "black"):
        (tmp_path / colour).mkdir()
        for i in range(100):
            Image.new("RGB", (8, 8), colour).save(tmp_path / colour / f"{i}.bmp")
    shown = sample(tmp_path, 8, tmp_path / "model.keras")[:, 0, 0]
    assert len(shown) == 256
    assert np.unique(shown, axis=0, return_counts=True)[1].tolist() == [64] * 4


def test_no_image_where_some_should_be(photos):
    (photos / "empty").mkdir()
    with pytest.raises(ValueError, match=r"The folder .*empty holds no images"):
        image_files([photos / "empty"])
    with pytest.raises(ValueError, match=r"No file matches '.*\*\.gif'"):
        image_files([f"{photos}/*.gif"])


def test_images_are_named_in_their_order_and_the_unread_are_told(model, photos, capsys):
    broken = photos / "aa.png"
    broken.write_bytes(b"")
    assert main(["predict", str(model), str(photos), "--top", "1"]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"model {model}",
        f"{photos / 'a.png'}: red 100%",
        f"{photos / 'b.png'}: green 100%",
        f"{photos / 'more' / 'c.png'}: blue 100%",
    ]
    assert captured.err.splitlines() == [
        f"kzoo: {broken} cannot be read: empty",
        "kzoo: 1 of 4 images could not be read.",
    ]


def test_json_and_csv(model, photos, capsys):
    words = ["predict", str(model), str(photos / "b.png"), "--top", "2"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (one,) = found["predictions"]
    assert one["found"][0] == {"label": "green", "score": pytest.approx(1), "box": None}
    assert found["unread"] == []
    assert main([*words, "--csv"]) == 0
    header, first, _ = csv.reader(capsys.readouterr().out.splitlines())
    assert header == ["image", "label", "score", "ymin", "xmin", "ymax", "xmax"]
    assert first == [str(photos / "b.png"), "green", "1.0000", "", "", "", ""]
    assert main([*words, "--csv", "--json"]) == 1
    assert "give one of them" in capsys.readouterr().err


def test_as_a_function_in_batches(model, photos, monkeypatch):
    monkeypatch.setattr("kzoo.recipes.programs.predict_images.BATCH", 2)
    (photos / "aa.png").write_bytes(b"")
    found = list(predict(model, [photos], top=1))
    assert [one.found[0].label if one.found else one.problem for one in found] == [
        "red", "empty", "green", "blue",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"top must be at least 1\. Received: 0"):
        list(predict(model, [photos], top=0))
    with pytest.raises(ValueError, match=r"There is no mobilenet_v9.*Did you mean 'mobilenet_v"):
        list(predict("mobilenet_v9", [photos]))


def test_an_image_is_opened_once(model, photos, monkeypatch):
    first, *others = (Image.new("RGB", (20, 30), colour) for colour in ("red", "green", "blue"))
    first.save(photos / "a.png", save_all=True, append_images=others)
    opened = []
    monkeypatch.setattr(
        "kzoo.recipes.data.images.open_image",
        lambda file: opened.append(Path(file.name).name) or Image.open(file),
    )
    found = list(predict(model, [photos]))
    assert opened == ["a.png", "b.png", "c.png"]
    assert [one.remark for one in found] == ["holds 3 frames: the first is read", "", ""]


def test_predictions_in_words():
    path = Path("a.jpg")
    cat = Found("cat", 0.97, (1.2, 2.0, 30.0, 40.0))
    assert str(Prediction(path, (cat,), Path("b.jpg"))) == (
        "a.jpg: cat 97% at 1, 2 to 30, 40 px (drawn in b.jpg)"
    )
    assert str(Prediction(path)) == "a.jpg: nothing found"
    assert str(Prediction(path, problem="empty")) == "a.jpg cannot be read: empty"
    assert [label_of(LABELS, np.int64(1)), label_of(LABELS, 3), label_of(None, 0)] == [
        "green", "class 3", "class 0",
    ]  # fmt: skip


def test_labels_in_the_file_come_before_those_beside_it(tmp_path, capsys):
    pytest.importorskip("tensorflow")
    from kzoo.tflite import convert

    image = keras.Input((16, 16, 3))
    means = keras.layers.GlobalAveragePooling2D()(image)
    net = keras.Model(image, keras.layers.Softmax()(means))
    other = tmp_path / "labels.txt"
    other.write_text("star\nsun\nmoon\n")  # of another model
    file = convert(net, tmp_path / "a.tflite", scheme="float32", labels=LABELS)
    assert labels_of(file) == LABELS
    assert other.read_text() == "star\nsun\nmoon\n"  # left as it was
    assert (tmp_path / "a.labels.txt").read_text().splitlines() == LABELS
    (tmp_path / "model.keras").write_bytes(b"")
    assert labels_of(tmp_path / "model.keras") == ["star", "sun", "moon"]
    assert main(["audit", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"].startswith("This file runs on the CPU in ")
    assert found["metadata"]["labels"] == LABELS
    assert found["targets"]["gpu"]["answer"] in ("yes", "partly", "no", "unknown")


def test_a_file_that_ends_the_process_which_runs_it_is_one_line(tmp_path, photos, monkeypatch):
    """LiteRT is stood in for by a program that ends as it does on some damaged files."""
    file = tmp_path / "strange.tflite"
    file.write_bytes(b"")
    monkeypatch.setattr(predict_images, "read_tflite", lambda path: None)
    monkeypatch.setattr(trial_file, "__file__", str(tmp_path / "killed.py"))
    (tmp_path / "killed.py").write_text("import os; os.kill(os.getpid(), 11)")
    for use in (
        lambda: list(predict(file, [photos])),
        lambda: evaluate_on(file, photos),
        lambda: benchmark_files([file]),
    ):
        with pytest.raises(ValueError, match=r"strange\.tflite cannot be run: .* with signal 11"):
            use()
    (tmp_path / "config.json").write_text("{}")  # a run's own file has been tried
    predict_images.require_runs(file)


@pytest.mark.parametrize("text", ["[]", "{", '{"task": "image-classification"}', '{"task": 3}'])
def test_a_config_of_another_program_beside_the_model(text, model, tmp_path):
    file = tmp_path / "model.keras"
    file.write_bytes(model.read_bytes())
    (tmp_path / "config.json").write_text(text)
    assert predict_images.task_of(file).name == "classify"
