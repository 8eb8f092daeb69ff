"""Masks: scores counted by hand, sizes as Keras resizes."""

import keras
import numpy as np
import pytest

from kzoo.segmentation.masks import mask_at, score_masks


def square(top: int, left: int) -> np.ndarray:
    mask = np.zeros((100, 100), "uint8")
    mask[top : top + 10, left : left + 10] = 1
    return mask


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (0, 1.0),
        (1, 1.0),  # 0.75 % of the diagonal is one pixel
        # Of the 36 pixels of its outline, 8 of the upper and lower edge lie near the true one's,
        # and the two of the left edge below and above those.
        (3, 18 / 36),
        (30, 0.0),
    ],
)
def test_boundary_by_hand(shift, expected):
    scores = score_masks([(square(40, 20), square(40, 20 + shift))], 2)
    assert scores.boundary_f[1] == pytest.approx(expected)
    overlap = 10 * max(0, 10 - shift)
    assert scores.iou[1] == pytest.approx(overlap / (200 - overlap))


def test_void_and_absent_classes():
    truth, found = square(40, 20), square(40, 50)
    truth[:, 45:] = 255  # where the found square is, nobody knows
    truth[40:50, 20:30] = 0
    scores = score_masks([(truth, found)], 3)
    assert scores.iou[0] == 1
    assert np.isnan(scores.iou[1:]).all()  # neither there nor found
    assert scores.mean_iou == scores.pixel_accuracy == 1
    assert np.isnan(scores.boundary_f[2])
    assert str(scores).startswith("mean IoU 1.0000, pixel accuracy 1.0000, boundary F")


def test_nothing_but_void():
    scores = score_masks([(np.full((5, 5), 255), np.zeros((5, 5), int))], 2)
    assert np.isnan(scores.pixel_accuracy)
    assert np.isnan(scores.mean_iou)


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        (
            np.full((2, 2), 2),
            np.zeros((2, 2), int),
            "truth holds class 2, and there are 2",
        ),
        (np.zeros((2, 2), int), np.full((2, 2), 7), "mask holds class 7"),
        (np.zeros((2, 2), int), np.zeros((2, 3), int), r"Received: \(2, 2\) and \(2, 3\)"),
    ],
)
def test_scores_say_what_is_wrong(truth, found, message):
    with pytest.raises(ValueError, match=message):
        score_masks([(truth, found)], 2)


@pytest.mark.backend
@pytest.mark.parametrize("size", [(7, 5), (28, 20), (33, 51), (4, 3)])
def test_a_mask_at_any_size_is_as_keras_resizes(size):
    logits = np.random.default_rng(0).normal(size=(7, 5, 4)).astype("float32")
    resized = keras.ops.image.resize(logits, size, data_format="channels_last")
    expected = keras.ops.convert_to_numpy(resized).argmax(-1)
    found = mask_at(logits, size)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_a_mask_with_aligned_corners():
    ramp = np.stack([[[4.0, 3, 2, 1, 0]], np.full((1, 5), 0.5)], -1)  # even after 3.5 of 4 steps
    # Of 17 pixels, i is i / 4 steps away from the first; by edges, (i + 0.5) 5 / 17 - 0.5.
    assert mask_at(ramp, (1, 17), align_corners=True)[0].tolist() == [0] * 15 + [1] * 2
    assert mask_at(ramp, (1, 17))[0].tolist() == [0] * 14 + [1] * 3


def test_a_mask_of_class_ids_is_repeated():
    ids = np.array([[0, 1], [2, 3]], "uint8")
    np.testing.assert_array_equal(mask_at(ids, (4, 6)), np.kron(ids, np.ones((2, 3), "uint8")))
    np.testing.assert_array_equal(mask_at(ids, (2, 2)), ids)


def test_a_mask_of_one_probability():
    """As MediaPipe's selfie segmenter gives it. Enlarged first: midway from 0 to 1 it is .5."""
    shares = np.array([[[0.0], [0.4]], [[0.6], [1.0]]])
    assert mask_at(shares, (2, 2)).tolist() == [[0, 0], [1, 1]]
    assert mask_at(np.array([[[0.0], [1.0]]]), (1, 8))[0].tolist() == [0] * 4 + [1] * 4


def test_a_mask_of_what_is_none():
    with pytest.raises(ValueError, match=r"output for one image.*shape \(1, 2, 2, 3\)"):
        mask_at(np.zeros((1, 2, 2, 3)), (2, 2))
    with pytest.raises(ValueError, match=r"up to 255 classes\. Received: 256"):
        mask_at(np.zeros((2, 2, 256)), (2, 2))
