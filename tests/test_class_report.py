"""What a classification run's report explains, and two runs side by side."""

import json
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import kzoo
from kzoo.files import write_json
from kzoo.recipes.classify import build
from kzoo.recipes.cli import main
from kzoo.recipes.configs.image_labels import ClassifyConfig
from kzoo.recipes.data.class_dataset import Split
from kzoo.recipes.evaluation.classification.attention import class_maps, shown_on
from kzoo.recipes.evaluation.classification.class_details import (
    by_class,
    calibration,
    changed,
    likely_label_errors,
    score_classes,
)
from kzoo.recipes.evaluation.classification.class_report import (
    ClassResults,
    image_names,
    odd_labels,
)
from kzoo.recipes.evaluation.classification.label_metrics import Scored, score_labels
from kzoo.recipes.evaluation.classification.temperature import (
    at_temperature,
    divide_logits,
    fit_temperature,
)
from kzoo.recipes.evaluation.evaluate import SplitEvaluation
from kzoo.recipes.evaluation.page import STYLE, plot, table, write_page
from kzoo.recipes.evaluation.plots import draw_confusion, known_curves
from kzoo.recipes.evaluation.provenance import command_of, versions
from kzoo.recipes.programs.compare_runs import compare_runs
from kzoo.recipes.task import Run, get_task


def test_figures_by_class_by_hand():
    found = by_class(np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]]))
    assert found.images.tolist() == [4, 2, 0]
    np.testing.assert_allclose(found.precision, [3 / 4, 1 / 2, np.nan])
    np.testing.assert_allclose(found.recall, [3 / 4, 1 / 2, np.nan])
    np.testing.assert_allclose(found.f1, [3 / 4, 1 / 2, np.nan])
    scores = np.array([[0.9, 0.1], [0.4, 0.6]])
    kept = score_classes(scores, Split((Path("a"), Path("b")), np.array([0, 0])), ("x", "y"))
    assert kept.figures(("x", "y"))["by_class"]["y"] == {
        "images": 0.0, "precision": 0.0, "recall": None, "f1": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["$5_$", "\\$", "10 $ to 20 $", "a_b^c"])
def test_names_of_classes_are_no_formulas(name):
    """Two dollar signs made Matplotlib read one, or fail at the end of a training."""
    assert plot(draw_confusion(np.eye(2, dtype=int), [name, "b"]), "").startswith("<img")


def test_calibration_by_hand():
    """Guo et al.: the gap of each bin, weighed by its images."""
    scores = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.35, 0.65]])
    found = calibration(scores, np.array([0, 1, 0, 0]), bins=10)
    assert found.images.tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
    assert found.error == pytest.approx((abs(0.95 - 0.5) * 2 + abs(0.65 - 0.5) * 2) / 4)
    sure = np.eye(2)[[0, 1]]
    assert calibration(sure, np.array([0, 1])).error == 0


def test_a_temperature_by_hand():
    """Of answers with logits (2, 0), three of four right: sure at 75 % where 2 / T = log 3."""
    sure = 1 / (1 + np.exp(-2))
    scores = np.tile([sure, 1 - sure], (4, 1))
    targets = np.array([0, 0, 0, 1])
    temperature = fit_temperature(scores, targets)
    assert temperature == pytest.approx(2 / np.log(3), rel=1e-6)
    calibrated = at_temperature(scores, temperature)
    np.testing.assert_allclose(calibrated[:, 0], 0.75, rtol=1e-6)
    assert calibration(calibrated, targets).error == pytest.approx(0, abs=1e-6)


def test_where_all_answers_are_right_they_are_made_no_surer_than_their_number_tells():
    """Laplace: of 8 right of 8 the next is right at 9 in 10, where (1, 0) / T has odds of 9."""
    scores = np.tile([np.e / (1 + np.e), 1 / (1 + np.e)], (8, 1))
    temperature = fit_temperature(scores, np.zeros(8, int))
    assert temperature == pytest.approx(1 / np.log(9), rel=1e-6)
    sure = np.tile([0.99, 0.01], (8, 1))  # surer already: it stays
    assert fit_temperature(sure, np.zeros(8, int)) == pytest.approx(1)


