"""What of kzoo.interop needs no other library: boxes, backbones in files, refusals by name.

The rest is in tests/neighbours, which CONTRIBUTING.md says how to run.
"""

import importlib.util

import keras
import numpy as np
import pytest

import kzoo
from kzoo import interop
from kzoo.recipes import classify, detect

TARGETS = {
    "boxes": np.array([[[0.1, 0.2, 0.6, 0.7], [0, 0, 0, 0]]], "float32"),
    "labels": np.array([[2, -1]], "int32"),
}


def absent(module: str) -> bool:
    return importlib.util.find_spec(module) is None


@pytest.mark.skipif(not absent("tf_keras"), reason="tf-keras is installed")
def test_what_is_not_installed_is_named_with_its_extra():
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ImportError, match=r"tf_keras is not installed .*'kzoo\[tfmot\]'"):
        interop.to_tf_keras(net)


@pytest.mark.skipif(not absent("tensorflow_model_optimization"), reason="tfmot is installed")
def test_a_run_asks_for_tfmot_before_it_begins(tmp_path):
    with pytest.raises(ValueError, match=r"pip install 'kzoo\[tfmot\]'. Or use qat_engine='kzoo'"):
        classify(tmp_path, qat_engine="tfmot")


def test_engines_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"must be one of kzoo, tfmot\. Received: 'qk"):
        classify(tmp_path, qat_engine="qkeras")


@pytest.mark.skipif(not absent("keras_cv"), reason="keras-cv is installed")
def test_a_run_asks_for_keras_cv_before_it_begins(tmp_path):
    with pytest.raises(ValueError, match=r"keras_cv_metrics needs .*'kzoo\[keras-cv\]'"):
        detect(tmp_path, keras_cv_metrics=True)


# In an image of 50 x 100 px the box is 5 to 30 down and 20 to 70 across.
PLACES = {
    "yxyx": (5, 20, 30, 70),
    "xyxy": (20, 5, 70, 30),
    "xywh": (20, 5, 50, 25),
    "center_xywh": (45, 17.5, 50, 25),
    "rel_xyxy": (0.2, 0.1, 0.7, 0.6),
    "rel_yxyx": (0.1, 0.2, 0.6, 0.7),
}


@pytest.mark.parametrize("format", PLACES)
def test_boxes_in_other_formats_and_back(format):
    theirs = interop.to_keras_cv(TARGETS, format=format, size=(50, 100))
    np.testing.assert_allclose(theirs["boxes"], [[PLACES[format], [-1] * 4]], rtol=1e-5)
    np.testing.assert_array_equal(theirs["classes"], [[2, -1]])
    back = interop.from_keras_cv(theirs, format=format, size=(50, 100))
    np.testing.assert_allclose(back["boxes"], TARGETS["boxes"], atol=1e-6)
    np.testing.assert_array_equal(back["labels"], TARGETS["labels"])


def test_detections_of_several_lengths_and_back():
    found = [
        kzoo.Detections(np.array([[0.1, 0.2, 0.6, 0.7]]), np.array([1]), np.array([0.9])),
        kzoo.Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0)),
    ]
    theirs = interop.detections_to_keras_cv(found, size=(50, 100))
    np.testing.assert_allclose(theirs["boxes"], [[[5, 20, 30, 70]], [[-1] * 4]], rtol=1e-5)
    np.testing.assert_allclose(theirs["confidence"], [[0.9], [-1]])
    back = interop.detections_from_keras_cv(theirs, size=(50, 100))
    assert [str(one) for one in back] == [str(one) for one in found]


def test_boxes_in_px_need_a_size():
    with pytest.raises(ValueError, match=r'"yxyx" are in px: say of which images, size=\(H, W\)'):
        interop.to_keras_cv(TARGETS)


def test_a_backbone_keeps_its_pyramid_in_a_file(tmp_path):
    net = kzoo.MobileNetV3Small(0.35, input_shape=(64, 64, 3), include_top=False)
    interop.backbone(net).save(tmp_path / "backbone.keras")
    again = keras.saving.load_model(tmp_path / "backbone.keras")
    assert isinstance(again, interop.Backbone)
    assert again.pyramid_level_inputs == net.pyramid_level_inputs
    assert list(again.pyramid_outputs) == ["P1", "P2", "P3", "P4", "P5"]
    x = np.full((1, 64, 64, 3), 99.0, "float32")
    np.testing.assert_array_equal(again.predict(x, verbose=0), net.predict(x, verbose=0))


def test_a_model_without_rows_is_no_backbone():
    with pytest.raises(ValueError, match="has no layers called row0_out"):
        interop.backbone(keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]))
