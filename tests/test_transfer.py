"""What training from pretrained weights spares: rows that stay."""

from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

import kzoo
from kzoo.files import save_model
from kzoo.recipes.classify import TASK, Stages
from kzoo.recipes.configs.image_labels import ClassifyConfig
from kzoo.recipes.data.class_dataset import Split
from kzoo.recipes.task import Run
from kzoo.recipes.training.frozen_norms import take_weights, without_frozen_norms
from kzoo.recipes.training.optimizer import Adam
from kzoo.recipes.training.transfer import cotuned, fine_rows, freeze_pretrained, of_any_size
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
    config = ClassifyConfig("photos", model="mobilenet_v3_small", cotuning=0, **settings)
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
    config = ClassifyConfig("photos", model="mobilenet_v3_small", alpha=0.35, size=64, cotuning=0)
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
    config = ClassifyConfig("photos", model="mobilenet_v3_small", size=64, cotuning=0)
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


def learner():
    """A net of 3 classes whose features (4,) are the means of 4 channels, and some images."""
    x = image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="row0_conv")(x)
    x = layers.Dropout(0.0, name="head_dropout")(layers.GlobalAveragePooling2D()(x))
    x = layers.Dense(3, name="head_logits")(x)
    net = keras.Model(image, layers.Activation("softmax", name="predictions")(x))
    rng = np.random.default_rng(0)
    images, targets = rng.normal(size=(6, 8, 8, 3)).astype("float32"), np.array([0, 1, 2, 0, 0, 2])
    features = keras.Model(image, net.get_layer("head_dropout").input).predict(images, verbose=0)
    return net, images, targets, features


def of_five_classes(kind):
    """A pretrained classifier of 5 classes: dense, as V2's, or a 1x1 convolution, as V3's."""
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(4, 5)).astype("float32"), rng.normal(size=5).astype("float32")
    layer = layers.Dense(5) if kind == "dense" else layers.Conv2D(5, 1)
    layer.build((None, 4) if kind == "dense" else (None, 1, 1, 4))
    layer.set_weights([kernel.reshape(layer.kernel.shape), bias])
    return layer, kernel, bias


@pytest.mark.backend
@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_cotuning_adds_the_cross_entropy_of_the_pretrained_classes(kind):
    """Equations 1 and 3 of Co-Tuning for Transfer Learning (NeurIPS 2020), in numpy."""
    net, images, targets, features = learner()
    classifier, kernel, bias = of_five_classes(kind)
    model = cotuned(net, classifier, features, targets, weight=0.3)
    logits = features @ kernel + bias
    pretrained = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    relation = np.array([pretrained[targets == i].mean(axis=0) for i in range(3)])
    own = np.eye(3)[targets]
    own[0] = [0.6, 0.4, 0]  # as MixUp shares it
    weights = np.array([1, 2, 1, 0.5, 1, 1], "float32")
    found = net.predict(images, verbose=0)
    each = -np.sum(own * np.log(found), axis=1)
    further = -np.sum((own @ relation) * np.log(pretrained), axis=1)
    wanted = np.mean((each + 0.3 * further) * weights)

    model.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy", metrics=["accuracy"])
    logs = model.fit(images, own, sample_weight=weights, batch_size=6, verbose=0).history
    np.testing.assert_allclose(logs["loss"], wanted, rtol=1e-5)
    right = np.mean(found.argmax(axis=1) == own.argmax(axis=1))
    assert logs["accuracy"] == [pytest.approx(right)]
    loss, _ = model.evaluate(images, own, verbose=0)  # only of the labels
    np.testing.assert_allclose(loss, np.mean(each), rtol=1e-5)
    np.testing.assert_allclose(model.predict(images, verbose=0), found, rtol=1e-6)


@pytest.mark.backend
def test_a_cotuned_model_goes_on_from_a_file(tmp_path):
    net, images, targets, features = learner()
    model = cotuned(net, of_five_classes("dense")[0], features, targets, weight=0.3)
    model.compile(Adam(1e-2), "categorical_crossentropy")
    own = np.eye(3)[targets]
    model.fit(images, own, batch_size=3, shuffle=False, verbose=0)
    save_model(model, tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras", compile=True)
    for one in (model, again):
        one.fit(images, own, batch_size=3, shuffle=False, verbose=0)
    np.testing.assert_allclose(
        again.student.predict(images, verbose=0), net.predict(images, verbose=0), atol=1e-6
    )


@pytest.mark.parametrize(
    ("found", "classes", "settings"),
    [
        (True, 1000, {}),
        (False, 7, {}),  # weights of other classes
        (False, 1000, {"cotuning": 0.0}),
        (False, 1000, {"teacher": "runs/teacher"}),
    ],
)
def test_the_pretrained_classifier_is_that_of_the_weights(found, classes, settings, tmp_path):
    size = {"alpha": 0.35, "input_shape": (32, 32, 3)}
    source = kzoo.MobileNetV3Small(classes=classes, **size)
    save_model(source, file := tmp_path / "model.keras")
    config = ClassifyConfig(
        "photos", model="mobilenet_v3_small", alpha=0.35, size=32, weights=str(file)
    )
    config = SimpleNamespace(**vars(config) | settings)
    net = kzoo.MobileNetV3Small(classes=3, **size)
    stages = Stages(Run(TASK, vars(config), None, Path("run"), config))
    layer = stages.pretrained_classifier(net)
    assert (layer is not None) == found
    if layer:
        np.testing.assert_array_equal(layer.kernel, source.get_layer("head_logits").kernel)
    assert stages.pretrained_classifier(of_one_size(net, layers.Flatten())) is None
