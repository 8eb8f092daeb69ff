"""The way from float to int8 that the recipes share: training that may not do harm."""

import dataclasses

import numpy as np
import pytest
from test_fit import STAGE, data, net, run

from kzoo.recipes.training.int8 import fit_int8

QAT = dataclasses.replace(STAGE, name="qat", epochs=2)


def trained(model, teacher, folder):
    """(Its history, whether its weights are as they were)."""
    before = [np.array(w) for w in model.get_weights()]
    train, val = data(), data(seed=1)
    model, rows = fit_int8(
        model, QAT, lambda epoch: train.shuffled(0, epoch), val, folder, teacher=teacher
    )
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
