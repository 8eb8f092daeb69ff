"""The way from float to int8 that the tasks share: training that may not do harm."""

import dataclasses
import re
import types

import keras
import numpy as np
import pytest
from test_fit import STAGE, data, net, run

import kzoo
from kzoo.recipes.classify import image_quality
from kzoo.recipes.task import get_task
from kzoo.recipes.training.int8 import calibration_suffices, choose, divergence, fit_int8

QAT = dataclasses.replace(STAGE, name="qat", epochs=2)


def trained(model, teacher, folder):
    """(Its history, whether its weights are as they were)."""
    before = [np.array(w) for w in model.get_weights()]
    train, val = data(), data(seed=1)
    model, rows = fit_int8(
        model, QAT, lambda epoch: train.shuffled(0, epoch), val, folder, teacher=teacher,
        image_quality=image_quality, always=True,
    )  # fmt: skip
    assert rows[0]["chosen"] in ("ptq", "qat")
    assert [(row["stage"], row["epoch"]) for row in rows] == [("ptq", 0), ("qat", 0), ("qat", 1)]
    return rows, all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.backend
def test_training_that_helps_is_kept(tmp_path):
    teacher, _ = run(tmp_path / "float")
    rows, same = trained(net(), teacher, tmp_path / "int8")
    assert rows[-1]["val_accuracy"] > rows[0]["val_accuracy"]
    assert not same


def test_training_that_harms_is_not(tmp_path):
    model, _ = run(tmp_path / "float")
    wrong = net()
    wrong.set_weights([-np.array(w) for w in model.get_weights()])
    rows, same = trained(model, wrong, tmp_path / "int8")
    assert rows[0]["val_accuracy"] > 0.9 > rows[-1]["val_accuracy"]
    assert same


@pytest.mark.backend
def test_killed_in_training_it_goes_on(tmp_path):
    """The state on disk holds the teacher too."""
    teacher, _ = run(tmp_path / "float")

    class StoppedError(Exception):
        pass

    def train(folder, stop):
        def epoch(number):
            if number == stop:
                raise StoppedError
            return data().shuffled(0, number)

        return fit_int8(net(), QAT, epoch, data(seed=1), folder, teacher=teacher)

    _, expected = train(tmp_path / "whole", None)
    with pytest.raises(StoppedError):
        train(tmp_path / "stopped", 1)
    _, found = train(tmp_path / "stopped", None)
    for got, want in zip(found, expected, strict=True):
        for key in ("val_loss", "val_accuracy"):
            assert got[key] == pytest.approx(want[key], rel=1e-5)


class Judged:
    """Stands for a distilled model: its outputs are its weights, the teacher's are zeros."""

    def __init__(self, outputs):
        self.student, self.outputs = self, outputs
        self.teacher = types.SimpleNamespace(predict_on_batch=lambda x: np.zeros((len(x), 1)))

    def get_weights(self):
        return [self.outputs]

    def set_weights(self, weights):
        (self.outputs,) = weights

    def predict_on_batch(self, x):
        return self.outputs

    def differences(self, wanted, found):
        return [keras.ops.mean(keras.ops.square(wanted - found), axis=-1)]


class OneBatch:
    """A batch of images, by default fewer than it could have."""

    def __init__(self, images=4, batch_size=6):
        self.images, self.batch_size = images, batch_size

    def __len__(self):
        return 1

    def __getitem__(self, i):
        return (np.zeros((self.images, 2)),)


@pytest.mark.parametrize(
    ("before", "after", "chosen", "reason"),
    [
        # Differences of the qualities 1, 1, 1, 0: mean .75, deviation .5, standard error .25.
        ([0, 0, 0, 0], [1, 1, 1, 0], "qat", "better by 0.7500 .* standard error of 0.2500"),
        ([1, 1, 1, 0], [0, 0, 0, 0], "ptq", "better by 0.7500"),
        # 1, -1, 0, 0: mean 0. Which is nearer to the teacher's zeros says the mean square.
        ([0, 2, 1, 1], [1, 1, 1, 1], "qat", r"equally good on 4 .*\(divergence 1 against 1.5\)"),
        ([1, 1, 1, 1], [0, 2, 1, 1], "ptq", r"\(divergence 1 against 1.5\)"),
        # One image of four, mean .25 and standard error .25: no more than chance.
        ([1, 0, 0, 0], [1, 1, 0, 0], "ptq", r"differ by 0.2500.*\(divergence 0.25 against 0.5\)"),
        # An image that tells nothing does not count: differences of 1, 1, 0 and of 1, -1.
        ([0, 0, 0, np.nan], [1, 1, 0, np.nan], "qat", "over 3 validation images"),
    ],
)
def test_which_weights_are_kept_by_hand(before, after, chosen, reason):
    taught = Judged(np.array(after, float)[:, None])
    qualities = np.array(after, float)
    before = [np.array(before, float)[:, None]]
    found = choose(taught, before, OneBatch(), lambda student, outputs, batches, i: outputs[:, 0])
    assert found.chosen == chosen
    assert re.search(reason, found.reason), found.reason
    np.testing.assert_array_equal(taught.outputs[:, 0], qualities)  # as it was


