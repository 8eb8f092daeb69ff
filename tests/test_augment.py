"""Augmentation: filters, erasing, mixing, and what names of classes say of mirroring."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from kzoo.recipes import pipeline
from kzoo.recipes.configs import image_labels
from kzoo.recipes.configs.image_labels import ClassifyConfig
from kzoo.recipes.data import augment as augment_module
from kzoo.recipes.data.augment import AUGMENTS, Augment, Batches, warp
from kzoo.recipes.data.augmentation import filters as filters_module
from kzoo.recipes.data.augmentation.filters import FILTERS, erase, filtered
from kzoo.recipes.data.augmentation.mirroring import why_not_mirrored
from kzoo.recipes.data.augmentation.mixing import Mixing

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 40, 40, 3), dtype="uint8")
TARGETS = np.arange(7) % 3
STILL = AUGMENTS["none"]


def batches(augment, count=7, **options):
    return Batches(
        IMAGES[:count], TARGETS[:count], classes=3, batch_size=4, augment=augment, size=32,
        **options,
    ).shuffled(3, 5)  # fmt: skip


def same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_none_shows_the_image_itself():
    seen = STILL(IMAGES[0], 40, np.random.default_rng(0))
    np.testing.assert_allclose(seen, IMAGES[0], atol=1)
    assert tuple(AUGMENTS) == image_labels.AUGMENTS


def test_opencv_and_pillow_show_the_same(monkeypatch):
    """Within a level of each other, but for the lines where the image ends."""
    if not augment_module.OPENCV:
        pytest.skip("OpenCV 5 is not installed")
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype="uint8")
    augment = Augment(shrink=0.5)
    pixels = np.stack([*np.mgrid[:64, :64][::-1] + 0.5, np.ones((64, 64))], -1)
    for seed in range(6):
        found = []
        for opencv in (True, False):
            monkeypatch.setattr(augment_module, "OPENCV", opencv)
            rng = np.random.default_rng(seed)
            place = augment.place(80, 64, rng)
            found.append((warp(noise, 64, place).astype(int), augment.recolour(noise, rng)))
        (one, colours), (other, theirs) = found
        beyond = np.abs(pixels @ place.T - 40).max(-1) - 40  # the image's edge, in its px
        np.testing.assert_allclose(one[beyond < -1], other[beyond < -1], atol=1)
        assert (one[beyond > 1] == other[beyond > 1]).all()  # the ground
        np.testing.assert_allclose(colours, theirs, atol=1e-3)


@pytest.mark.parametrize("name", AUGMENTS)
def test_a_batch_is_a_function_of_seed_and_epoch(name):
    augment = AUGMENTS[name]
    first = batches(augment)
    same(first[1], first[1])
    same(batches(augment).after(1)[0], first[1])  # as a resumed epoch sees it
    if name != "none":
        assert not np.array_equal(first.shuffled(3, 6)[0][0], first[0][0])
    assert first[0][0].min() >= 0
    assert first[0][0].max() <= 255


@pytest.mark.parametrize("weight", [None, np.array([1.0, 2.0, 4.0])])
def test_mixed_batches_are_the_same_in_any_number_of_processes(weight):
    augment = dataclasses.replace(AUGMENTS["strong"], mixing=Mixing(0.4, 1.0))
    whole = batches(augment, class_weight=weight).shared(0, 1, 2)
    for i in range(len(whole)):
        parts = [batches(augment, class_weight=weight).shared(k, 2, 2)[i] for k in range(2)]
        same(whole[i], [np.concatenate(arrays) for arrays in zip(*parts, strict=True)])


def test_mixup_blends_images_and_targets_alike():
    """Solved for the weight of the image itself, and compared with its targets."""
    mixed = batches(dataclasses.replace(STILL, mixing=Mixing(mixup=1.0)))
    plain = batches(STILL)
    (images, targets), (own, labels) = mixed[0], plain[0]
    others, other_labels = np.roll(own, -1, 0), np.roll(labels, -1, 0)
    for row in range(4):
        a, b = (own - others)[row].ravel(), (images - others)[row].ravel()
        share = a @ b / (a @ a)
        assert 0.5 <= share <= 1
        expected = share * labels[row] + (1 - share) * other_labels[row]
        np.testing.assert_allclose(targets[row], expected, atol=1e-4)
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)


def test_cutmix_shares_the_target_by_pixels():
    mixed = batches(dataclasses.replace(STILL, mixing=Mixing(cutmix=1.0)))
    (images, targets), (own, labels) = mixed[0], batches(STILL)[0]
    for row in range(4):
        share = np.mean((images[row] == own[row]).all(-1))  # hardly a pixel is alike in two
        expected = share * labels[row] + (1 - share) * np.roll(labels, -1, 0)[row]
        np.testing.assert_allclose(targets[row], expected, atol=2e-3)


def test_a_mixed_image_weighs_what_its_classes_do():
    weight = np.array([1.0, 2.0, 4.0])
    mixed = batches(dataclasses.replace(STILL, mixing=Mixing(mixup=1.0)), class_weight=weight)
    _, targets, weights = mixed[0]
    np.testing.assert_allclose(weights, targets @ weight, rtol=1e-6)


def test_the_teacher_sees_what_the_student_sees():
    class Teacher:
        def predict_on_batch(self, images):
            return images.mean(axis=(1, 2))

    taught = batches(AUGMENTS["strong"]).taught(Teacher())
    images, answers = taught[0]
    np.testing.assert_array_equal(answers, images.mean(axis=(1, 2)))


@pytest.mark.parametrize("name", FILTERS)
def test_filters_change_what_they_say(name):
    grey = np.tile(np.arange(100, 140, dtype="uint8")[None, :, None], (40, 1, 3))
    grey[20, 5] = 138  # or sharpening and blurring would find nothing
    image = Image.fromarray(grey)
    seen = np.asarray(FILTERS[name](image, 1.0)).astype(int)
    assert seen.shape == grey.shape
    assert np.array_equal(seen, grey) == (name == "unchanged")
    by_hand = {
        "posterize": grey & 0xF0,  # 4 of 8 bits
        "solarize": np.where(grey < 128, grey, 255 - grey),
        "autocontrast": np.round((grey - 100.0) * 255 / 39),
    }
    if name in by_hand:
        np.testing.assert_allclose(seen, by_hand[name], atol=1)


@pytest.mark.parametrize("name", ["sharpen", "blur"])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_opencv_filters_as_pillow_does(name, strength, monkeypatch):
    """Inside of the rim, which Pillow leaves as it is; its Gaussian is three means, to 2 levels."""
    pytest.importorskip("cv2")
    ramp = np.linspace(0, 200, 96)
    waves = ramp[:, None, None] + 40 * np.sin(ramp[None, :, None] / [3, 5, 7]) + 20
    image = Image.fromarray(waves.clip(0, 255).astype("uint8"))
    by = {}
    for opencv in (False, True):
        monkeypatch.setattr(filters_module, "OPENCV", opencv)
        by[opencv] = np.asarray(FILTERS[name](image, strength)).astype(int)[1:-1, 1:-1]
    np.testing.assert_allclose(by[True], by[False], atol=2)
    assert np.abs(by[True] - by[False]).mean() < 0.5


def test_as_many_filters_as_asked_for():
    rng = np.random.default_rng(0)
    assert np.array_equal(filtered(IMAGES[0], 0, rng), IMAGES[0])
    changed = [not np.array_equal(filtered(IMAGES[0], 2, rng), IMAGES[0]) for _ in range(20)]
    assert sum(changed) >= 15  # "unchanged" is one of eight


def test_erasing_fills_one_rectangle_of_the_share_of_images():
    rng, erased = np.random.default_rng(0), []
    for _ in range(200):
        image = np.full((40, 40, 3), -1.0, "float32")
        erase(image, 0.25, rng)
        filled = (image >= 0).all(-1)
        rows, columns = filled.any(1), filled.any(0)
        assert filled.sum() == rows.sum() * columns.sum()
        erased.append(filled.mean())
    assert 0.15 < np.mean(np.array(erased) > 0) < 0.35
    assert max(erased) < 0.3


@pytest.mark.parametrize("labels", [
    ("0", "1", "2"), ("a", "b", "space"), ("zero", "one"), ("left turn", "right turn", "stop"),
    ("arrow_left", "arrow-right"), ("LEFT", "Right"), ("turnLeft", "turnRight"),
    ("LeftHand", "RightHand", "Foot"),
])  # fmt: skip
def test_letters_numbers_and_sides_are_not_mirrored(labels, capsys):
    assert why_not_mirrored(labels)
    config = pipeline.with_mirroring(ClassifyConfig("photos"), labels)
    assert config.flip is False
    assert "Images are not mirrored: " in capsys.readouterr().out
    assert pipeline.with_mirroring(ClassifyConfig("photos", flip=True), labels).flip is True


@pytest.mark.parametrize("labels", [
    ("cat", "dog"), ("ace", "nine", "queen", "ten", "king"), ("left luggage", "bag"), ("t-shirt",),
])  # fmt: skip
def test_other_classes_are(labels):
    assert why_not_mirrored(labels) is None
    assert pipeline.with_mirroring(ClassifyConfig("photos"), labels).flip is True


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Augment, {"zoom": 2}, r"zoom must be a number in \[0, 1\]. Received: zoom=2"),
        (Augment, {"zoom": 1}, "zoom must be below 1, at which nothing of an image is shown"),
        (Augment, {"shrink": -1}, "shrink must be a finite number, 0 or more"),
        (Augment, {"stretch": np.inf}, "stretch must be a finite number, 0 or more"),
        (Augment, {"turn": "10"}, r"turn must be a number in \[0, 180\]"),
        (Augment, {"colour": np.nan}, r"colour must be a number in \[0, 1\]"),
        (Augment, {"erase": -0.1}, r"erase must be a number in \[0, 1\]"),
        (Augment, {"filters": 1.5}, "filters must be a whole number, 0 or more"),
        (Augment, {"flip": "no"}, "flip must be True or False. Received: flip='no'"),
        (Augment, {"mixing": "strong"}, "mixing must be a Mixing, or None"),
        (Mixing, {"mixup": np.nan}, "mixup must be a finite number, 0 or more"),
        (Mixing, {"cutmix": -1}, "cutmix must be a finite number, 0 or more"),
        (Mixing, {"share": 2}, r"share must be a number in \[0, 1\]"),
    ],
)
def test_values_that_make_no_sense_are_refused_when_they_are_given(kind, values, message):
    with pytest.raises(ValueError, match=message):
        kind(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flip": "no"}, "flip must be True or False. Received: 'no'"),
        ({"temperature": "no"}, "temperature must be True or False"),
        ({"epochs": 1.5}, "epochs must be a whole number. Received: 1.5"),
        ({"epochs": None}, "epochs must be a whole number. Received: None"),
        ({"label_smoothing": "0.1"}, "label_smoothing must be a number"),
        ({"weights": None}, r"weights must be a text \('none' for none\). Received: None"),
        ({"keep_float": "row1_out"}, "keep_float must be a list or tuple, each of it a text"),
        ({"augment": None}, "augment must be one of none, light, strong. Received: None"),
    ],
)
def test_options_of_another_type_are_refused_before_a_run(values, message):
    with pytest.raises(ValueError, match=message):
        ClassifyConfig("photos", **values)


def test_augment_is_a_name_or_an_augment():
    assert ClassifyConfig("photos", augment=Augment(turn=3)).augment.turn == 3
    with pytest.raises(ValueError, match=r"augment must be one of none, light, strong.*'storng'"):
        ClassifyConfig("photos", augment="storng")
    with pytest.raises(ValueError, match=r"augment must be one of none.*Received: 3"):
        ClassifyConfig("photos", augment=3)