@pytest.mark.parametrize("hidden", [False, True])
def test_divided_logits_are_the_model_at_that_temperature(hidden):
    model = small_net(hidden)
    images = np.random.default_rng(0).uniform(0, 1, (5, 16, 16, 3)).astype("float32")
    before = keras.ops.convert_to_numpy(model(images))
    divide_logits(model, 2.5)
    after = keras.ops.convert_to_numpy(model(images))
    np.testing.assert_allclose(after, at_temperature(before, 2.5), atol=1e-5)


def test_a_net_whose_logits_are_not_linear_takes_no_temperature():
    image = keras.Input((4,))
    x = keras.layers.Dense(3, activation="relu", name="odd")(image)
    model = keras.Model(image, keras.layers.Activation("softmax", name="predictions")(x))
    with pytest.raises(ValueError, match="come from 'odd', a Dense: a temperature needs"):
        divide_logits(model, 2.0)


def test_a_net_without_predictions_takes_no_temperature():
    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.Dense(3, name="scores")(image), name="mine")
    with pytest.raises(ValueError, match=r"mine has no layer named 'predictions'.*last layer is"):
        divide_logits(model, 2.0)


@pytest.mark.parametrize("temperature", [False, True])
def test_a_temperature_that_a_model_cannot_take_is_refused_before_the_training(
    temperature, monkeypatch
):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="scores")])
    monkeypatch.setattr(kzoo, "get_model", lambda name: lambda *args, **options: model)
    config = ClassifyConfig("photos", temperature=temperature)
    if not temperature:
        assert build(config, SimpleNamespace(labels="xyz")) is model
        return
    with pytest.raises(ValueError, match="no layer named 'predictions'"):
        build(config, SimpleNamespace(labels="xyz"))


def test_a_wrong_label_is_found_by_confident_learning():
    """Of 60 images three labels are swapped: those three are named, the likeliest first."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 20)
    scores = np.full((60, 3), 0.1)
    scores[np.arange(60), truth] = rng.uniform(0.7, 0.8, 60)
    scores /= scores.sum(axis=1, keepdims=True)
    labels = truth.copy()
    labels[[3, 25, 47]] = [1, 2, 0]
    scores[25] = [0.01, 0.98, 0.01]
    found = likely_label_errors(scores, labels)
    assert found[0] == 25
    assert {25} <= set(found.tolist()) <= {3, 25, 47}
    assert not len(likely_label_errors(scores, truth))
    assert changed(scores, np.eye(3)[truth]).tolist() == []
    assert changed(scores, np.eye(3)[labels])[0] == 25  # the surest of three


@pytest.mark.parametrize(
    ("answers", "truth", "collapsed"),
    [([1, 1, 1], [0, 1, 2], True), ([1, 1, 0], [0, 1, 2], False), ([1, 1, 1], [1, 1, 1], False)],
)
def test_a_model_that_names_one_class_is_told(answers, truth, collapsed):
    """Float and int8 agree on all images then, and a good label looks wrong."""
    scores, labels = np.eye(3)[answers] * 0.8 + 0.1, ("x", "y", "z")
    split = Split(tuple(map(Path, "abc")), np.array(truth))
    figures = score_classes(scores, split, labels).figures(labels)
    both = {"float": figures, "int8": figures}
    results = ClassResults(
        folder=Path(), val=both, float_accuracy=0, int8_accuracy=0, agreement=1.0, sqnr_db=50.0
    )
    assert ("predicts one class for all validation" in results.summary()) == collapsed
    part = SplitEvaluation("val", split, {"float": scores, "int8": scores}, {})
    if collapsed:
        assert "Not looked for in the validation images" in odd_labels([part], labels)


def small_net(hidden: bool) -> keras.Model:
    """Build a net that ends as those of the zoo do, with layers of their names."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(6, 4, strides=4, activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D(keepdims=hidden, name="head_pool")(x)
    if hidden:
        x = keras.layers.Conv2D(5, 1, name="head_wide")(x)
        x = keras.layers.Activation("hard_swish", name="head_wide_act")(x)
    x = keras.layers.Dropout(0.2, name="head_dropout")(x)
    if hidden:
        x = keras.layers.Conv2D(3, 1, name="head_logits")(x)
        x = keras.layers.Flatten(name="head_flatten")(x)
    else:
        x = keras.layers.Dense(3, name="head_logits")(x)
    return keras.Model(image, keras.layers.Activation("softmax", name="predictions")(x))


