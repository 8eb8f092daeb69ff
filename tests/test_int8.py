"""The way from float to int8 that the recipes share: training that may not do harm."""

import dataclasses

import numpy as np
import pytest
from test_fit import STAGE, data, net, run

from kzoo.recipes.int8 import fit_or_leave

QAT = dataclasses.replace(STAGE, name="qat", epochs=2)


def trained(model, shown, folder):
    """(Its history, whether its weights are as they were)."""
    before = [np.array(w) for w in model.get_weights()]
    val = data(seed=1)
    model, rows = fit_or_leave(model, QAT, lambda epoch: shown.shuffled(0, epoch), val, folder)
    assert [(row["stage"], row["epoch"]) for row in rows] == [("ptq", 0), ("qat", 0), ("qat", 1)]
    return rows, all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.backend
def test_training_that_helps_is_kept(tmp_path):
    rows, same = trained(net(), data(), tmp_path)
    assert rows[-1]["val_accuracy"] > rows[0]["val_accuracy"]
    assert not same


def test_training_that_harms_is_not(tmp_path):
    model, _ = run(tmp_path / "float")
    wrong = data()
    wrong.targets = (wrong.targets + 1) % 3
    rows, same = trained(model, wrong, tmp_path / "int8")
    assert rows[0]["val_accuracy"] > 0.9 > max(row["val_accuracy"] for row in rows[1:])
    assert same
