"""Segmenters against torchvision, LiteRT's interpreter and cases counted by hand."""

from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import gratings, settled
from golden import torchvision_lraspp, torchvision_models
from golden.backends import fill
from PIL import Image
from test_models import run
from test_weights import save_safetensors

import kzoo
from kzoo.backbones.rows import Head, change
from kzoo.segmentation.features import expansion_at
from kzoo.segmentation.losses import MeanIoU, PixelAccuracy, SegmentationLoss
from kzoo.segmentation.masks import mask_at, score_masks
from kzoo.weights.batch_norm import MissingStatisticsWarning

BACKBONES = (kzoo.MobileNetV2, kzoo.MobileNetV3Large, kzoo.MobileNetV3Small)


def backbone(build=kzoo.MobileNetV3Small, alpha=0.35, size=(64, 64), **options) -> keras.Model:
    return build(alpha, include_top=False, input_shape=(*size, 3), **options)


def torchvisions(case: str, size: tuple[int, int], classes: int) -> keras.Model:
    features = backbone(
        kzoo.MobileNetV3Large,
        1.0,
        size,
        output_stride=16,
        preprocessing="torch",
        padding="symmetric",
    )
    if case.startswith("lraspp"):
        return kzoo.LRASPP(features, classes)
    return kzoo.DeepLabV3(features, classes, aspp_rates=(12, 24, 36), refine=True)


def torchvision_file(case: str, folder: Path) -> Path:
    with np.load(torchvision_lraspp.GOLDEN) as golden:
        lines = [line.split() for line in golden[f"{case}/parameters"].tolist()]
    file = folder / "model.safetensors"
    save_safetensors(
        {n: torchvision_models.seeded(n, tuple(map(int, shape))) for n, *shape in lines}, file
    )
    return file


@pytest.mark.backend
@pytest.mark.parametrize("size", torchvision_models.SIZES)
@pytest.mark.parametrize("case", torchvision_lraspp.CASES)
def test_torchvision(case, size, monkeypatch, tmp_path):
    """Its answers, from its weights in a file as it is published."""
    if keras.backend.backend() != "tensorflow" and size == (64, 64):
        pytest.skip("odd sizes are the harder case, and compiling takes its time")
    zeros = lambda self, shape, dtype=None: np.zeros(shape, dtype or "float32")  # noqa: E731
    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", zeros)
    with np.load(torchvision_lraspp.GOLDEN) as golden:
        expected = golden[f"{case}/{size[0]}x{size[1]}"]
    model = torchvisions(case, size, torchvision_lraspp.CLASSES)
    assert kzoo.load_weights(model, torchvision_file(case, tmp_path)).new == ()
    found = run(model, torchvision_models.pixels(*size)[None].astype("float32"))
    found = found[0, :: torchvision_lraspp.KEPT, :: torchvision_lraspp.KEPT]
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("case", "new"),
    [
        ("lraspp", ("lraspp_classify_high", "lraspp_classify_low")),
        ("deeplabv3", ("classify",)),
    ],
)
def test_torchvisions_weights_for_other_classes(case, new, tmp_path):
    cases = {name.partition("_")[0]: name for name in torchvision_lraspp.CASES}
    file = torchvision_file(cases[case], tmp_path)
    model = torchvisions(case, (64, 64), torchvision_lraspp.CLASSES + 2)
    assert kzoo.load_weights(model, file).new == new
    classifier = kzoo.MobileNetV3Large(input_shape=(64, 64, 3), classes=4, weights=file)
    assert classifier.loaded_weights.new == ("head_wide", "head_logits")


@pytest.mark.parametrize("build", [kzoo.MobileNetV2, kzoo.MobileNetV3Small])
def test_a_classifiers_weights_fill_the_backbone(build, tmp_path):
    classifier = fill(build(0.35, input_shape=(64, 64, 3), classes=7))
    classifier.save_weights(tmp_path / "classifier.weights.h5")
    model = kzoo.LRASPP(backbone(build), 3)
    loaded = kzoo.load_weights(model, tmp_path / "classifier.weights.h5")
    heads = {"lraspp_high", "lraspp_gate", "lraspp_classify_high", "lraspp_classify_low"}
    assert set(loaded.new) == heads
    for layer in model.layers:
        if layer.name.startswith("row"):
            theirs = classifier.get_layer(layer.name).get_weights()
            for mine, value in zip(layer.get_weights(), theirs, strict=True):
                np.testing.assert_array_equal(mine, value)


