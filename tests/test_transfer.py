"""What training from pretrained weights spares: rows that stay."""

import pytest

import kzoo
from kzoo.recipes.configs import ClassifyConfig
from kzoo.recipes.training.transfer import fine_rows, freeze_pretrained


def small():
    return kzoo.MobileNetV3Small(0.35, input_shape=(64, 64, 3), classes=3)


def test_rows_before_a_stride_are_those_of_the_paper():
    """MobileNetV3-Small, table 2 of https://arxiv.org/abs/1905.02244: 224, 112, 56, 28 px ..."""
    net = small()
    assert fine_rows(net, 8) == {"row0", "row1", "row2"}
    assert fine_rows(net, 2) == {"row0"}
    assert fine_rows(net, 1) == set()


def test_frozen_rows_and_batch_norms_do_not_learn():
    net = small()
    freeze_pretrained(net, fine_rows(net, 8))
    learn = {v.path for v in net.trainable_variables}
    assert not [path for path in learn if "_bn" in path or path[:5] in ("row0_", "row1_", "row2_")]
    assert {path[:5] for path in learn} >= {"row3_", "row9_", "head_"}
    freeze_pretrained(net, set())
    assert "row0_" in {v.path[:5] for v in net.trainable_variables}


def test_freeze_is_a_stride():
    with pytest.raises(ValueError, match=r"freeze must be in \[1, 32\]. Received: 0"):
        ClassifyConfig("photos", freeze=0)