@pytest.mark.parametrize("hidden", [False, True])
def test_class_maps_are_what_the_mean_loses_without_a_place(hidden):
    model = small_net(hidden)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype="uint8")
    found = class_maps(model, images, [2, 0])
    assert found.shape == (2, 4, 4)
    np.testing.assert_allclose(found.max(axis=(1, 2)), 1)
    assert shown_on(images[0], found[0]).shape == (16, 16, 3)
    body = keras.Model(model.input, model.get_layer("head_pool").input)
    last = keras.ops.convert_to_numpy(body(images[:1].astype("float32")))[0].reshape(16, 6)
    if hidden:
        wide, kernel = (model.get_layer(name).get_weights() for name in (
            "head_wide", "head_logits"))  # fmt: skip
        y = np.stack([last.mean(0), *(np.delete(last, i, axis=0).mean(0) for i in range(16))])
        y = y @ wide[0][0, 0] + wide[1]
        logits = (y * np.clip(y + 3, 0, 6) / 6) @ kernel[0][0, 0][:, 2]
        share = np.maximum(0, logits[0] - logits[1:])
    else:  # the class activation map, less its mean
        plain = last @ model.get_layer("head_logits").get_weights()[0][:, 2]
        share = np.maximum(0, plain - plain.mean())
    np.testing.assert_allclose(found[0].ravel(), share / share.max(), atol=1e-3)
    flat = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    assert class_maps(flat, images, [0, 0]) is None


def test_pages_are_dark_where_wanted_and_print(tmp_path):
    write_page(tmp_path / "a.html", "title", "below", {"one": "<p>x</p>", "none": ""})
    page = (tmp_path / "a.html").read_text()
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert STYLE.count("{") == STYLE.count("}")
    assert "none" not in page.split("</style>")[1]


def test_columns_of_numbers_are_right_aligned_and_texts_are_not():
    page = table(
        ("", "measured on", "accuracy"),
        [("float", "test, 5 images", "31.7%"), ("int8", "test, 5 images", "-")],
    )
    assert "<th>measured on</th><th class=n>accuracy</th>" in page
    assert "<td>int8</td><td>test, 5 images</td><td class=n>-</td>" in page


def test_curves_of_earlier_runs_show_the_loss_they_have():
    now, before = [{"val_cross_entropy": 1, "accuracy": 1}], [{"val_loss": 1, "accuracy": 1}]
    assert known_curves(now, ("cross_entropy", "accuracy")) == ["cross_entropy", "accuracy"]
    assert known_curves(before, ("cross_entropy", "accuracy")) == ["loss", "accuracy"]


def test_the_command_that_repeats_a_run(tmp_path):
    settings = {"data": "my photos", "model": "mobilenet_v2", "flip": False, "seed": 0,
                "keep_float": ["a", "b"], "epochs": 16, "out": "runs/x"}  # fmt: skip
    run = Run(get_task("classify"), settings, None, tmp_path)
    assert command_of(run, settings) == (
        "kzoo classify 'my photos' --model mobilenet_v2 --no-flip --keep-float a b"
    )
    assert versions()["kzoo"] == kzoo.__version__


# Two runs


def finished(folder: Path, right: str, **settings: object) -> Path:
    """Write what a classification run leaves; `right` says of each image whether int8 is."""
    folder.mkdir(parents=True)
    config = {"task": "classify", "data": "photos", "seed": 0, "model": "mobilenet_v2"} | settings
    write_json(folder / "config.json", config)
    share = right.count("1") / len(right)
    figures = {"accuracy": share, "by_class": {"cat": {"recall": share, "f1": None}}}
    write_json(folder / "results.json", {"val": {"float": figures, "int8": figures}, "test": None})
    lines = ["file,label,float,float_probability,int8,int8_probability"]
    for i, one in enumerate(right):
        predicted = "cat" if one == "1" else "dog"
        lines.append(f"{folder}/cat/{i}.jpg,cat,{predicted},.9,{predicted},.9")
    (folder / "predictions.csv").write_text("\n".join(lines))
    return folder


