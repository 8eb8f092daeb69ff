"""The recipe from images with masks to a verified int8 file, as a person runs it."""

import importlib.util
import json
from functools import partial

import keras
import numpy as np
import pytest
from mask_scenes import draw_scenes
from PIL import Image

import kzoo
from kzoo.recipes.cli import main
from kzoo.recipes.data.images import read_image
from kzoo.recipes.data.mask_dataset import read_masks
from kzoo.recipes.data.masks.pairs import full_mask
from kzoo.recipes.evaluation.drawings import clear_class, overlay
from kzoo.recipes.evaluation.mask_report import legend
from kzoo.recipes.evaluation.segment_files import find_mask
from kzoo.recipes.prediction import open_model
from kzoo.recipes.segment import (
    TASK,
    Config,
    Stages,
    assembled,
    build,
    class_weights,
    image_quality,
)
from kzoo.recipes.task import Run
from kzoo.recipes.training.run_folder import open_run
from kzoo.recipes.training.stages import fit
from kzoo.segmentation.masks import mask_at, score_masks
from kzoo.tflite import Runner, audit
from kzoo.tflite.convert.mask_output import end_in_mask

LABELS = ("background", "circle", "cross")
QUICK = ["--model", "mobilenet_v3_small_minimalistic", "--alpha", "0.5", "--weights", "none"]
QUICK += ["--head", "deeplabv3+", "--filters", "24", "--size", "64", "--batch-size", "8"]
QUICK += ["--epochs", "14", "--qat-epochs", "1", "--qat", "always", "--learning-rate", "0.004"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "scenes"
    draw_scenes(folder, train=128, val=32, side=64, shapes=LABELS[1:])
    (folder / "val" / "masks" / "0000.png").unlink()
    return folder


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    """A finished run's folder."""
    folder = tmp_path_factory.mktemp("runs") / "quick"
    assert main(["segment", str(scenes), *QUICK, "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
class TestRun:
    def test_leaves_everything_in_its_folder(self, run):
        files = {path.name for path in run.iterdir()}
        assert files >= {
            "config.json", "history.json", "labels.txt", "model.keras", "model.tflite",
            "report.html", "results.json",
        }  # fmt: skip
        assert tuple((run / "labels.txt").read_text().split()) == LABELS
        assert len(json.loads((run / "history.json").read_text())) == 14 + 2  # ptq, qat

    def test_learns_and_int8_is_as_good(self, run, scenes):
        """Both held against the masks that were drawn, not against what the run says."""
        val = read_masks(scenes).val
        assert len(val) == 31
        iou = {}
        for file in ("model.keras", "model.tflite"):
            model = open_model(run / file)
            pairs = [(full_mask(pair), find_mask(model, pair.image)) for pair in val]
            scores = score_masks(pairs, len(LABELS))
            iou[file] = scores.mean_iou
        results = json.loads((run / "results.json").read_text())
        assert results["float_iou"] == pytest.approx(iou["model.keras"])
        assert results["int8_iou"] == pytest.approx(iou["model.tflite"])
        assert iou["model.keras"] > 0.38  # of nothing but background it is .27
        assert iou["model.tflite"] > iou["model.keras"] - 0.01

    def test_the_file_is_int8_between_bytes_and_logits(self, run):
        found = audit(run / "model.tflite")
        assert (found.float_ops, found.partitions) == ((), 1)
        assert found.inputs[0].dtype == "uint8"
        assert found.outputs[0].shape == (1, 64, 64, len(LABELS))
        assert found.metadata.labels == LABELS
        assert found.metadata.outputs.task == "ImageSegmenter"

    def test_a_file_that_ends_in_its_mask_says_the_same(self, run, scenes, tmp_path):
        image = read_image(scenes / "val" / "images" / "0001.jpg", 64)
        logits = Runner(run / "model.tflite")(image)[0]
        (tmp_path / "mask.tflite").write_bytes((run / "model.tflite").read_bytes())
        file = end_in_mask(tmp_path / "mask.tflite")
        mask = Runner(file)(image)[0]
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, logits.argmax(-1))
        found = audit(file)
        assert found.census["ARG_MAX"] == 1
        assert found.census["DEQUANTIZE"] == 1  # of the bytes that come in
        assert found.metadata is None
        with pytest.raises(ValueError, match=r"not a segmenter with one output.*\(1, 64, 64\)"):
            end_in_mask(file)

    def test_predict_writes_masks_at_the_images_own_size(self, run, scenes, tmp_path, capsys):
        wide = tmp_path / "wide.png"
        with Image.open(scenes / "val" / "images" / "0002.jpg") as image:
            image.resize((100, 70)).save(wide)
        (tmp_path / "broken.png").write_bytes(b"")
        assert main(["predict", str(run), str(wide), str(tmp_path / "broken.png")]) == 1
        captured = capsys.readouterr()
        assert "%" in captured.out.splitlines()[1]
        assert "broken.png cannot be read: empty" in captured.err
        with Image.open(run / "predicted" / "wide.png") as mask:
            found = np.asarray(mask)
        runner = Runner(run / "model.tflite")
        with Image.open(wide) as image:
            np.testing.assert_array_equal(runner.mask(np.asarray(image)), found)
        logits = runner(read_image(wide, 64))[0]
        np.testing.assert_array_equal(found, mask_at(logits, (70, 100)))
        with Image.open(run / "predicted" / "wide.jpg") as shown:
            assert shown.size == (100, 70)
        alone = tmp_path / "alone.tflite"  # without a run around it
        alone.write_bytes((run / "model.tflite").read_bytes())
        assert main(["predict", str(alone), str(wide)]) == 0
        with Image.open(tmp_path / "predicted" / "wide.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), found)

    def test_compare_says_what_the_report_says(self, run, capsys):
        results = json.loads((run / "results.json").read_text())
        assert main(["compare", str(run)]) == 0
        captured = capsys.readouterr().out
        for name in ("float", "int8"):
            assert f"{name:6} mean IoU {results[f'{name}_iou']:.4f}" in captured
        assert "SQNR" in captured

    def test_the_report_stands_alone(self, run):
        page = (run / "report.html").read_text(encoding="utf-8")
        for text in ("mean IoU", "boundary F", "Image, truth, float, int8", "circle"):
            assert text in page
        assert "has no mask: left out" in page
        assert 'src="http' not in page


def stages_of(scenes, folder, **options) -> Stages:
    config = Config(str(scenes), size=64, **options)
    return Stages(Run(TASK, vars(config), read_masks(scenes), folder, config))


def test_a_stage_that_was_killed_goes_on(scenes, tmp_path):
    """Loss and metrics come back with the model; on any net, so on the smallest."""
    stages = stages_of(scenes, tmp_path, balance=True, focal=1)

    def train(epochs):
        image = keras.Input((64, 64, 3))
        net = keras.Model(image, keras.layers.Conv2D(3, 1)(image))
        return stages.fit(net, stages.stage("stage", epochs, 0.01), partial(fit, folder=tmp_path))[
            1
        ]

    (first,) = train(1)
    again, second = train(2)
    assert again == first
    assert second["epoch"] == 1
    assert {"val_loss", "val_mean_iou", "val_pixel_accuracy"} <= second.keys()


def test_the_head_learns_alone_and_then_the_whole_net(scenes, tmp_path):
    def no_fit(net, *_, **__):
        return net, []

    stages = stages_of(scenes, tmp_path)
    stage = stages.stage("stage", 1, 0.01)
    features = kzoo.MobileNetV2(0.35, include_top=False, input_shape=(64, 64, 3))
    net, _ = stages.head(kzoo.LRASPP(features, 3), stage, no_fit)
    frozen = [layer for layer in net.layers if not layer.trainable]
    assert len(frozen) > 100
    net, _ = stages.whole(net, stage, no_fit)
    assert all(layer.trainable for layer in net.layers)


def test_the_stages_share_what_they_decode(scenes, tmp_path):
    """TensorFlow keeps each stage's batches to the end: half a GB of 367 frames."""
    read = []

    def look(net, stage, train, val):
        read.append((train(0).masked, val.masked))
        return net, []

    image = keras.Input((64, 64, 3))
    net = keras.Model(image, keras.layers.Conv2D(3, 1)(image))
    for stage in stages_of(scenes, tmp_path, weights="none").all():
        stage.train(net, stage.stage, look)
    assert len(read) == 3
    assert len({id(train) for train, _ in read}) == len({id(val) for _, val in read}) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "fcn"}, "head must be one of lraspp, deeplabv3, deeplabv3+. Received: 'fcn'"),
        ({"output": "png"}, "output must be one of logits, scores, mask. Received: 'png'"),
        ({"epochs": -1}, "epochs must be at least 0. Received: -1"),
        ({"size": 16}, "at least 32 each: --size 320 or --size 320x240 (WIDTHxHEIGHT)"),
        ({"zoom": 1.0}, "zoom must be in [0, 1). Received: 1.0"),
        ({"ema": 1.0}, "ema must be in [0, 1); .998 averages about 500 steps. Received: 1.0"),
    ],
)
def test_settings_that_make_no_sense(options, message, capsys, tmp_path):
    flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    assert main(["segment", str(tmp_path), *flags]) == 1
    assert message in capsys.readouterr().err


