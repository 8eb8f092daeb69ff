"""The recipe from images to a verified int8 file, as a person runs it."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from kzoo.recipes.classify import Config
from kzoo.recipes.cli import main
from kzoo.recipes.programs import demo
from kzoo.recipes.training.teacher import images_trained_on, load_teacher, teacher_words
from kzoo.tflite import Runner, audit

QUICK = ["--model", "mobilenet_v3_small", "--alpha", "0.35", "--size", "48", "--weights", "none"]
QUICK += [
    "--epochs",
    "3",
    "--batch-size",
    "16",
    "--learning-rate",
    "0.003",
    "--qat-epochs",
    "1",
    "--qat",
    "always",
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """60 circles and crosses, and some files that are none."""
    folder = tmp_path_factory.mktemp("data") / "my images"
    rng = np.random.default_rng(0)
    for shape in ("circle", "cross"):
        (folder / shape).mkdir(parents=True)
        for i in range(30):
            demo.draw(shape, rng).save(folder / shape / f"{i}.jpg")
    (folder / "cross" / "broken.jpg").write_bytes(b"\xff\xd8")
    return folder


def test_a_teacher_of_other_classes_or_sizes_is_refused(tmp_path):
    """None of these reaches training."""
    file = tmp_path / "large.keras"
    image = keras.Input((32, 32, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    keras.Model(image, keras.layers.Dense(2, "softmax")(pooled)).save(file)
    assert load_teacher(str(file), ["a", "b"], 32).output_shape == (None, 2)
    with pytest.raises(ValueError, match=r"has other classes: outputs of shape \(2,\)"):
        load_teacher(str(file), ["a", "b", "c"], 32)
    with pytest.raises(ValueError, match="takes images of 32 px, this run of 64 px"):
        load_teacher(str(file), ["a", "b"], 64)
    (tmp_path / "labels.txt").write_text("b\na\n")
    with pytest.raises(ValueError, match=r"has other classes: b, a\. The data have a, b"):
        load_teacher(str(file), ["a", "b"], 32)
    with pytest.raises(ValueError, match=r"There is no runs/none\. Name a run folder or a \.keras"):
        Config("photos", teacher="runs/none")


def saved_teacher(file, *, inputs=(32, 32, 3), scale=1 / 127.5, activation="softmax"):
    image = keras.Input(inputs)
    x = keras.layers.Rescaling(scale, -1.0)(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    keras.Model(image, keras.layers.Dense(2, activation)(x)).save(file)
    return str(file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": None}, "gives no probabilities of one class each.*Add a softmax to logits"),
        ({"activation": "sigmoid"}, "a model of several labels per image is no teacher"),
        ({"scale": 2.0}, r"takes pixels in another range.*begins with Rescaling\(2\)"),
        ({"inputs": (32, 32, 1)}, r"takes inputs of shape \(32, 32, 1\), and not RGB images"),
        ({"inputs": (None, 64, 3)}, "takes images of 64xNone px, this run of 32 px"),
    ],
)
def test_a_teacher_that_says_other_things_is_refused(options, message, tmp_path):
    """Logits and sigmoids were compared with the student's softmax, in silence."""
    with pytest.raises(ValueError, match=message):
        load_teacher(saved_teacher(tmp_path / "large.keras", **options), ["a", "b"], 32)


def test_a_teacher_of_any_size_and_a_run_of_another_task(tmp_path):
    file = saved_teacher(tmp_path / "model.keras", inputs=(None, None, 3))
    assert load_teacher(file, ["a", "b"], 32).output_shape == (None, 2)
    for name in ("config.json", "model.tflite"):
        (tmp_path / name).write_text('{"task": "multilabel", "labels": ["a", "b"]}')
    with pytest.raises(
        ValueError, match=r"is a run of `kzoo multilabel`\. Name one of `kzoo class"
    ):
        load_teacher(str(tmp_path), ["a", "b"], 32)


