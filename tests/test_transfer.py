"""What training from pretrained weights spares: rows that stay."""

from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

import kzoo
from kzoo.files import save_model
from kzoo.recipes.classify import TASK, Stages, of_any_size
from kzoo.recipes.configs.image_labels import ClassifyConfig
from kzoo.recipes.data.class_dataset import Split
from kzoo.recipes.task import Run
from kzoo.recipes.training.frozen_norms import take_weights, without_frozen_norms
from kzoo.recipes.training.optimizer import Adam
from kzoo.recipes.training.transfer import fine_rows, freeze_pretrained
from kzoo.weights.batch_norm import batch_norms
from kzoo.weights.saved_model import load_model


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


@pytest.mark.parametrize(
    ("side", "settings"),
    [
        (192, {}),  # .86 of 224
        (224, {"train_scale": 1.0}),
        (200, {"train_scale": 1.0, "size": 200}),  # as runs from before the option learnt
        (32, {"size": 32}),
        (224, {"weights": "none"}),  # batch norms learn their statistics
    ],
)
def test_the_side_of_training_images(side, settings):
    config = ClassifyConfig("photos", **settings)
    assert Stages(Run(TASK, vars(config), None, Path("run"), config)).train_size == side


@pytest.mark.parametrize(
    ("reason", "settings"),
    [
        (None, {}),
        (None, {"weights": "none", "train_scale": 1.0}),
        ("without pretrained weights", {"weights": "none"}),
    ],
)
def test_a_train_scale_that_is_not_used_is_said(reason, settings, monkeypatch, capsys):
    config = ClassifyConfig("photos", model="mobilenet_v3_small", **settings)
    stages = Stages(Run(TASK, vars(config), None, Path("run"), config))
    net = small()
    monkeypatch.setattr(Stages, "fit", lambda self, net, stage, fit, **options: (net, []))
    monkeypatch.setattr(Stages, "balance", lambda self: None)
    stages.whole(net, None, None)
    said = capsys.readouterr().out
    wanted = "The whole network trains on images of 224 px, not of 0.86 of that (train_scale): "
    assert (wanted + reason in " ".join(said.split())) if reason else "train_scale" not in said


def test_train_scale_is_a_share():
    with pytest.raises(ValueError, match=r"train_scale must be in \[.25, 1\]. Received: 1.2"):
        ClassifyConfig("photos", train_scale=1.2)


def test_the_whole_network_learns_on_smaller_images_than_it_is_validated_on():
    """It comes back with its own input size, what it learnt, and its function before that."""
    split = Split((Path("a.jpg"), Path("b.jpg"), Path("c.jpg")), np.array([0, 1, 2]))
    dataset = SimpleNamespace(labels=("x", "y", "z"), train=split, val=split)
    config = ClassifyConfig("photos", model="mobilenet_v3_small", alpha=0.35, size=64)
    stages = Stages(Run(TASK, vars(config), dataset, Path("run"), config))
    net, images = small(), np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3))
    before = net.predict_on_batch(images.astype("float32"))
    seen = {}

    def fit(model, stage, train, val):
        assert (train(0).size, train(0).examples.size, val.examples.size) == (48, 55, 64)
        assert model.input_shape == (None, None, None, 3)
        assert not any("_bn" in v.path for v in model.trainable_variables)
        seen["output"] = model.predict_on_batch(images.astype("float32"))
        logits = model.get_layer("head_logits")
        logits.set_weights([2 * value for value in logits.get_weights()])
        return model, ["history"]

    logits = net.get_layer("head_logits").get_weights()[0]
    trained, history = stages.whole(net, None, fit)
    np.testing.assert_allclose(seen["output"], before, atol=1e-5)
    assert (trained is net, history) == (True, ["history"])
    np.testing.assert_array_equal(net.get_layer("head_logits").get_weights()[0], 2 * logits)


def with_statistics(net):
    """Give every batch norm values that change something."""
    rng = np.random.default_rng(0)
    for norm in batch_norms(net):
        norm.gamma.assign(rng.uniform(0.5, 1.5, norm.gamma.shape))
        norm.moving_variance.assign(rng.uniform(0.5, 1.5, norm.gamma.shape))
        norm.beta.assign(rng.normal(0, 0.1, norm.gamma.shape))
        norm.moving_mean.assign(rng.normal(0, 0.1, norm.gamma.shape))
    return net


def test_a_copy_for_any_size_pads_scales_and_normalizes_as_its_weights_want():
    """Weights of timm: symmetric padding, ImageNet's mean, an epsilon of 1e-5."""
    net = with_statistics(kzoo.MobileNetV4ConvSmall(
        0.5, input_shape=(64, 64, 3), classes=3, padding="symmetric", preprocessing="torch"
    ))  # fmt: skip
    for norm in batch_norms(net):
        norm.epsilon = 1e-5
    copy = of_any_size(net, 48)
    assert [layer.name for layer in copy.layers] == [layer.name for layer in net.layers]
    freeze_pretrained(copy, set())
    copy = without_frozen_norms(copy)
    assert not batch_norms(copy)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(
        copy.predict_on_batch(images), net.predict_on_batch(images), atol=1e-5
    )
    assert copy.predict_on_batch(images[:, :48, :48]).shape == (2, 3)