@pytest.mark.parametrize(
    ("int8", "reason"),
    [
        # The float model's quality is 1 for each image. 4 images lost of 100: .04, error .0197.
        ([0] * 4 + [1] * 96, None),
        # 2 lost and 1 gained of 400: .0025, error .0043.
        ([0, 0, 2] + [1] * 397, r"loses 0\.0025 on average over 400 .* error of 0\.0043"),
        ([2, 2, 0] + [1] * 397, r"gains 0\.0025"),
        # The same of 100: .01, error .0173. That is chance, and it may be a loss of 2 points.
        ([0, 0, 2] + [1] * 97, None),
        # 6 lost of 1000: .006, error .0024. That is no chance.
        ([0] * 6 + [1] * 994, None),
        ([0] * 3 + [1] * 997, r"loses 0\.0030 .* error of 0\.0017"),
        # All agree: one in 100 might not, which is told from chance, and one in 49 is not.
        ([1] * 100, r"loses nothing on average over 100 .* standard error of 0\.0100"),
        ([1] * 49, None),
        # Each of 150 loses as much, but for a little: no chance, however small.
        (np.linspace(0.987, 0.989, 150), None),
        # Images without a quality do not count.
        ([1] * 60 + [np.nan] * 40, "over 60 validation images"),
        ([np.nan] * 100, None),
    ],
)
def test_calibration_that_loses_no_more_than_chance_is_enough(int8, reason):
    taught = Judged(np.array(int8, float)[:, None])
    taught.teacher = Judged(np.ones((len(int8), 1)))
    batches = OneBatch(len(int8), len(int8))
    found = calibration_suffices(taught, batches, lambda net, outputs, batches, i: outputs[:, 0])
    assert (found and found.chosen) == (reason and "ptq")
    assert found is None or re.search(reason, found.reason), found.reason


@pytest.mark.backend
def test_training_is_left_out_where_calibration_is_enough(tmp_path):
    model, _ = run(tmp_path / "float")
    before = [np.array(w) for w in model.get_weights()]
    int8, rows = fit_int8(
        model, QAT, lambda epoch: data().shuffled(0, epoch), data(60, seed=1), tmp_path,
        teacher=model,
        image_quality=image_quality,
    )  # fmt: skip
    assert [row["stage"] for row in rows] == ["ptq"]
    assert rows[0]["chosen"] == "ptq"
    assert "--qat always trains" in rows[0]["reason"]
    assert all(map(np.array_equal, before, int8.get_weights()))


@pytest.mark.parametrize("name", ["classify", "detect", "segment"])
def test_every_task_chooses_by_its_images(name):
    assert get_task(name).image_quality is not None


def test_without_a_measure_of_images_the_nearer_one_is_kept():
    taught = Judged(np.full((4, 1), 2.0))
    found = choose(taught, [np.ones((4, 1))], OneBatch(), None)
    assert str(found) == (
        "the weights of calibration alone are kept: these are nearer to the "
        "float model (divergence 1 against 4)"
    )


def test_training_that_another_version_began_is_kept():
    """Its int8 model may have other ranges: those of calibration do not fit into it."""
    taught = Judged(np.zeros((4, 1)))
    found = choose(taught, [np.ones((4, 1)), np.ones(2)], OneBatch(), None)
    assert found.chosen == "qat"
    assert found.reason.startswith("another version of kzoo")


def test_activations_that_only_diverged_training_has_are_told():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, kernel_initializer="ones", name="row1_conv")(image)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype="uint8")
    assert divergence(kzoo.quantize(model, calibration=images), 1e-3) is None  # 255 * 27 at most
    model.get_layer("row1_conv").set_weights([np.full((3, 3, 3, 4), 1e3), np.zeros(4)])
    remark = divergence(kzoo.quantize(model, calibration=images), 1e-3)
    assert remark.startswith("Activations reach 4.3e+06 at row1_conv,")
    assert "--learning-rate below 0.001" in remark
