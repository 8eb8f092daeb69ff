"""Backbones of the zoo in keras-hub's RetinaNet."""

import keras
import numpy as np
import pytest
from qat_nets import images

import kzoo
from kzoo.interop import (
    backbone,
    detections_from_keras_cv,
    from_keras_hub,
    to_keras_hub,
)

keras_hub = pytest.importorskip("keras_hub", reason="keras-hub comes with its extra")

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, about themselves

SIZE = 64
X = images(2, size=SIZE).astype("float32")
TARGETS = {
    "boxes": np.array([[[0.1, 0.2, 0.6, 0.7], [0, 0, 0, 0]]] * 2, "float32"),
    "labels": np.array([[2, -1]] * 2, "int32"),
}


def detector() -> keras.Model:
    net = kzoo.MobileNetV3Small(0.35, input_shape=(SIZE, SIZE, 3), include_top=False)
    levels = {"min_level": 3, "max_level": 5}
    features = keras_hub.models.RetinaNetBackbone(
        image_encoder=backbone(net), use_p5=False, **levels
    )
    anchors = keras_hub.layers.AnchorGenerator(
        bounding_box_format="yxyx", num_scales=3, aspect_ratios=[0.5, 1.0, 2.0], anchor_size=4.0,
        **levels,
    )  # fmt: skip
    return keras_hub.models.RetinaNetObjectDetector(
        backbone=features, anchor_generator=anchors, num_classes=3, bounding_box_format="yxyx"
    )


def test_retinanet_learns_a_step_and_comes_back_from_its_file(tmp_path):
    keras.utils.set_random_seed(0)
    model = detector()
    model.compile(optimizer="sgd", box_loss="auto", classification_loss="auto")
    targets = to_keras_hub(TARGETS, size=(SIZE, SIZE))
    back = from_keras_hub(targets, size=(SIZE, SIZE))
    np.testing.assert_allclose(back["boxes"], TARGETS["boxes"], atol=1e-6)
    kernel = model.backbone.image_encoder.get_layer("row3_expand").kernel
    before = keras.ops.convert_to_numpy(kernel)
    assert np.isfinite(model.fit(X, targets, verbose=0).history["loss"][0])
    assert not np.array_equal(before, kernel), "the backbone has learnt nothing"
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for key, value in model(X, training=False).items():
        np.testing.assert_array_equal(again(X, training=False)[key], value)
    found = detections_from_keras_cv(again.predict(X, verbose=0), size=(SIZE, SIZE))
    assert len(found) == len(X)