def test_another_head_of_torchvisions(tmp_path):
    save_safetensors({"backbone.0.0.weight": np.ones((2, 3, 3, 3), "float32")}, tmp_path / "fcn")
    with pytest.raises(ValueError, match="kzoo reads no other segmenters"):
        kzoo.load_weights(kzoo.LRASPP(backbone(), 3), tmp_path / "fcn")


def test_parameters_are_torchvisions():
    model = torchvisions("lraspp", (64, 64), 21)
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == 3_221_538


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("build", BACKBONES)
def test_any_backbone_at_any_stride(build, stride):
    features = backbone(build, 0.5, (64, 96), output_stride=stride)
    for model in (kzoo.LRASPP(features, 3), kzoo.DeepLabV3(features, 3, decoder=True)):
        assert model.output_shape == (None, 64, 96, 3)
        assert all(isinstance(layer, keras.layers.Layer) for layer in model.layers), "flat"
    small = {"full_resolution": False}
    assert kzoo.LRASPP(features, 3, **small).output_shape == (None, 8, 12, 3)
    sides = (None, 64 // stride, 96 // stride, 3)
    assert kzoo.DeepLabV3(features, 3, aspp_rates=(2,), **small).output_shape == sides


@pytest.mark.parametrize(
    ("build", "name", "channels"),
    [
        (kzoo.MobileNetV2, "row17_out", 160),  # 320 / 2, not the classifier's 1,280
        (kzoo.MobileNetV3Large, "row16_out", 480),
        (kzoo.MobileNetV3Small, "row12_out", 288),
    ],
)
def test_the_features_that_the_papers_read(build, name, channels):
    model = kzoo.DeepLabV3(backbone(build, 0.5), 3)
    point = model.get_layer("aspp_point")
    assert point.input._keras_history.operation.name == name
    assert point.kernel.shape[2] == channels


def test_open_sides_and_the_papers_pool():
    features = kzoo.MobileNetV2(0.35, include_top=False, input_shape=(None, None, 3))
    model = kzoo.LRASPP(features, 3)
    assert model.predict(np.zeros((1, 64, 96, 3)), verbose=0).shape == (1, 64, 96, 3)
    with pytest.raises(ValueError, match=r"fixed size.*input_shape=\(512, 512, 3\)"):
        kzoo.DeepLabV3(features, 3)
    with pytest.raises(ValueError, match='pool="paper" needs an input of fixed size'):
        kzoo.LRASPP(features, 3, pool="paper")
    # Maps up to 49 x 49 hold one of the paper's windows, which is then the whole of them.
    features = backbone(output_stride=16)
    models = [fill(kzoo.LRASPP(features, 3, pool=pool)) for pool in ("global", "paper")]
    x = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(*(run(model, x) for model in models), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "classes must be a whole number >= 1"),
        ({"filters": 1.5}, "filters must be a whole number >= 1"),
        ({"pool": "max"}, "pool must be one of 'global', 'paper'"),
        ({"norm_momentum": 1}, r"norm_momentum must be a number in \[0, 1\)"),
        ({"backbone": keras.Sequential([keras.Input((64, 64, 3))])}, "no layers called row0_out"),
    ],
)
def test_lraspp_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        kzoo.LRASPP(**{"backbone": backbone(), "classes": 3} | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"aspp_rates": (6, 0)}, "aspp_rates must be whole numbers >= 1"),
        ({"dropout_rate": 1}, r"dropout_rate must be a number in \[0, 1\)"),
    ],
)
def test_deeplab_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        kzoo.DeepLabV3(backbone(), 3, **arguments)


def test_a_backbone_without_the_strides_that_a_head_reads():
    shallow = kzoo.build(
        "shallow", kzoo.backbones.mobilenet_v2.ROWS[:3], None, 0.35, include_top=False
    )
    with pytest.raises(ValueError, match=r"no row at stride 8.*rows are at 2, 4"):
        kzoo.LRASPP(shallow, 3)


