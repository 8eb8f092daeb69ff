"""The lines that a person sees of a run's stages, by hand."""

import dataclasses

import pytest

from kzoo.recipes.training.display import duration, fallen_behind, metric_name, stage_displays
from kzoo.recipes.training.stage import Stage

HEAD = Stage("head", 2, 1e-3, metric="val_map", title="the new head", cost=0.5)
WHOLE = Stage("whole", 12, 1e-3, metric="val_map", title="the whole network")
QAT = Stage("qat", 3, 1e-4, metric="val_map", cost=2)


@pytest.fixture
def displays():
    displays, last = stage_displays([HEAD, WHOLE, QAT], last="int8 file")
    assert last == "Stage 4 of 4: int8 file"
    return displays


def rows(*scores, seconds=10.0):
    return [{"val_map": s, "loss": 1.5, "val_loss": 1.0, "seconds": seconds} for s in scores]


def test_an_epoch_in_a_line(displays, capsys):
    """Ten seconds an epoch: nine more of the stage, and three of twice the cost in the next."""
    displays[1].ended(rows(0.2, 0.7, 0.5))
    displays[1].ended(rows(0.2, 0.7))
    assert capsys.readouterr().out.splitlines() == [
        "Stage 2 of 4: the whole network, epoch 3/12: mAP 0.500 on the validation images (best "
        "0.700 in epoch 2); loss 1.5; 10 s; left 90 s of the stage, about 2 min of the run",
        "Stage 2 of 4: the whole network, epoch 2/12: mAP 0.700 on the validation images, the best "
        "so far; loss 1.5; 10 s; left 2 min of the stage, about 3 min of the run",
    ]


def test_the_head_s_epochs_cost_half(displays):
    """One of 10 s, twelve of 20 s and three of 40 s; the first epoch compiles, and counts not."""
    assert (
        displays[0].left([*rows(0.1, seconds=99.0), *rows(0.2)]) == "; left about 6 min of the run"
    )
    history = rows(0.1, 0.1, 0.1)
    assert displays[2].left(history) == ""


def test_resuming_and_patience(displays, capsys):
    displays[1].resuming(3, 0)
    displays[1].resuming(3, 120)
    displays[1].out_of_patience()
    displays[2].before_training({"val_map": 0.25})
    assert capsys.readouterr().out.splitlines() == [
        "Stage 2 of 4: the whole network, resuming at epoch 4 of stage 2",
        "Stage 2 of 4: the whole network, resuming at epoch 4 of stage 2, after 120 steps",
        "Stage 2 of 4: the whole network: no better epoch in 10, so the stage ends",
        "Stage 3 of 4: qat, before it: mAP 0.250 on the validation images",
    ]


def test_a_whole_network_that_is_worse_than_its_head_is_told():
    behind = fallen_behind([(HEAD, rows(0.3, 0.45)), (WHOLE, rows(0.2, 0.31))])
    assert behind.startswith(
        "The stage of the whole network ends with mAP 0.310 on the validation images, that of the "
        "new head with 0.450. Train longer"
    )
    assert fallen_behind([(HEAD, rows(0.3)), (WHOLE, rows(0.3))]) is None
    assert fallen_behind([(WHOLE, rows(0.3))]) is None
    assert fallen_behind([]) is None
    by_loss = dataclasses.replace(WHOLE, metric="val_loss")
    assert fallen_behind([(HEAD, rows(0.3)), (by_loss, rows(0.1))]) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (7800, "2 h 10 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_names_of_metrics():
    names = [metric_name(f"val_{key}") for key in ("accuracy", "map", "mean_iou", "pixel_accuracy")]
    assert names == ["accuracy", "mAP", "mean IoU", "pixel accuracy"]