def test_how_good_a_teacher_is_and_what_it_has_seen_is_told(tmp_path):
    targets, right = np.array([0, 1, 1, 0]), np.eye(2)[[0, 1, 1, 1]]
    words = teacher_words("big", right, targets, 0)
    assert words == "The teacher big is right on 75.0% of the 4 validation images"
    assert "no better than one class for all" in teacher_words("big", 1 - right, targets, 0)
    assert "may have been trained on 2 of them" in teacher_words("big", right, targets, 2)
    (tmp_path / "config.json").write_text(json.dumps({"data": str(tmp_path / "photos")}))
    val = [tmp_path / "photos" / f"{i}.jpg" for i in range(3)]
    (tmp_path / "predictions.csv").write_text(f"file,label\n{val[0]},a\n")
    assert images_trained_on(str(tmp_path), str(tmp_path / "photos"), val) == 2
    assert images_trained_on(str(tmp_path / "model.keras"), str(tmp_path / "photos"), val) == 2
    assert images_trained_on(str(tmp_path), str(tmp_path / "others"), val) == 0
    assert images_trained_on(str(tmp_path / "none.keras"), "photos", []) == 0


def command(*arguments, **options):
    """The command as a person runs it: no variable that makes libraries quiet."""
    loud = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    words = [sys.executable, "-m", "kzoo.recipes.cli", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, env=loud, text=True, **pipes, **options)


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A finished run's folder, made by a command that shows no library's remarks."""
    folder = tmp_path_factory.mktemp("runs") / "quick"
    process = command("classify", images, *QUICK, "--out", folder)
    error = process.communicate()[1]
    assert process.returncode == 0, error
    assert error == ""
    return folder


@pytest.fixture(scope="module")
def taught(run, images):
    """A run in mixed precision on much altered images, whose teacher is the other run."""
    words = [*QUICK, "--epochs", "1", "--seed", "1", "--out", str(run.parent / "taught")]
    words += ["--teacher", str(run), "--augment", "strong", "--precision", "mixed_bfloat16"]
    assert main(["classify", str(images), *words]) == 0
    return run.parent / "taught"


@pytest.mark.slow
class TestRun:
    def test_leaves_everything_in_its_folder(self, run):
        files = {path.name for path in run.iterdir()}
        assert files == {
            "checkpoint", "config.json", "history.json", "labels.txt", "model.keras",
            "model.tflite", "predictions.csv", "predictions.png", "report.html", "results.json",
        }  # fmt: skip
        assert (run / "labels.txt").read_text().split() == ["circle", "cross"]
        assert len(json.loads((run / "history.json").read_text())) == 3 + 2  # ptq, qat

    def test_the_file_is_int8_between_bytes_and_scores(self, run):
        found = audit(run / "model.tflite")
        assert not found.float_ops
        assert not found.custom_ops + found.flex_ops

    def test_the_results_are_those_of_the_files(self, run, images):
        rows = (run / "predictions.csv").read_text().splitlines()[1:]
        assert len(rows) == 12
        results = json.loads((run / "results.json").read_text())
        cells = [row.rsplit(",", 5) for row in rows]  # file, label, float, probability, int8, ...
        for name, column in (("float_accuracy", 2), ("int8_accuracy", 4)):
            right = np.mean([cell[1] == cell[column] for cell in cells])
            assert results[name] == pytest.approx(right)

    def test_the_report_stands_alone_and_lists_what_was_left_out(self, run):
        page = (run / "report.html").read_text()
        assert "broken.jpg" in page
        assert 'src="data:image/svg+xml;base64,' in page
        assert "http://" not in page
        assert "https://" not in page

    def test_predict_by_run_file_and_keras(self, run, images, capsys):
        image = str(images / "circle" / "0.jpg")
        broken = str(images / "cross" / "broken.jpg")
        for model in (run, run / "model.tflite", run / "model.keras"):
            assert main(["predict", str(model), image, broken]) == 1
            captured = capsys.readouterr()
            which, first = captured.out.splitlines()[-2:]
            assert which == f"model {model / 'model.tflite' if model == run else model}"
            assert first.startswith(f"{image}: c")
            assert f"{broken} cannot be read: not an image" in captured.err
            assert captured.err.endswith("kzoo: 1 of 2 images could not be read.\n")

    def test_predict_as_json_and_csv_on_folders(self, run, images, capsys):
        assert main(["predict", str(run), str(images / "circle"), "--json", "--top", "1"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["model"] == str(run / "model.tflite")
        assert len(found["predictions"]) == 30
        assert found["predictions"][0]["image"] == str(images / "circle" / "0.jpg")
        (best,) = found["predictions"][0]["found"]
        assert best["label"] in ("circle", "cross")
        assert 0.5 <= best["score"] <= 1
        assert main(["predict", str(run), str(images / "circle" / "1*.jpg"), "--csv"]) == 0
        rows = list(csv.reader(capsys.readouterr().out.splitlines()))
        assert rows[0][:3] == ["image", "label", "score"]
        assert len(rows) == 1 + 11 * 2  # 1.jpg and 10.jpg to 19.jpg, of two classes

    def test_compare_and_audit_and_benchmark(self, run, capsys):
        for words in (["compare", run], ["audit", run / "model.tflite"]):
            assert main([*map(str, words)]) == 0
        out = capsys.readouterr().out
        assert "12 images" in out
        assert "agreement" in out

    @pytest.mark.parametrize(
        "words",
        [
            ["predict", "RUN", "IMAGES/circle/0.jpg"],
            ["predict", "RUN/model.keras", "IMAGES/circle/0.jpg"],
            ["compare", "RUN"],
            ["sensitivity", "RUN"],
            ["convert", "RUN", "OUT/float.tflite", "--scheme", "float32"],
            ["audit", "RUN/model.tflite"],
            ["benchmark", "RUN/model.tflite"],
            ["android", "RUN", "--out", "OUT/android"],
            ["plan", "--rate", "9", "--model", "mobilenet_v3_small", "--size", "32"],
            ["list", "--size", "64", "--json"],
        ],
        ids=lambda words: " ".join(words[:2]),
    )
    def test_no_command_shows_a_library_s_remarks(self, words, run, images, tmp_path):
        places = {"RUN": str(run), "IMAGES": str(images), "OUT": str(tmp_path)}
        for name, place in places.items():
            words = [word.replace(name, place) for word in words]
        process = command(*words)
        out, error = process.communicate()
        assert error == ""
        assert process.returncode == 0
        assert out

    def test_the_model_file_needs_no_kzoo(self, run):
        """Anyone with Keras can open model.keras."""
        code = (
            "import sys, keras, numpy as np; sys.modules['kzoo'] = None;"
            f"m = keras.saving.load_model({str(run / 'model.keras')!r});"
            "print(m.predict(np.zeros((1, 48, 48, 3)), verbose=0).shape)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.strip().endswith("(1, 2)"), done.stderr

    def test_a_run_teaches_another(self, taught, run):
        model = keras.saving.load_model(taught / "model.keras", compile=False)
        assert not hasattr(model, "teacher")  # the student alone is kept
        assert json.loads((taught / "config.json").read_text())["teacher"] == str(run)

    def test_mixed_precision_ends_in_float32(self, taught):
        model = keras.saving.load_model(taught / "model.keras")
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}
        assert keras.config.dtype_policy().name == "float32"
        assert not audit(taught / "model.tflite").float_ops

    def test_again_changes_nothing(self, run, images):
        before = (run / "model.tflite").read_bytes()
        assert main(["classify", str(images), *QUICK, "--out", str(run)]) == 0
        assert (run / "model.tflite").read_bytes() == before

    def test_other_settings_are_refused(self, run, images, capsys):
        words = ["classify", str(images), *QUICK, "--out", str(run), "--seed", "1"]
        assert main(words) == 1
        assert "seed=0, not 1" in capsys.readouterr().err

    def test_killed_it_goes_on_and_ends_as_it_would_have(self, run, images, tmp_path):
        words = ["classify", str(images), *QUICK, "--out", str(tmp_path / "killed")]
        process = command(*words)
        kept = tmp_path / "killed" / "checkpoint" / "whole-0000"
        for _ in range(1800):
            if kept.exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert kept.exists()
        assert not (tmp_path / "killed" / "model.keras").exists()
        assert main(words) == 0
        rows, expected = (
            json.loads((folder / "history.json").read_text())
            for folder in (tmp_path / "killed", run)
        )
        for got, want in zip(rows, expected, strict=True):
            assert got["val_loss"] == pytest.approx(want["val_loss"], rel=1e-3)
        x = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), dtype="uint8")
        np.testing.assert_allclose(
            Runner(tmp_path / "killed" / "model.tflite")(x),
            Runner(run / "model.tflite")(x),
            atol=0.1,
        )

    def test_a_full_disk_is_one_line_and_no_half_file(self, images, tmp_path):
        def small_files():  # as on a full disk, a write fails in its middle
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

        out = tmp_path / "full"
        process = command("classify", images, *QUICK, "--out", out, preexec_fn=small_files)
        error = process.communicate()[1]
        assert process.returncode == 1
        assert "Traceback" not in error
        assert error.splitlines()[-1].startswith("kzoo: ")
        assert not [p for p in out.rglob("*") if p.suffix in (".keras", ".tflite", ".h5")] or all(
            ".part" in str(p) for p in out.rglob("*.keras")
        )


class TestErrors:
    """One line that says what to do, and nothing left behind."""

    @pytest.mark.parametrize(
        ("words", "complaint"),
        [
            (["nowhere"], "There is no"),
            (["DATA", "--model", "mobilenet_v9"], "model must be one of mobilenet_v1, "),
            (["DATA", "--weights", "nowhere.h5"], "nowhere.h5"),
            (["DATA", "--alpha", "-1"], "alpha must be a number > 0"),
            (["DATA", "--size", "8"], "at least 32"),
            (["DATA", "--epochs", "-1"], "epochs must be at least 0"),
            (["DATA", "--batch-size", "0"], "batch_size must be at least 1"),
            (["DATA", "--learning-rate", "nan"], "learning_rate must be at least 0. Received: nan"),
            (["DATA", "--learning-rate", "inf"], "learning_rate must be finite. Received: inf"),
            (["DATA", "--val-fraction", "1.5"], "val_fraction must be in [0, 1). Received: 1.5"),
            (["DATA", "--label-smoothing", "3"], "label_smoothing must be in [0, 1)"),
            (["DATA", "--seed", "-1"], "seed must be at least 0"),
            (["DATA", "--precision", "int4"], "precision must be one of"),
        ],
    )
    def test_settings(self, images, tmp_path, capsys, words, complaint):
        words = [str(images) if word == "DATA" else word for word in words]
        flags = [*words, "--out", str(tmp_path / "run")]
        if "--weights" not in words:
            flags += ["--weights", "none"]
        assert main(["classify", *flags]) == 1
        error = capsys.readouterr().err
        assert complaint in error
        assert len(error.strip().splitlines()) == 1
        assert not (tmp_path / "run").exists()

    def test_a_folder_that_cannot_be_written(self, images, tmp_path, capsys):
        (tmp_path / "file").touch()
        words = ["classify", str(images), *QUICK, "--out", str(tmp_path / "file" / "run")]
        assert main(words) == 1
        assert "kzoo: " in capsys.readouterr().err

    def test_a_folder_of_something_else_is_left_alone(self, images, tmp_path, capsys):
        (tmp_path / "thesis.txt").write_text("years of work")
        assert main(["classify", str(images), *QUICK, "--out", str(tmp_path)]) == 1
        assert "is not a kzoo run folder" in capsys.readouterr().err
        assert os.listdir(tmp_path) == ["thesis.txt"]

    def test_predict_and_compare_without_a_run(self, tmp_path, capsys):
        assert main(["predict", str(tmp_path / "none"), "a.jpg"]) == 1
        assert main(["compare", str(tmp_path)]) == 1
        assert "is not a kzoo run folder: it has no config.json" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_learns_and_its_file_agrees(tmp_path):
    results = demo.demo(tmp_path / "demo")
    assert results.float_accuracy > 0.85  # of five classes; a guess is .2
    assert results.int8_accuracy > results.float_accuracy - 0.05
    assert results.agreement > 0.9
    again = keras.saving.load_model(results.folder / "model.keras")
    assert again.output_shape == (None, 5)