HEADS = {
    "lraspp": lambda: kzoo.LRASPP(backbone(output_stride=16), 4),
    "v3+": lambda: kzoo.DeepLabV3(
        backbone(kzoo.MobileNetV2, output_stride=16), 4, aspp_rates=(2,), decoder=True
    ),
    "fine lraspp": lambda: kzoo.LRASPP(backbone(output_stride=16), 4, fine=True),
    "fine v3+": lambda: kzoo.DeepLabV3(
        backbone(output_stride=16), 4, decoder=True, fine=True, filters=16
    ),
}


@pytest.mark.parametrize(
    ("name", "channels"),
    # Expansions of the first row at 1/8 by the papers' tables: V2's of 24 channels by 6.
    [("mobilenet_v3_small", 72), ("mobilenet_v3_large", 72), ("mobilenet_v2", 144),
     ("mobilenet_v1", 128)],
)  # fmt: skip
def test_fine_features_are_an_expansion_at_a_quarter(name, channels):
    features = kzoo.get_model(name)(include_top=False, input_shape=(64, 64, 3))
    assert expansion_at(features, 4).shape[1:] == (16, 16, channels)
    plain, fine = (
        kzoo.LRASPP(features, 3, fine=on, full_resolution=False, name="net") for on in (False, True)
    )
    assert (plain.output_shape, fine.output_shape) == ((None, 8, 8, 3), (None, 16, 16, 3))
    # It adds one linear classifier of these features, and nothing changes where that gives 0.
    assert fine.count_params() - plain.count_params() == 3 * channels + 3
    added = fine.get_layer("lraspp_classify_fine")
    shared = [w for w in fine.weights if w.path.split("/")[0] != added.name]
    for old, new in zip(plain.weights, shared, strict=True):
        new.assign(old)
    added.kernel.assign(added.kernel * 0)
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    enlarged = keras.layers.Resizing(16, 16)(plain(image))
    np.testing.assert_allclose(fine(image), enlarged, atol=1e-4)
    decoder = kzoo.DeepLabV3(features, 3, decoder=True, fine=True, filters=8)
    assert decoder.get_layer("decoder_fine").kernel.shape == (1, 1, channels, 48)


@pytest.mark.parametrize("head", HEADS)
def test_int8(head, tmp_path):
    pytest.importorskip("tensorflow")
    from kzoo.tflite import audit, compare, convert

    keras.utils.set_random_seed(0)
    images, _ = gratings(32, seed=0)
    model = settled(HEADS[head](), images)
    int8 = kzoo.quantize(model, calibration=images)
    found = audit(convert(int8, tmp_path / "model.tflite"))
    assert found.float_ops == ()
    assert found.partitions == 1
    assert found.outside == ()
    assert not {"SPACE_TO_BATCH_ND", "TILE", "SHAPE"} & found.census.keys()
    assert found.census["RESIZE_BILINEAR"] == (2 if head == "lraspp" else 3)
    # A random net is no easy case for int8: how near the file is to what was trained is the point.
    near = compare(int8, found.path, images[:12]).outputs[0]
    assert near.distinct == (4, 4)
    assert near.agreement > 0.9
    assert near.quanta[0] < 2


# Two classes; the model is even about the first pixel, and 3 to 1 right about the next two.
LOGITS = np.log([[[[1, 1], [3, 1], [1, 3], [1e4, 1]]]]).astype("float32")
LABELS = np.array([[[0, 0, 1, 255]]], "uint8")
LN2, LN43 = np.log(2), np.log(4 / 3)
LOSSES = {
    "mean": ({}, (LN2 + 2 * LN43) / 3),
    "weighted": ({"class_weights": (1, 3)}, (LN2 + LN43 + 3 * LN43) / 5),
    "focal": ({"cross_entropy": 0, "focal": 1}, (0.25 * LN2 + 2 * 0.0625 * LN43) / 3),
    # Overlap of class 0: 2 (.5 + .75) / (2 + 1.5), of class 1: 2 * .75 / (1 + 1.5).
    "dice": ({"cross_entropy": 0, "dice": 1}, 1 - (2.5 / 3.5 + 1.5 / 2.5) / 2),
    # Both classes err by .5, .25 and .25. The IoU with the first, the first two and all three wrong
    # is 1/2, 0, 0 of class 0 and 1/2, 1/3, 0 of class 1.
    "lovasz": (
        {"cross_entropy": 0, "lovasz": 1},
        (0.5 / 2 + 0.25 / 2 + 0.5 / 2 + 0.25 / 6 + 0.25 / 3) / 2,
    ),
    "sum": ({"dice": 2}, (LN2 + 2 * LN43) / 3 + 2 - (2.5 / 3.5 + 1.5 / 2.5)),
}


