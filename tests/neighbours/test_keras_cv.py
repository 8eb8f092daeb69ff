"""Backbones of the zoo in keras-cv's RetinaNet and DeepLabV3Plus; boxes there and back."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from qat_nets import images, randomized
from scenes import draw_scenes

import kzoo
from kzoo.interop import (
    backbone,
    detections_from_keras_cv,
    detections_to_keras_cv,
    from_keras_cv,
    to_keras_cv,
)
from kzoo.recipes.cli import main

keras_cv = pytest.importorskip("keras_cv", reason="keras-cv comes with its extra")

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, about themselves

SIZE = 64
X = images(2, size=SIZE).astype("float32")
TARGETS = {
    "boxes": np.array(
        [[[0.1, 0.2, 0.6, 0.7], [0, 0, 0, 0]], [[0, 0, 0.5, 0.5], [0.25, 0.5, 1, 0.75]]], "float32"
    ),
    "labels": np.array([[2, -1], [0, 1]], "int32"),
}


def small(build=kzoo.MobileNetV3Small) -> keras.Model:
    return backbone(build(0.35, input_shape=(SIZE, SIZE, 3), include_top=False))


def loaded(model: keras.Model, folder) -> keras.Model:
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


@pytest.mark.parametrize("build", [kzoo.MobileNetV2, kzoo.MobileNetV3Small])
def test_retinanet_learns_a_step_and_comes_back_from_its_file(build, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras_cv.models.RetinaNet(
        num_classes=3, bounding_box_format="yxyx", backbone=small(build)
    )
    model.compile(optimizer="sgd", classification_loss="focal", box_loss="smoothl1")
    before = [weight.copy() for weight in model.backbone.get_weights()]
    targets = to_keras_cv(TARGETS, format="yxyx", size=(SIZE, SIZE))
    history = model.fit(X, targets, verbose=0).history
    assert np.isfinite(history["loss"][0])
    moved = [not np.array_equal(a, b) for a, b in zip(before, model.backbone.get_weights(),
                                                      strict=True)]  # fmt: skip
    assert np.mean(moved) > 0.5, "the backbone has learnt nothing"
    again = loaded(model, tmp_path)
    assert again.backbone.pyramid_level_inputs == model.backbone.pyramid_level_inputs
    for key, value in model(X, training=False).items():
        np.testing.assert_array_equal(again(X, training=False)[key], value)


def test_deeplab_learns_a_step_and_comes_back_from_its_file(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras_cv.models.DeepLabV3Plus(num_classes=3, backbone=small())
    model.compile("sgd", "sparse_categorical_crossentropy")
    masks = np.arange(2 * SIZE * SIZE).reshape(2, SIZE, SIZE, 1) % 3
    assert np.isfinite(model.fit(X, masks, verbose=0).history["loss"][0])
    again = loaded(model, tmp_path)
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))


FORMATS = ("xyxy", "yxyx", "xywh", "center_xywh", "rel_xyxy", "rel_yxyx", "rel_xywh")


@pytest.mark.parametrize("format", FORMATS)
def test_boxes_are_those_of_keras_cv_and_come_back(format):
    size = (48, 64)
    theirs = to_keras_cv(TARGETS, format=format, size=size)
    expected = keras_cv.bounding_box.convert_format(
        TARGETS["boxes"], source="rel_yxyx", target=format,
        images=np.zeros((2, *size, 3), "float32"),
    )  # fmt: skip
    real = TARGETS["labels"] >= 0
    np.testing.assert_allclose(theirs["boxes"][real], np.asarray(expected)[real], rtol=1e-5)
    assert (theirs["boxes"][~real] == -1).all()
    back = from_keras_cv(theirs, format=format, size=size)
    np.testing.assert_allclose(back["boxes"], TARGETS["boxes"], atol=1e-6)
    np.testing.assert_array_equal(back["labels"], TARGETS["labels"])


def test_predictions_become_detections_and_go_back():
    model = keras_cv.models.RetinaNet(num_classes=3, bounding_box_format="xyxy", backbone=small())
    predicted = model.predict(X, verbose=0)
    found = detections_from_keras_cv(predicted, format="xyxy", size=(SIZE, SIZE))
    assert [len(one) for one in found] == np.asarray(predicted["num_detections"]).tolist()
    again = detections_to_keras_cv(found, format="xyxy", size=(SIZE, SIZE))
    n = again["boxes"].shape[1]
    for key in ("boxes", "classes", "confidence"):
        np.testing.assert_allclose(again[key], np.asarray(predicted[key])[:, :n], atol=1e-4)


def test_its_coco_metrics_agree_with_pycocotools_ours():
    from kzoo.recipes.data.box_dataset import Example
    from kzoo.recipes.evaluation.box_metrics import score_boxes
    from kzoo.recipes.evaluation.keras_cv_metrics import score_by_keras_cv

    rng = np.random.default_rng(0)
    examples, found = [], []
    for i in range(12):
        n = int(rng.integers(1, 4))
        corner = rng.uniform(0, 0.6, (n, 2))
        boxes = np.c_[corner, corner + rng.uniform(0.2, 0.4, (n, 2))].astype("float32")
        labels = rng.integers(0, 2, n)
        examples.append(Example(Path(f"{i}.jpg"), boxes, labels, (96, 128)))
        moved = boxes + rng.normal(0, 0.02, boxes.shape)
        guessed = np.where(rng.random(n) < 0.8, labels, 1 - labels)
        found.append(kzoo.Detections(moved, guessed, rng.uniform(0.1, 1, n)))
    ours = score_boxes(examples, found, ("a", "b"))
    theirs = score_by_keras_cv(examples, found)
    assert 0.2 < ours.map < 0.95
    assert theirs["val_keras_cv_map"] == pytest.approx(ours.map, abs=0.01)
    assert theirs["val_keras_cv_map50"] == pytest.approx(ours.map50, abs=0.01)


@pytest.mark.slow
def test_kzoo_detect_writes_them_beside_its_own(tmp_path):
    data = draw_scenes(tmp_path / "scenes", train=24, val=8, side=96)
    settings = ["--model", "mobilenet_v1", "--alpha", "0.25", "--size", "96", "--weights", "none"]
    settings += ["--epochs", "2", "--qat-epochs", "0", "--batch-size", "8", "--keras-cv-metrics"]
    assert main(["detect", str(data), *settings, "--out", str(tmp_path / "run")]) == 0
    rows = json.loads((tmp_path / "run" / "history.json").read_text())
    assert len(rows) == 2
    for row in rows:
        assert row["val_keras_cv_map50"] == pytest.approx(row["val_map50"], abs=0.01)


def test_a_size_is_asked_for_where_boxes_are_in_px():
    with pytest.raises(ValueError, match=r'"xyxy" are in px: say of which images, size=\(H, W\)'):
        to_keras_cv(TARGETS, format="xyxy")


def test_a_backbone_without_rows_is_refused():
    with pytest.raises(ValueError, match="has no layers called row0_out"):
        backbone(randomized(keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])))
