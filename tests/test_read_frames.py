"""Annotations whose numbers are of another image than they seem: a turned one, another size."""

import json
from pathlib import Path

import numpy as np
import pytest
from data_sets import image, text
from PIL import Image

from kzoo.recipes.data.box_dataset import read_boxes
from kzoo.recipes.data.mask_dataset import read_masks

BOX = (30, 10, 60, 40)  # x0 y0 x1 y1 on 64 x 48 px
SHARES = [10 / 48, 30 / 64, 40 / 48, 60 / 64]


def coco(
    root: Path, size: tuple[int, int], boxes: list, *, side: tuple[int, int] = (64, 48), **more
) -> Path:
    """A file of images of `side` that says that they are of `size` (W, H)."""
    entries, notes = [], []
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        image(root / f"{i}.jpg", side)
        entries.append({"id": i, "file_name": f"{i}.jpg", "width": size[0], "height": size[1]})
        notes.append(
            {"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [x0, y0, x1 - x0, y1 - y0],
             "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]], **more}
        )  # fmt: skip
    kinds = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    content = {"images": entries, "annotations": notes, "categories": kinds}
    return text(root / "all.json", json.dumps(content)).parent


def turn(path: Path, orientation: int) -> None:
    with Image.open(path) as stored:
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(path, exif=exif)


def reasons(dataset) -> str:
    return "\n".join(map(str, dataset.issues))


@pytest.mark.parametrize("size", [(48, 64), (32, 24), (20, 20)])
def test_a_size_that_is_not_the_images(size, tmp_path):
    """Boxes were scaled to a size that was swapped, or of nothing."""
    small = (2, 2, 12, 12)  # fits any of the sizes
    dataset = read_boxes(coco(tmp_path, size, [BOX, BOX, BOX, small, BOX]))
    for example in (*dataset.train, *dataset.val):
        wanted = [[2 / 48, 2 / 64, 12 / 48, 12 / 64]] if example.path.stem == "3" else [SHARES]
        np.testing.assert_allclose(example.boxes, wanted, atol=1e-6)
    wanted = f"is of {size[0]} x {size[1]} px, the image has 64 x 48, which the objects fit: read"
    assert wanted in reasons(dataset)
    masks = read_masks(tmp_path)
    assert wanted in reasons(masks)
    assert (masks.train[0].mask.read()[10:40, 30:60] > 0).all()


def test_images_that_were_resized_are_scaled(tmp_path):
    boxes = [(60, 20, 120, 80), (60, 20, 120, 80), (4, 4, 20, 20)]
    dataset = read_boxes(coco(tmp_path, (128, 96), boxes))
    assert dataset.issues == ()
    np.testing.assert_allclose(dataset.train[0].boxes, [SHARES], atol=1e-6)


def test_images_that_were_turned_are_left_out(tmp_path):
    """A box that fits the swapped size alone: the image was turned after it was annotated."""
    other = (10, 30, 40, 60)
    with pytest.raises(ValueError, match=r"is of 48 x 64 px, .* 64 x 48: left out"):
        read_boxes(coco(tmp_path, (48, 64), [other, other, (2, 2, 12, 12)]))


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("task", ["boxes", "outlines", "masks"])
def test_annotations_that_do_not_tell_of_exif(task, orientation, tmp_path):
    """LabelImg draws YOLO's boxes on the image as it is stored, most programs as it is seen."""
    outline = ".2 .2 .6 .2 .6 .6" if task == "outlines" else ".25 .5 .2 .2"
    for i in range(4):
        path = image(tmp_path / "images" / f"{i}.jpg", (48, 48) if task == "masks" else (64, 48))
        turn(path, orientation)
        if task == "masks":
            ids = np.tile(np.arange(48, dtype="uint8") // 24, (48, 1))
            (tmp_path / "masks").mkdir(exist_ok=True)
            Image.fromarray(ids).save(tmp_path / "masks" / f"{i}.png")
        else:
            text(tmp_path / "labels" / f"{i}.txt", f"0 {outline}\n")
    dataset = (read_boxes if task == "boxes" else read_masks)(tmp_path)
    assert "0.jpg: is turned by its EXIF, and nothing tells" in reasons(dataset)
    assert "(4 in all)" in reasons(dataset)


@pytest.mark.parametrize("stored", [False, True])
def test_pixels_tell_of_exif_where_no_size_does(stored, tmp_path):
    """What fits the image as it is stored alone was cut off at the edge of the image as seen."""
    rows = ["file,label,xmin,ymin,xmax,ymax"]
    for i in range(6):
        turn(image(tmp_path / f"{i}.jpg", (64, 48)), 6)
        box = "2,2,9,9" if i == 5 else "40,10,60,20" if stored else "28,40,38,60"
        rows.append(f"{i}.jpg,{'ab'[i % 2]},{box}")
    text(tmp_path / "x.csv", "\n".join(rows))
    dataset = read_boxes(tmp_path)
    for example in (*dataset.train, *dataset.val):
        if example.path.stem != "5":
            wanted = [[40 / 64, 28 / 48, 60 / 64, 38 / 48]]
            np.testing.assert_allclose(example.boxes, wanted, atol=1e-6)
        elif stored:
            wanted = [[2 / 64, 39 / 48, 9 / 64, 46 / 48]]
            np.testing.assert_allclose(example.boxes, wanted, atol=1e-6)
    assert ("boxes turned with the image" in reasons(dataset)) == stored
    assert "nothing tells" not in reasons(dataset)


@pytest.mark.parametrize("form", ["coco", "csv"])
def test_corners_in_place_of_sides_are_refused(form, tmp_path):
    boxes = [(30, 10, 30 + 60, 10 + 40), (5, 5, 65, 50), (40, 20, 100, 60), (1, 1, 9, 9)]
    data = coco(tmp_path, (64, 48), boxes, segmentation=[])
    if form == "csv":
        content = json.loads((tmp_path / "all.json").read_text())
        names = {image["id"]: image["file_name"] for image in content["images"]}
        rows = [
            f'{names[note["image_id"]]},cat,"{note["bbox"]}"' for note in content["annotations"]
        ]
        (tmp_path / "all.json").unlink()
        text(tmp_path / "all.csv", "\n".join(["file,label,bbox", *rows]))
        data = tmp_path
    with pytest.raises(ValueError, match=r"3 of 4 boxes reach outside.*as two corners all are ins"):
        read_boxes(data)


def test_many_boxes_outside_are_told(tmp_path):
    boxes = [(30, 10, 30 + 60, 10 + 40), (5, 5, 70, 60), (40, 20, 100, 60), (1, 1, 9, 9)]
    dataset = read_boxes(coco(tmp_path, (64, 48), boxes))
    assert "3 of 4 boxes reach outside their images. Check what their" in reasons(dataset)


def test_coco_numbers_that_are_texts(tmp_path):
    """An iscrowd of "0" was a crowd, so that its object was none, and void in masks."""
    dataset = read_boxes(coco(tmp_path, (64, 48), [BOX] * 4, iscrowd="0"))
    assert (dataset.issues, len(dataset.train[0].boxes)) == ((), 1)
    content = json.loads((tmp_path / "all.json").read_text())
    for note in content["annotations"]:
        note["image_id"] = float(note["image_id"])  # pandas' of a column with a gap
    text(tmp_path / "all.json", json.dumps(content))
    assert len(read_boxes(tmp_path).train[0].boxes) == 1


def test_small_outlines_are_on_top_whatever_area_is_given(tmp_path):
    """With an area of 1 everywhere the last outline hid the others."""
    coco(tmp_path, (64, 48), [(10, 10, 20, 20)] * 4, area=1)
    content = json.loads((tmp_path / "all.json").read_text())
    large = [
        {**note, "id": 10 + i, "category_id": 2, "segmentation": [[5, 5, 40, 5, 40, 40, 5, 40]]}
        for i, note in enumerate(content["annotations"])
    ]
    for note in content["annotations"]:
        note["category_id"] = 1
    content["annotations"] += large
    text(tmp_path / "all.json", json.dumps(content))
    ids = read_masks(tmp_path).train[0].mask.read()
    assert (ids == 1).sum() == 100
    assert (ids == 2).sum() == 35 * 35 - 100