@pytest.mark.backend
@pytest.mark.parametrize("name", LOSSES)
def test_losses_by_hand(name):
    arguments, expected = LOSSES[name]
    loss = SegmentationLoss(**arguments)
    loss = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(loss(LABELS, LOGITS)) == pytest.approx(expected, abs=1e-5)
    assert float(loss(LABELS[..., None], LOGITS)) == pytest.approx(expected, abs=1e-5)
    assert float(loss(np.full_like(LABELS, 255), LOGITS)) == 0


def test_focal_loss_is_keras():
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 5, (2, 4, 6)), rng.normal(0, 2, (2, 4, 6, 5))
    theirs = keras.losses.CategoricalFocalCrossentropy(alpha=1, gamma=1.5, from_logits=True)
    ours = SegmentationLoss(cross_entropy=0, focal=1, gamma=1.5)
    assert float(ours(labels, logits)) == pytest.approx(
        float(theirs(np.eye(5)[labels], logits)), rel=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dice": -1}, "dice must be a number >= 0"),
        ({"cross_entropy": 0}, "All loss weights are 0"),
        ({"class_weights": (0, 0)}, "class_weights must be numbers >= 0, not all 0"),
        ({"class_weights": (1, 2, 3)}, "3 numbers, and the model has 2 classes"),
        ({"void": 1.5}, "void must be a whole number"),
    ],
)
def test_losses_say_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        SegmentationLoss(**arguments)(LABELS, LOGITS)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 2), (4, 3, 2)])
def test_masks_of_another_shape_are_refused(shape):
    logits = np.zeros((2, 4, 3, 2), "float32")
    with pytest.raises(ValueError, match=r"class ids of shape \(2, 4, 3\)"):
        SegmentationLoss()(np.zeros(shape, "int32"), logits)
    assert SegmentationLoss()(np.zeros((2, 4, 3, 1), "int32"), logits) > 0


@pytest.mark.backend
@pytest.mark.parametrize("wrong", [2, 200, -1, 0.5])
@pytest.mark.parametrize("what", [SegmentationLoss(), MeanIoU(2), PixelAccuracy()])
def test_ids_beyond_the_classes_are_refused(what, wrong):
    """JAX took them for pixels without a loss."""
    targets = np.array([[[0, 1, wrong, 255]]])
    logits = np.zeros((1, 1, 4, 2), "float32")
    with pytest.raises(ValueError, match=rf"class ids from 0 to 1, .*Received: {wrong}\. Build"):
        what(targets, logits)


@pytest.mark.backend
def test_ids_beyond_the_classes_stop_a_training():
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 1)(image))
    model.compile("sgd", SegmentationLoss(dice=1), jit_compile=keras.backend.backend() == "jax")
    before = model.get_weights()
    images, masks = np.ones((2, 4, 4, 3), "float32"), np.full((2, 4, 4), 2)
    if keras.backend.backend() == "jax":  # compiled: values are unknown
        assert np.isnan(model.fit(images, masks, verbose=0).history["loss"][0])
    else:
        with pytest.raises(Exception, match=r"from 0 to 1|valid range of \[0, 2\)"):
            model.fit(images, masks, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.backend
def test_lovasz_of_masks_is_the_jaccard_loss():
    """At probabilities of 0 and 1 it is 1 - IoU."""
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 3, (2, 2, 8, 8))
    truth[0, :2] = 255
    scores = score_masks(zip(truth, found, strict=True), 4)
    loss = SegmentationLoss(cross_entropy=0, lovasz=1)(truth, 100 * np.eye(4)[found])
    assert float(loss) == pytest.approx(1 - np.nanmean(scores.iou[:3]), abs=1e-5)