def test_two_runs_side_by_side_with_a_paired_error(tmp_path, capsys):
    one = finished(tmp_path / "a", "1100110011")
    two = finished(tmp_path / "b", "1111111111", model="mobilenet_v1", seed=1)
    found = compare_runs(one, two)
    (exact, int8) = found.paired
    apart = np.array([0, 0, 1, 1, 0, 0, 1, 1, 0, 0])
    assert (int8.images, int8.difference) == (10, pytest.approx(0.4))
    assert int8.standard_error == pytest.approx(apart.std(ddof=1) / np.sqrt(10))
    assert not int8.is_chance
    assert "the second is better, +0.4000 with a standard error of 0.1633" in found.verdict
    assert found.settings == {"seed": (0, 1), "model": ("mobilenet_v2", "mobilenet_v1")}
    by_name = {(x.model, x.name): x for x in found.figures}
    assert by_name["int8", "by_class cat recall"].difference == pytest.approx(0.4)
    assert exact.split == "val"
    assert main(["compare", str(one), str(two), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["paired"][1]["difference"] == pytest.approx(0.4)
    assert main(["compare", str(one), str(two)]) == 0
    assert "by class, validation images" in capsys.readouterr().out


def test_images_of_one_name_are_told_apart_by_their_place_in_the_data(tmp_path):
    write_json(tmp_path / "config.json", {"task": "classify", "data": "/here/photos"})
    paths = ["/here/photos/a/cat/1.jpg", "../photos/b/cat/1.jpg"]  # as they were given
    elsewhere = ["/x/a/cat/1.jpg", "/x/b/cat/1.jpg", "/x/b/cat/2.jpg"]
    assert image_names(tmp_path, [*paths, *elsewhere]) == {
        paths[0]: "a/cat/1.jpg", paths[1]: "b/cat/1.jpg", elsewhere[2]: "cat/2.jpg",
    }  # fmt: skip


def test_labels_of_fewer_classes_than_scores_are_refused():
    """A net of 1,001 classes with names for 1,000 of them: each would be called by the next."""
    split = Split((Path("a"),), np.array([0]))
    with pytest.raises(ValueError, match=r"gives 3 scores, and its labels name 2 classes"):
        score_classes(np.eye(3)[:1], split, ("a", "b"))
    scored = Scored(np.eye(3)[:1], np.full(3, 0.5))
    with pytest.raises(ValueError, match=r"gives 3 scores, and its labels name 2 classes"):
        score_labels(scored, Split((Path("a"),), np.eye(2)[:1]), ("a", "b"))


def test_a_small_difference_may_be_chance_and_others_have_no_error(tmp_path):
    one, two = finished(tmp_path / "a", "1101"), finished(tmp_path / "b", "1110")
    assert "may be chance" in compare_runs(one, two).verdict
    (two / "predictions.csv").unlink()
    assert "without a standard error" in compare_runs(one, two).verdict


def test_runs_of_other_classes_labels_or_photos_are_not_paired(tmp_path):
    """Each once passed as a difference on the same images."""
    one = finished(tmp_path / "a", "1101", labels=["cat", "dog"])
    two = finished(tmp_path / "b", "1111", labels=["cat", "dog", "hen"])
    found = compare_runs(one, two)
    assert not found.paired
    assert "other classes (only the second has hen)" in found.verdict
    assert found.as_json()["verdict"] == found.verdict

    three = finished(tmp_path / "c", "1111", labels=["dog", "cat"])
    assert compare_runs(one, three).paired[0].images == 4
    table = (three / "predictions.csv").read_text()
    (three / "predictions.csv").write_text(table.replace("0.jpg,cat", "0.jpg,dog"))
    assert compare_runs(one, three).paired[0].images == 3  # one photo has another label now

    for name, count in (("photos", 1), ("others", 2)):
        for i in range(3):
            file = tmp_path / name / "cat" / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x" * (count if i else 1))
    runs = []
    for name in ("photos", "others"):
        runs.append(finished(tmp_path / f"of {name}", "111", data=str(tmp_path / name)))
        table = (runs[-1] / "predictions.csv").read_text()
        (runs[-1] / "predictions.csv").write_text(
            table.replace(str(runs[-1]), str(tmp_path / name))
        )
    assert "without a standard error" in compare_runs(*runs).verdict  # one photo alone is the same
    (tmp_path / "others").rename(tmp_path / "moved")
    assert compare_runs(*runs).paired[0].images == 3


def test_what_cannot_be_compared(tmp_path, capsys):
    one = finished(tmp_path / "a", "11")
    other = finished(tmp_path / "b", "11", task="detect")
    with pytest.raises(ValueError, match="only runs of the same task can be compared"):
        compare_runs(one, other)
    assert main(["compare", str(one), str(one), str(one)]) == 1
    assert "one run folder or two" in capsys.readouterr().err
    (other / "results.json").unlink()
    with pytest.raises(ValueError, match="has no model yet"):
        compare_runs(one, other)
