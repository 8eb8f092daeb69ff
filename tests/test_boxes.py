"""Box arithmetic, held against hand-computed cases, torchvision and plain loops."""

from pathlib import Path

import keras
import numpy as np
import pytest

from kzoo.detection import boxes as b
from kzoo.detection.anchors import Anchors
from kzoo.detection.detections import Detections, detections
from kzoo.detection.losses import BOX_LOSSES, anchor_weights

GOLDEN = np.load(Path(__file__).parent / "golden" / "torchvision_ssdlite.npz")
LEFT, RIGHT = [0.0, 0.0, 1.0, 0.5], [0.0, 0.25, 1.0, 0.75]  # a third of their union is shared


def some_boxes(*shape: int, seed: int = 0, least: float = 0.01) -> np.ndarray:
    rng = np.random.default_rng(seed)
    sides = rng.uniform(least, 0.8, (*shape, 2))
    corner = rng.uniform(0, 1, sides.shape) * (1 - sides)
    return np.concatenate([corner, corner + sides], -1).astype("float32")


def tensor(x) -> object:
    return keras.ops.convert_to_tensor(x)


# By hand: union 0.75, shared 0.25; hull 0.75 wide and 1 high; centres 0.25 apart; the same sides.
@pytest.mark.parametrize(
    ("overlap", "expected"),
    [(b.iou, 1 / 3), (b.giou, 1 / 3), (b.diou, 1 / 3 - 0.0625 / 1.5625), (b.ciou, 1 / 3 - 0.04)],
)
def test_overlap_of_two_boxes(overlap, expected):
    left, right = np.array(LEFT, "float32"), np.array(RIGHT, "float32")
    assert overlap(left, right) == pytest.approx(expected, abs=1e-6)
    assert overlap(right, left) == pytest.approx(expected, abs=1e-6)
    assert overlap(left, left) == pytest.approx(1, abs=1e-5)


def test_overlap_of_boxes_apart():
    """Two squares of side .1 in opposite corners: nothing shared; generalized ones tell how far."""
    a, c = np.array([0, 0, 0.1, 0.1], "float32"), np.array([0.9, 0.9, 1, 1], "float32")
    assert b.iou(a, c) == 0
    assert b.giou(a, c) == pytest.approx(-(1 - 0.02), abs=1e-6)
    assert b.diou(a, c) == pytest.approx(-(0.9**2) / 1, abs=1e-6)
    point = np.zeros(4, "float32")
    for overlap in (b.iou, b.giou, b.diou, b.ciou):
        assert np.isfinite(overlap(point, point))


@pytest.mark.backend
@pytest.mark.parametrize("overlap", [b.iou, b.giou, b.diou, b.ciou])
def test_tensors_as_numpy(overlap):
    x, y = some_boxes(5, 1), some_boxes(7, seed=1)
    expected = overlap(x, y)
    assert isinstance(expected, np.ndarray)
    assert expected.shape == (5, 7)
    found = keras.ops.convert_to_numpy(overlap(tensor(x), tensor(y)))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_iou_by_counting_cells():
    """On a grid of 100 x 100 cells the IoU is a count of cells."""
    x, y = np.round(some_boxes(20, least=0.1), 2), np.round(some_boxes(20, seed=1, least=0.1), 2)

    def cells(box):
        mask = np.zeros((100, 100), bool)
        top, left, bottom, right = np.rint(box * 100).astype(int)
        mask[top:bottom, left:right] = True
        return mask

    expected = [(cells(p) & cells(q)).sum() / (cells(p) | cells(q)).sum() for p, q in zip(x, y)]  # noqa: B905
    np.testing.assert_allclose(b.iou(x, y), expected, atol=1e-5)


GRIDS = ((40, 40), (20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))