def test_a_run_that_could_not_end_in_its_file_does_not_begin(scenes, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find(name)
    )
    config = Config(str(scenes), out=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"is not installed: pip install 'kzoo\[tensorflow\]'"):
        open_run(config, LABELS)
    assert not (tmp_path / "run").exists()


def test_class_weights_by_hand():
    # The median share is 100: a class of 400 counts half, one of 25 twice, an absent one nothing.
    assert class_weights(np.array([400, 100, 25, 0])) == [0.5, 1.0, 2.0, 0.0]
    assert class_weights(np.array([10**6, 10**6, 1])) == [1.0, 1.0, 10.0]


@pytest.mark.parametrize("head", ["lraspp", "deeplabv3+"])
def test_a_segmenter_of_plain_features_may_be_begun_with(head, scenes, tmp_path):
    """Where its file is of a net without the fine features, so is the new one."""
    dataset = read_masks(scenes)
    options = {"model": "mobilenet_v3_small", "alpha": 0.35, "head": head, "filters": 8, "size": 64}
    first = Config(str(scenes), weights="none", **options)
    for fine, end in ((True, "fine"), (False, "low")):
        net = assembled(first, dataset, fine=fine)
        net.save(tmp_path / "begun.keras")
        again = build(
            Config(str(scenes), weights=str(tmp_path / "begun.keras"), **options), dataset
        )
        assert [layer.name for layer in again.layers] == [layer.name for layer in net.layers]
        assert any(layer.name.endswith(end) for layer in again.layers)
        for old, new in zip(net.weights, again.weights, strict=True):
            np.testing.assert_array_equal(old, new)


def test_the_quality_of_images_by_hand():
    """What chooses between calibration alone and training: void pixels do not count."""
    masks = np.array([[[0, 0], [1, 255]], [[0, 0], [1, 1]]], "uint8")
    found = np.eye(2)[[[[0, 0], [1, 0]], [[0, 1], [0, 1]]]]
    # The second: one pixel right and three in the union, of both classes.
    np.testing.assert_allclose(image_quality(None, found, [(None, masks)], 0), [1, 1 / 3])


def test_the_legend_and_the_first_class():
    mask = np.array([[0, 1]], "uint8").repeat(4, axis=0).repeat(4, axis=1)
    image = np.full((4, 8, 3), 100, "uint8")
    named = overlay(image, mask, clear=clear_class(["background", "cell"]))
    street = overlay(image, mask, clear=clear_class(["sky", "road"]))
    np.testing.assert_array_equal(named[:, :4], 100)  # background stays as it is
    np.testing.assert_array_equal(street[:, :4], 50)  # class 0's colour is black
    np.testing.assert_array_equal(named[:, 4:], street[:, 4:])
    assert "cell" in legend(["background", "cell"])
    assert "background" not in legend(["background", "cell"]).replace("background:", "")
    assert "sky" in legend(["sky", "road"])
