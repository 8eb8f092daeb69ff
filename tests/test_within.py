"""int8 within a budget: what is tried, what is taken, and what is said where nothing holds."""

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from qat_nets import images, randomized

from kzoo.recipes.cli import main
from kzoo.tflite import Comparison, audit, compare, convert_within
from kzoo.tflite.convert import within
from kzoo.tflite.inspect.compare import measure

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="files are made by TensorFlow"
)


def undecided() -> keras.Model:
    """A net of a hundred classes at each place, many nearly alike: no int8 file keeps them all."""
    image = keras.Input((24, 24, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.Conv2D(8, 3, 2, name="stem")(x)
    x = layers.Activation("hard_swish", name="act")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(100, 1, name="logits")(x)
    return randomized(keras.Model(image, layers.Softmax(name="predictions")(x)))


def test_the_first_that_holds_is_taken(tiny, unseen, tmp_path):
    x, truth = unseen
    found = convert_within(
        tiny, tmp_path / "a.tflite", max_drop=10, calibration=x[:40], images=x[40:],
        labels=truth[40:], convert_options={"labels": [f"class {i}" for i in range(6)]},
    )  # fmt: skip
    assert [one.name for one in found.attempts] == ["calibration"]
    assert found.chosen is not None
    assert found.chosen.path == tmp_path / "a.tflite"
    assert found.chosen.cpu_ms > 0
    told = compare(tiny, tmp_path / "a.tflite", x[40:], truth[40:])
    assert told.accuracy[0] > 0.9  # the net has learnt
    assert found.chosen.accuracy == told.accuracy[1]
    assert found.chosen.drop == pytest.approx(100 * (told.accuracy[0] - told.accuracy[1]))
    assert (tmp_path / "labels.txt").read_text().startswith("class 0")
    assert str(found).startswith("calibration holds: ")


def test_where_nothing_holds_nothing_is_written_and_the_closest_is_named(tmp_path):
    x = images(96, size=24)
    found = convert_within(
        undecided(), tmp_path / "a.tflite", max_drop=0, calibration=x[:32], images=x[32:],
        pareto_folder=tmp_path / "pareto",
    )  # fmt: skip
    names = [one.name for one in found.attempts]
    assert names[:2] == ["calibration", "equalized everywhere"]
    assert len(names) > 2
    assert found.chosen is None
    assert not (tmp_path / "a.tflite").exists()
    assert str(found).startswith(f"Nothing holds 0 points. {found.closest.name} comes closest")
    mixed = [one for one in found.attempts if one.keep_float]
    assert all(one.conversions > (1, 1) for one in mixed)
    assert max(one.sqnr_db for one in mixed) > found.attempts[0].sqnr_db
    assert {one.path for one in found.pareto} == set((tmp_path / "pareto").iterdir())
    for one in found.pareto:
        assert audit(one.path).run
        assert not any(o.drop < one.drop and o.cpu_ms < one.cpu_ms for o in found.attempts)


def test_training_in_int8_is_the_last_way(tmp_path, monkeypatch):
    """Where ranges cut off what the net lives on, only training gets some of it back."""
    monkeypatch.setattr(within, "WAYS", {"calibration": {"ranges": 0.05}})
    monkeypatch.setattr(within, "SHARES", ())
    monkeypatch.setattr(within, "TRAINED", 64)
    x = images(64, size=24)
    found = convert_within(
        undecided(), tmp_path / "a.tflite", max_drop=0, calibration=x[:32], images=x[32:],
        training_images=lambda: x[:32],
    )  # fmt: skip
    calibrated, trained = found.attempts
    assert trained.name == "trained in int8"
    assert trained.sqnr_db > calibrated.sqnr_db + 3
    assert str(found).splitlines()[0].endswith("calibrate on more images, or train on more images.")


def test_training_sees_the_images_in_an_order_of_the_seed():
    taken, x = [], np.arange(40, dtype="uint8").reshape(40, 1, 1, 1)

    class Taught:
        student = None

        def compile(self, optimizer):
            pass

        def fit(self, images, *, shuffle, **options):
            assert not shuffle
            taken.append(images.ravel().tolist())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(within.kzoo, "distill", lambda student, teacher: Taught())
        for seed in (0, 0, 1):
            within.distilled(None, None, x, seed=seed)
    epochs = len(taken) // 3
    first, again, other = (taken[i : i + epochs] for i in range(0, 3 * epochs, epochs))
    assert first == again != other
    assert all(sorted(order) == list(range(40)) for order in taken)


@pytest.mark.parametrize("max_drop", [-1, float("nan")])
def test_a_budget_that_is_none(max_drop, tmp_path):
    x = images(2, size=24)
    with pytest.raises(ValueError, match=r"points >= 0. Received: max_drop="):
        convert_within(
            undecided(), tmp_path / "a.tflite", max_drop=max_drop, calibration=x, images=x
        )


def test_models_of_several_outputs_are_refused(tmp_path):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, [layers.Conv2D(1, 1)(image), layers.Conv2D(2, 1)(image)])
    x = np.zeros((1, 8, 8, 3))
    with pytest.raises(ValueError, match="has 2 outputs; a drop is measured on models of one"):
        convert_within(model, tmp_path / "a.tflite", max_drop=1, calibration=x, images=x)


def test_a_number_has_no_answers_to_keep(monkeypatch, tmp_path):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, layers.Dense(1)(layers.Flatten()(image)), name="age")
    found = measure("age", np.ones((2, 1)), np.ones((2, 1)), 0.1, "", None)
    monkeypatch.setattr(within, "compare", lambda *_: Comparison(2, (found,)))
    with pytest.raises(ValueError, match=r"'age' gives a number, which is no class. Convert it wi"):
        within.measured(model, tmp_path, np.zeros((2, 8, 8, 3)), None, "calibration", (), 0.0)


def test_the_command(tmp_path, capsys):
    undecided().save(tmp_path / "model.keras")
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(images(24, size=24)):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    words = ["convert", str(tmp_path / "model.keras"), str(tmp_path / "a.tflite")]
    given = [*words, "--calibration", str(tmp_path / "photos")]
    assert main([*given, "--max-drop", "100"]) == 0
    assert capsys.readouterr().out.startswith("calibration holds: ")
    assert (tmp_path / "a.tflite").is_file()
    assert main([*words, "--max-drop", "1"]) == 1
    assert "pass --calibration FOLDER" in capsys.readouterr().err
    assert main([*given, "--pareto", str(tmp_path)]) == 1
    assert "--pareto goes with --max-drop" in capsys.readouterr().err
    assert main([*given, "--max-drop", "1", "--target", "gpu"]) == 1
    assert "leave --target out" in capsys.readouterr().err