def cells(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Boxes as of blood cells at 320 px: 90 x 90, 70 x 70 and 27 x 20 px, and which is which."""
    rng = np.random.default_rng(0)
    kinds = np.arange(n) % 3
    sides = np.array([(90, 90), (70, 70), (27, 20)])[kinds] * np.exp(rng.normal(0, 0.1, (n, 2)))
    corner = rng.uniform(0, 1, (n, 2)) * (1 - sides / 320)
    return np.concatenate([corner, corner + sides / 320], axis=1), kinds


def test_best_iou_is_that_of_the_best_anchor():
    boxes = np.concatenate([cells(60)[0], some_boxes(60)])
    for anchors in (Anchors(GRIDS), Anchors(((7, 12), (3, 4))), Anchors.fit(boxes, GRIDS)):
        expected = b.iou(boxes[:, None], anchors.boxes()).max(axis=1)
        np.testing.assert_allclose(anchors.best_iou(boxes), expected, atol=1e-6)


def test_fitted_anchors_reach_what_the_published_ones_do_not():
    boxes, kinds = cells()
    published, fitted = Anchors(GRIDS[1:]), Anchors.fit(boxes, GRIDS)
    assert published.best_iou(boxes[kinds == 2]).max() < 0.5  # facts: .14 in the mean
    assert (fitted.best_iou(boxes) >= 0.5).mean() > 0.97
    assert (fitted.best_iou(boxes[kinds == 2]) >= 0.5).mean() > 0.9
    assert 0.05 < fitted.scales[0] < 0.08  # by hand, on such cells, .07 did best
    assert fitted == Anchors.fit(boxes, GRIDS)


def test_without_small_objects_anchors_are_the_published_ones():
    boxes, kinds = cells()
    for given in (np.zeros((0, 4)), boxes[kinds != 2]):
        assert Anchors.fit(given, GRIDS[1:]) == Anchors(GRIDS[1:])


def test_what_anchors_cannot_be_fitted_to():
    with pytest.raises(ValueError, match=r"boxes must be of shape \(N, 4\)\. Received: .*\(3, 2\)"):
        Anchors.fit(np.zeros((3, 2)), GRIDS)


@pytest.mark.parametrize("sizes", [(), (((0.1, 0.2),), ()), (((0.1, 2.0),), ((0.1, 0.1),))])
def test_shapes_that_make_no_sense(sizes):
    with pytest.raises(ValueError, match=r"sizes must be a list of \(height, width\).* 2 maps"):
        Anchors(((4, 4), (2, 2)), sizes=sizes)


@pytest.mark.backend
def test_smooth_l1_with_giou_is_the_sum_of_both():
    anchors, boxes = some_boxes(9), some_boxes(2, 9, seed=1)
    codes = np.random.default_rng(2).normal(size=(2, 9, 4)).astype("float32")
    arguments = [tensor(x) for x in (codes, boxes, anchors)]
    one, other, both = (
        keras.ops.convert_to_numpy(BOX_LOSSES[name](*arguments))
        for name in ("smooth_l1", "giou", "smooth_l1_giou")
    )
    np.testing.assert_allclose(both, one + 2 * other, rtol=1e-5)


def test_anchors_are_torchvisions():
    anchors = Anchors(((20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))).boxes()
    assert anchors.shape == (3234, 4)
    np.testing.assert_allclose(anchors[::97], GOLDEN["anchors"], atol=1e-6)


def test_anchors_of_tensorflows_configs():
    """ssdlite_mobilenet_v2_coco.config: 19 x 19 cells of 3 boxes, then 6 a cell: 1,917."""
    grids = ((19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))
    anchors = Anchors(grids, reduced_first=True)
    assert len(anchors.boxes()) == 1917
    sides = np.round(anchors.shapes(0), 4).tolist()
    assert sides == [[0.1, 0.1], [0.1414, 0.2828], [0.2828, 0.1414]]
    oblong = Anchors(((2, 4),), ratios=(), scales=(0.5, 0.5))
    np.testing.assert_allclose(oblong.boxes()[-2], [0.5, 0.625, 1, 1.125])  # the last cell


def test_codes_are_torchvisions():
    from golden.torchvision_ssdlite import targets

    boxes, _ = targets()
    anchors = Anchors(((20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))).boxes()
    for i in range(2):
        index = GOLDEN[f"match/{i}"]
        positive = index >= 0
        codes = b.encode(boxes[i][index[positive]], anchors[positive])
        np.testing.assert_allclose(codes, GOLDEN[f"codes/{i}"], atol=2e-4)


@pytest.mark.backend
def test_decode_undoes_encode():
    boxes, anchors = some_boxes(200), some_boxes(200, seed=1, least=0.05)
    codes = b.encode(boxes, anchors)
    np.testing.assert_allclose(b.decode(codes, anchors), boxes, atol=1e-5)
    same = keras.ops.convert_to_numpy(b.encode(tensor(boxes), tensor(anchors)))
    np.testing.assert_allclose(same, codes, atol=2e-5)
    back = keras.ops.convert_to_numpy(b.decode(tensor(codes), tensor(anchors)))
    np.testing.assert_allclose(back, boxes, atol=1e-5)
    # Half a side down, twice as wide: 10 * 0.5 and 5 * ln 2, as the SSD paper's variances say.
    moved = b.encode(np.array([[0.3, 0, 0.5, 0.4]]), np.array([[0.2, 0.1, 0.4, 0.3]]))
    np.testing.assert_allclose(moved, [[5, 0, 0, 5 * np.log(2)]], atol=1e-6)


@pytest.mark.backend
def test_matches_are_torchvisions():
    from golden.torchvision_ssdlite import targets

    boxes, labels = targets()
    anchors = Anchors(((20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))).boxes()
    found = keras.ops.convert_to_numpy(b.match(boxes, labels, anchors))
    for i in range(2):
        np.testing.assert_array_equal(found[i], GOLDEN[f"match/{i}"])


@pytest.mark.backend
@pytest.mark.parametrize("seed", range(5))
def test_matches_by_loops(seed):
    rng = np.random.default_rng(seed)
    anchors = some_boxes(60, seed=seed)
    boxes, labels = some_boxes(3, 5, seed=seed + 100), rng.integers(-1, 4, (3, 5))
    labels[2] = -1  # an image without objects
    found = keras.ops.convert_to_numpy(b.match(boxes, labels, anchors))
    for own, label, row in zip(boxes, labels, found, strict=True):
        expected = np.full(60, -1)
        for a, anchor in enumerate(anchors):
            overlaps = [b.iou(box, anchor) if k >= 0 else -1 for box, k in zip(own, label)]  # noqa: B905
            if max(overlaps) >= 0.5:
                expected[a] = int(np.argmax(overlaps))
        for i, (box, k) in enumerate(zip(own, label, strict=True)):
            if k >= 0:
                expected[int(np.argmax(b.iou(box, anchors)))] = i
        np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize("seed", range(5))
def test_suppression_by_loops(seed):
    boxes, scores = some_boxes(80, seed=seed), np.random.default_rng(seed).random(80)
    kept = []
    for i in np.argsort(-scores):
        if all(b.iou(boxes[i], boxes[j]) <= 0.3 for j in kept):
            kept.append(i)
    assert b.nms(boxes, scores, threshold=0.3).tolist() == kept
    assert b.nms(boxes[:0], scores[:0]).tolist() == []


def test_voting_by_hand():
    """The surest of three boxes is drawn to the one that overlaps it by 8/12, a third alone stays.

    A fourth, without area, which overlaps nothing and not itself, stays too.
    """
    boxes = np.array([[0, 0, 1, 1], [0, 0.2, 1, 1.2], [5, 5, 6, 6], [7, 7, 7, 7]], "float32")
    scores = np.array([0.6, 0.3, 0.5, 0.2])
    kept = b.nms(boxes, scores, threshold=0.55)
    assert kept.tolist() == [0, 2, 3]
    expected = [[0, 0.2 / 3, 1, 1 + 0.2 / 3], boxes[2], boxes[3]]
    np.testing.assert_allclose(b.vote(boxes, scores, kept, threshold=0.55), expected, atol=1e-6)
    kept = b.nms(boxes, scores, threshold=0.7)  # of what is not suppressed none votes
    np.testing.assert_allclose(b.vote(boxes, scores, kept, threshold=0.7), boxes[kept], atol=1e-6)
    assert b.vote(boxes[:0], scores[:0], np.zeros(0, int)).shape == (0, 4)


def test_detections_by_hand():
    anchors = np.array([LEFT, LEFT, RIGHT, [0.5, 0.5, 1, 1]], "float32")
    codes = np.zeros((1, 4, 4), "float32")
    logits = np.log([[[1, 8, 1], [3, 6, 1], [1.7, 0.8, 7.5], [9, 0.5, 0.5]]]).astype("float32")
    (found,) = detections({"boxes": codes, "logits": logits}, anchors, score_threshold=0.07)
    assert found.labels.tolist() == [0, 1, 1, 0]  # of two alike the surer stays, in each class
    np.testing.assert_allclose(found.scores, [0.8, 0.75, 0.1, 0.08], atol=1e-6)
    (one,) = detections(
        {"boxes": codes, "logits": logits},
        anchors,
        score_threshold=0.3,
        iou_threshold=0.3,
        class_agnostic=True,
    )
    assert one.labels.tolist() == [0]
    scores = np.exp(logits)[..., 1:] / 10
    (same,) = detections({"boxes": codes, "scores": scores}, anchors, score_threshold=0.07)
    np.testing.assert_allclose(same.scores, found.scores, atol=1e-6)
    assert len(detections({"boxes": codes, "logits": logits}, anchors, max_detections=1)[0]) == 1
    assert str(found.above(0.5)) == ("class 0 80% at 0, 0, 1, 0.5\nclass 1 75% at 0, 0.25, 1, 0.75")
    np.testing.assert_allclose(found.scaled(10, 20).boxes[0], [0, 0, 10, 10])
    codes[0, 1, 0] = 1  # a tenth of its height down: the second votes for .1 with .6 of .8 + .6
    for voting, top in ((True, 0.1 * 0.6 / 1.4), (False, 0.0)):
        (moved,) = detections(
            {"boxes": codes, "logits": logits}, anchors, score_threshold=0.3, box_voting=voting
        )
        np.testing.assert_allclose(moved.boxes[0], [top, 0, 1, 0.5], atol=1e-6)


def test_detections_say_what_does_not_fit():
    with pytest.raises(ValueError, match=r"boxes must be \(N, 3, 4\).*Received: shape \(1, 2, 4\)"):
        detections({"boxes": np.zeros((1, 2, 4))}, some_boxes(3))
    with pytest.raises(ValueError, match="activation must be one of softmax, sigmoid"):
        detections({}, some_boxes(3), activation="relu")
    empty = Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
    assert str(empty) == "nothing found"


@pytest.mark.backend
def test_weights_of_anchors_by_hand():
    """Object 0 has four anchors, object 1 one, one anchor has none; the second image has none."""
    index = tensor(np.array([[0, 0, 0, 0, 1, -1], [-1] * 6], "int32"))
    expected = {
        0.0: [1, 1, 1, 1, 1, 0],
        0.5: np.array([0.5, 0.5, 0.5, 0.5, 1, 0]) * 5 / 3,
        1.0: np.array([0.25, 0.25, 0.25, 0.25, 1, 0]) * 5 / 2,
    }
    for balance, weights in expected.items():
        found = keras.ops.convert_to_numpy(anchor_weights(index, 3, balance))
        np.testing.assert_allclose(found, [weights, [0] * 6], rtol=1e-6)