@pytest.mark.backend
def test_metrics_by_hand():
    truth = np.array([[[0, 1, 1, 255]]], "uint8")  # found: 0, 0, 1 and something
    expected = {"mean_iou": 0.5, "pixel_accuracy": 2 / 3}
    for metric in (MeanIoU(2), PixelAccuracy()):
        metric = keras.metrics.deserialize(keras.metrics.serialize(metric))
        metric.update_state(truth, LOGITS)
        assert float(metric.result()) == pytest.approx(expected[metric.name])
    # The same of masks: every term counted by hand.
    scores = score_masks([(truth[0], LOGITS[0].argmax(-1))], 2)
    assert scores.confusion.tolist() == [[1, 0], [1, 1]]
    assert scores.iou.tolist() == [0.5, 0.5]
    assert scores.pixel_accuracy == pytest.approx(2 / 3)


@pytest.mark.backend
def test_a_segmenter_learns_and_its_void_pixels_do_not_count():
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 1)(image))
    loss = SegmentationLoss(dice=1, focal=1, class_weights=(1, 2))
    model.compile("adam", loss, metrics=[MeanIoU(2), PixelAccuracy()])
    before = model.get_weights()
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    model.fit(x, np.full((4, 8, 8), 255, "uint8"), verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    model.optimizer.learning_rate = 0.1
    found = model.fit(x, (x[..., 0] > 0).astype("uint8"), epochs=40, verbose=0).history
    assert found["mean_iou"][-1] > 0.9
    assert found["pixel_accuracy"][-1] > 0.95


SHARED = Path(__file__).parents[2] / "shared"
PASCAL = SHARED / "weights" / "coral_deeplabv3_mnv2_dm05_pascal_quant.tflite"
# Photos of people, on which that net is sure of what it sees. Elsewhere its own 8-bit rounding, 28
# dB below the logits, moves borders.
PEOPLE = (
    "dress/de478f22-21f5-4992-a22a-edc084336fe8.jpg",
    "outwear/ba7624a3-d953-4a17-9003-61f350f5785b.jpg",
    "shirt/66f2df55-c425-40ae-9932-fa929df752d3.jpg",
)


def test_a_tf_deeplab_file_is_imported():
    """The uint8 file, run by LiteRT, and the same weights in a float Keras model."""
    if not PASCAL.is_file():
        pytest.skip(f"there is no {PASCAL}")
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    matplotlib = pytest.importorskip("matplotlib")  # which brings a portrait
    photos = [Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"]
    photos += [SHARED / "data" / "clothing" / "val" / name for name in PEOPLE]
    # TF-DeepLab does not round channels to eights at alpha < 1.
    rows = tuple(change(row, multiple=1) for row in kzoo.backbones.mobilenet_v2.ROWS)
    features = kzoo.build(
        "mobilenet_v2", rows, Head(), 0.5, include_top=False, output_stride=16,
        input_shape=(513, 513, 3),
    )  # fmt: skip
    model = kzoo.DeepLabV3(features, 21, full_resolution=False)
    with pytest.warns(MissingStatisticsWarning):  # batch norms are folded in the file
        loaded = kzoo.load_weights(model, PASCAL)
    assert loaded.new == ()
    theirs = interpreter.Interpreter(str(PASCAL))
    theirs.allocate_tensors()
    for path in photos:
        image = np.asarray(Image.open(path).convert("RGB").resize((513, 513), 2))
        theirs.set_tensor(theirs.get_input_details()[0]["index"], image[None])
        theirs.invoke()
        truth = theirs.get_tensor(theirs.get_output_details()[0]["index"])[0]
        logits = model.predict(image[None].astype("float32"), verbose=0)[0]
        scores = score_masks([(truth, mask_at(logits, (513, 513), align_corners=True))], 21)
        present = np.unique(truth)
        assert 15 in present  # person
        assert (scores.iou[present] > 0.95).all(), path