def of_one_size(net, fixed):
    x = layers.Flatten()(fixed(net.get_layer("row3_out").output))
    return keras.Model(net.input, layers.Dense(3)(x))


def trained_size(net, teacher=None):
    """The size of the images on which the whole network trains, by its batches."""
    split = Split((Path("a.jpg"), Path("b.jpg"), Path("c.jpg")), np.array([0, 1, 2]))
    dataset = SimpleNamespace(labels=("x", "y", "z"), train=split, val=split)
    config = ClassifyConfig("photos", model="mobilenet_v3_small", size=64)
    seen = []

    def fit(model, stage, train, val):
        size = train(0).size
        assert model(np.zeros((1, size, size, 3))).shape == (1, 3)
        seen.append(size)
        return model, ["history"]

    run = Run(TASK, vars(config), dataset, Path("run"), config)
    Stages(run).whole(net, None, fit, teacher=teacher)
    return seen[0]


@pytest.mark.parametrize("fixed", [layers.Flatten(), layers.Reshape((2, 8, 32))])
def test_a_net_of_one_image_size_trains_at_that(fixed):
    """A registered net may flatten its maps, or attend to maps of a fixed size."""
    net = of_one_size(small(), fixed)
    assert of_any_size(net, 48) is None
    assert trained_size(net) == 64


def test_a_teacher_sees_smaller_images_where_it_can(capsys):
    assert trained_size(small(), small()) == 48
    assert trained_size(small(), of_one_size(small(), layers.Flatten())) == 64
    assert "the teacher" in capsys.readouterr().out


def two_blocks():
    """A stem that does not learn, a depthwise and a 1x1 convolution, and a head."""
    x = y = keras.Input((16, 16, 3), name="image")
    convolutions = {
        "row0_conv": keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False),
        "row1_depthwise": keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False),
        "row1_project": keras.layers.Conv2D(6, 1, use_bias=False),
    }
    for name, layer in convolutions.items():
        layer.name = name
        y = keras.layers.BatchNormalization(name=f"{name}_bn")(layer(y))
        y = keras.layers.Activation("hard_swish", name=f"{name}_act")(y)
    y = keras.layers.GlobalAveragePooling2D(name="head_pool")(y)
    return with_statistics(keras.Model(x, keras.layers.Dense(3, name="head_logits")(y)))


@pytest.mark.backend
def test_without_frozen_norms_steps_do_the_same(tmp_path):
    """Losses, Adam's steps and their mean agree with those of the network with batch norms."""
    net = two_blocks()
    freeze_pretrained(net, {"row0"})
    copy = without_frozen_norms(net)
    assert not batch_norms(copy)
    assert [v.path for v in copy.trainable_variables] == [v.path for v in net.trainable_variables]
    rng = np.random.default_rng(1)
    x = rng.uniform(-2, 2, (8, 16, 16, 3)).astype("float32")
    y = rng.normal(size=(8, 3)).astype("float32")
    before, losses = net.get_weights(), []
    for model in (net, copy):
        model.compile(Adam(1e-2, use_ema=True, ema_momentum=0.9), "mse")
        losses.append([float(model.train_on_batch(x, y)) for _ in range(4)])
        model.optimizer.finalize_variable_values(model.trainable_variables)
    np.testing.assert_allclose(*losses, rtol=1e-5)
    save_model(copy, tmp_path / "copy.keras")
    learnt = net.get_weights()
    net.set_weights(before)
    take_weights(net, load_model(tmp_path / "copy.keras"))
    for was, wanted, found in zip(before, learnt, net.get_weights(), strict=True):
        np.testing.assert_allclose(found - was, wanted - was, atol=2e-5)
    assert max(np.abs(a - b).max() for a, b in zip(learnt, before, strict=True)) > 0.02


def test_batch_norms_that_learn_or_stand_alone_stay():
    x = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(4, 3, use_bias=False, name="shared")(x)
    y = keras.layers.BatchNormalization(name="one")(shared)
    y = keras.layers.Concatenate()([y, shared])
    y = keras.layers.Conv2D(4, 3, name="biased")(y)
    y = keras.layers.BatchNormalization(name="two")(y)
    y = keras.layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(y)
    y = keras.layers.BatchNormalization(name="three")(y)
    net = keras.Model(x, keras.layers.BatchNormalization(name="learns")(y))
    for name in ("one", "two", "three"):
        net.get_layer(name).trainable = False
    left = {layer.name for layer in without_frozen_norms(net).layers}
    assert left >= {"one", "two", "learns", "depthwise"}
    assert "three" not in left


def test_a_stage_begun_with_batch_norms_is_taken_over():
    """Checkpoints of older versions hold the network as it is."""
    net, trained = small(), small()
    take_weights(net, trained)
    for a, b in zip(net.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
