"""YOLO files that were once read wrongly without a word."""

from pathlib import Path

import numpy as np
import pytest
from data_sets import image, text

from kzoo.recipes.data.box_dataset import read_boxes


def yolo(root: Path, lines: list[str], more: str = "") -> Path:
    for i, line in enumerate(lines):
        image(root / "images" / f"{i}.jpg")
        text(root / "labels" / f"{i}.txt", line)
    if more:
        text(root / "data.yaml", more)
    return root


def test_oriented_boxes_of_small_objects(tmp_path):
    """Of corners far from 0, 0 the first two seemed to be a box around the others."""
    centres = np.random.default_rng(0).uniform(0.3, 0.8, (6, 2))
    turned = np.array([[-0.02, -0.05], [0.06, 0.01], [0.02, 0.05], [-0.06, -0.01]])
    lines = [" ".join(map(str, [0, *(centre + turned).ravel()])) for centre in centres]
    dataset = read_boxes(yolo(tmp_path, lines))
    assert dataset.issues == ()
    for example in (*dataset.train, *dataset.val):
        x, y = centres[int(example.path.stem)]
        wanted = [y - 0.05, x - 0.06, y + 0.05, x + 0.06]
        np.testing.assert_allclose(example.boxes, [wanted], atol=1e-6)


def test_an_outline_in_pixels_that_begins_at_the_corner(tmp_path):
    """The first two corners alone were held against 1."""
    lines = ["0 0 0 1 1 30 40 50 60", *["0 .1 .1 .3 .1 .3 .3 .1 .3"] * 4]
    assert "line 1 holds numbers beyond 1" in str(read_boxes(yolo(tmp_path, lines)).issues[0])


def test_two_numbers_of_one_name_are_told(tmp_path):
    lines = [f"{i % 3} .5 .5 .2 .2" for i in range(9)]
    dataset = read_boxes(yolo(tmp_path, lines, "names: [cat, dog, cat]"))
    assert dataset.labels == ("cat", "dog")
    assert dataset.issues[0].reason == "the classes 0, 2 are all 'cat': read as one"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            "names: [cat, dog]",
            r"classes from 1 to 2, and names are numbered from 0 to 1\. Subtract",
        ),
        ("names: cat, dog\nnc: 2", r"data\.yaml: names must be a list.*Received: 'cat, dog'"),
    ],
)
def test_classes_whose_names_cannot_be_told(names, message, tmp_path):
    """Of lines that count from 1, cats were called dogs; of a text, all were class 0."""
    with pytest.raises(ValueError, match=message):
        read_boxes(yolo(tmp_path, [f"{1 + i % 2} .5 .5 .2 .2" for i in range(6)], names))


CORNERS = [(0.1, 0.1, 0.5, 0.4), (0.6, 0.5, 0.9, 0.9), (0.3, 0.2, 0.8, 0.3), (0.05, 0.6, 0.3, 1)]


@pytest.mark.parametrize("form", ["two corners", "corner, width and height", "centre"])
def test_what_four_numbers_are(form, tmp_path):
    """Corners were read as centres: boxes of other places and sizes, cut off at the edge."""
    boxes = CORNERS if form != "corner, width and height" else [
        (0, 0.1, 0.5, 0.3), (0.1, 0.5, 0.8, 0.4), (0.3, 0.2, 0.5, 0.1), (0.05, 0.6, 0.3, 0.4)
    ]  # fmt: skip
    if form == "centre":
        boxes = [((a + c) / 2, (b + d) / 2, c - a, d - b) for a, b, c, d in CORNERS]
    dataset = read_boxes(yolo(tmp_path, [f"0 {' '.join(map(str, box))}" for box in boxes]))
    for example in (*dataset.train, *dataset.val):
        a, b, c, d = boxes[int(example.path.stem)]
        if form == "corner, width and height":
            c, d = a + c, b + d
        if form == "centre":
            a, b, c, d = CORNERS[int(example.path.stem)]
        np.testing.assert_allclose(example.boxes, [[b, a, d, c]], atol=1e-6)
    told = [issue.reason for issue in dataset.issues if "read as" in issue.reason]
    assert [reason.partition("read as ")[2] for reason in told] == [form] * (form != "centre")


def test_a_few_boxes_outside_are_cut_off_not_read_otherwise(tmp_path):
    """Two of twelve: sloppy borders, and every box would fit as two corners."""
    lines = ["0 .05 .1 .5 .5"] * 2 + ["0 .3 .3 .5 .5"] * 10
    dataset = read_boxes(yolo(tmp_path, lines))
    assert not [issue for issue in dataset.issues if "read as" in issue.reason]
