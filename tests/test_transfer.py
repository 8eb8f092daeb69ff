"""What training from pretrained weights spares: rows that stay, and smaller images."""

import keras
import numpy as np
import pytest

import kzoo
from kzoo.recipes.configs import ClassifyConfig, MultilabelConfig
from kzoo.recipes.training.transfer import (
    copy_weights,
    fine_rows,
    freeze_pretrained,
    of_any_size,
    training_side,
)


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


@pytest.mark.backend
def test_a_copy_of_any_size_computes_the_same():
    net = small()
    copy = of_any_size(net)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    expected = net.predict(images, verbose=0)
    np.testing.assert_allclose(copy.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-5)
    assert copy.predict(images[:, :48, :48], verbose=0).shape == (2, 3)
    for variable in copy.get_layer("head_logits").trainable_variables:
        variable.assign(keras.ops.zeros_like(variable))
    copy_weights(copy, net)
    np.testing.assert_allclose(net.predict(images, verbose=0), 1 / 3, rtol=1e-5)


@pytest.mark.parametrize(("size", "share", "side"), [
    (224, 6 / 7, 192), (224, 1, 224), (230, 1.0, 230), (128, 6 / 7, 112), (32, 0.5, 32),
])  # fmt: skip
def test_sides_of_training_images(size, share, side):
    assert training_side(size, share) == side


def test_defaults_depend_on_pretrained_weights():
    scratch = ClassifyConfig("photos", weights="none").resolved(1000)
    assert (scratch.freeze, scratch.ema) == (1, 0.0)
    tuned = ClassifyConfig("photos", epochs=16, batch_size=32).resolved(1000)  # 512 steps
    assert (tuned.freeze, tuned.ema) == (8, 0.9902)
    given = ClassifyConfig("photos", freeze=2, ema=0.5).resolved(1000)
    assert (given.freeze, given.ema) == (2, 0.5)
    tags = MultilabelConfig("photos.csv").resolved(1000)  # its stages are the classifier's
    assert (tags.freeze, tags.train_size) == (1, 1.0)
    assert ClassifyConfig("photos", epochs=0).resolved(1000).ema == 0.0
    with pytest.raises(ValueError, match=r"freeze must be in \(0, 32\]. Received: 0"):
        ClassifyConfig("photos", freeze=0)
    with pytest.raises(ValueError, match=r"train_size must be in \(0, 2\]. Received: 3"):
        ClassifyConfig("photos", train_size=3)
