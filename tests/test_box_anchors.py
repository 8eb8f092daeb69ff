"""Anchors of a recipe: which maps and shapes a data set gets, and what is said of it."""

from pathlib import Path

import keras
import numpy as np
import pytest

import kzoo
from kzoo.detection.anchors import Anchors
from kzoo.recipes.configs.detect import DetectConfig
from kzoo.recipes.data.box_dataset import BoxDataset, Example
from kzoo.recipes.detect import assembled, build
from kzoo.recipes.training.box_anchors import anchor_report, fitted, levels_for

GRIDS = ((20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))
LARGE, SMALL = (0.3, 0.4), (0.06, 0.06)  # (height, width)


def example(*sides: tuple[float, float], label: int = 0) -> Example:
    """One image with boxes of these sides, all from a corner at .2, .3."""
    boxes = np.array([[0.2, 0.3, 0.2 + h, 0.3 + w] for h, w in sides]).reshape(-1, 4)
    return Example(Path("1.jpg"), boxes, np.full(len(sides), label), (320, 320))


@pytest.mark.parametrize(
    ("examples", "levels"),
    [
        ([example(LARGE)] * 9, (4, 5)),
        ([example(LARGE)] * 99 + [example(SMALL)], (4, 5)),  # one in a hundred
        ([example(LARGE)] * 90 + [example(SMALL)] * 10, (3, 4, 5)),
        ([example(LARGE)] * 99 + [example(SMALL, label=1)], (3, 4, 5)),  # all of a class
        ([example()], (4, 5)),
    ],
)
def test_small_objects_get_a_finer_map(examples, levels):
    assert levels_for(examples) == levels


def test_the_report_names_the_class_that_no_anchor_fits():
    examples = [example(LARGE), example(SMALL, (0.06, 0.05), label=1)]
    found = anchor_report(Anchors(GRIDS), examples, ("cell", "dot"), 320)
    assert [(each.name, each.count, each.share) for each in found.by_class] == [
        ("cell", 1, 1.0), ("dot", 2, 0.0),
    ]  # fmt: skip
    assert [(each.name, each.count) for each in found.by_size] == [
        ("from 16 px", 2), ("from 64 px", 1),
    ]  # fmt: skip
    assert str(found).endswith(
        "class 'dot' will hardly be learnt: no anchor fits 100% of its objects, 19 x 18 px at "
        "--size 320. Try --size 640."
    )
    better = anchor_report(fitted(examples)(((40, 40), *GRIDS)), examples, ("cell", "dot"), 320)
    assert better.unreached == ()
    assert ", of 3:" in str(better)


@pytest.fixture
def dataset() -> BoxDataset:
    return BoxDataset("coco", ("cell",), (example(SMALL, LARGE),), (example(LARGE),))


def config(**options) -> DetectConfig:
    usual = {"model": "mobilenet_v1", "alpha": 0.25, "size": 320, "weights": "none"}
    return DetectConfig(data="data", **usual | options)


def test_the_recipe_fits_anchors_and_says_what_they_reach(dataset, capsys):
    detector = build(config(), dataset)
    assert detector.anchors == Anchors.fit(dataset.train[0].boxes, detector.anchors.grids)
    assert detector.anchors.grids[0] == (40, 40)
    assert "cell: 100.0% of 2" in capsys.readouterr().out
    plain = build(config(anchors="published"), dataset)
    assert plain.anchors == Anchors(GRIDS)
    assert "cell: 50.0% of 2" in capsys.readouterr().out


def test_a_detector_to_start_from_brings_its_anchors(dataset, tmp_path):
    """And its heads; a classifier brings none, and anchors are fitted."""
    first = assembled(config(), dataset)
    first.save(tmp_path / "first.keras")
    other = BoxDataset("coco", ("cat", "dog"), (example(LARGE),), (example(LARGE),))
    second = assembled(config(weights=str(tmp_path / "first.keras")), other)
    assert second.anchors == first.anchors
    x = np.random.default_rng(0).uniform(0, 255, (1, 320, 320, 3)).astype("float32")
    boxes = [keras.ops.convert_to_numpy(m(x)["boxes"]) for m in (first, second)]
    np.testing.assert_allclose(*boxes, rtol=1e-5, atol=1e-5)
    classifier = kzoo.MobileNetV1(0.25, input_shape=(320, 320, 3), classes=3)
    classifier.save(tmp_path / "classifier.keras")
    third = assembled(config(weights=str(tmp_path / "classifier.keras")), other)
    assert third.anchors == Anchors.fit(other.train[0].boxes, third.anchors.grids)


def test_an_unknown_kind_of_anchors():
    with pytest.raises(ValueError, match=r"anchors must be one of auto, published.*'many'"):
        config(anchors="many")


def test_a_net_that_is_not_square(dataset):
    """As photos of 4:3 are not: grids, fitted shapes and boxes found go by each side."""
    backbone = kzoo.MobileNetV1(0.25, input_shape=(96, 128, 3), include_top=False)
    detector = kzoo.SSDLite(
        backbone, 1, extras=(16,), levels=(3, 4, 5), anchors=fitted(dataset.train)
    )
    assert detector.anchors.grids == ((12, 16), (6, 8), (3, 4), (2, 2))
    (one,) = detector.detect([np.zeros((150, 200, 3), "uint8")], score_threshold=0)
    assert one.boxes.max(axis=0)[2] <= 150 < one.boxes.max(axis=0)[3] <= 200
