"""Folders, images and masks that were once read wrongly without a word."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_sets import image, text
from PIL import Image

from kzoo.recipes.data.box_dataset import read_boxes
from kzoo.recipes.data.class_dataset import read_dataset
from kzoo.recipes.data.images import look_at
from kzoo.recipes.data.mask_dataset import read_masks


def folders(root: Path, *names: str) -> Path:
    for name in names:
        for i in range(4):
            image(root / name / f"{i}.jpg")
    return root


def masked(root: Path, masks: list[np.ndarray]) -> Path:
    for i, mask in enumerate(masks):
        image(root / "images" / f"{i}.jpg")
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
    return root


def reasons(dataset) -> str:
    return "\n".join(map(str, dataset.issues))


def test_a_table_beside_folders_is_told(tmp_path):
    """Of HAM10000's photos in two parts the parts were the classes."""
    folders(tmp_path, "images_part_1", "images_part_2")
    text(tmp_path / "metadata.csv", "image_id,dx\n0,nv\n")
    assert "metadata.csv: is not read, as the folders beside it" in reasons(read_dataset(tmp_path))


def test_folders_within_classes_are_told(tmp_path):
    """Of fold0/cat, fold1/cat the folds were the classes."""
    dataset = read_dataset(folders(tmp_path, "fold0/cat", "fold0/dog", "fold1/cat", "fold1/dog"))
    assert "fold0: has its images in folders within (cat, dog): read as one class (2 in all)" in (
        reasons(dataset)
    )


@pytest.mark.parametrize("name", ["training_set", "train"])
def test_a_split_within_a_split(name, tmp_path):
    """Kaggle's training_set/training_set/cats."""
    dataset = read_dataset(folders(tmp_path, f"{name}/{name}/cats", f"{name}/{name}/dogs"))
    assert dataset.labels == ("cats", "dogs")


def test_an_image_that_is_transparent_all_over(tmp_path):
    """It was white without a word; of a mask nothing was left."""
    pixels = np.zeros((16, 16, 4), "uint8")
    pixels[:8, :, 0] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert "is transparent all over" in str(look_at(tmp_path / "a.png").remark)
    masks = [np.zeros((48, 64, 4), "uint8") for _ in range(4)]
    for mask in masks:
        mask[:24, :, 1] = 255
    assert len(read_masks(masked(tmp_path / "set", masks)).labels) == 2


@pytest.mark.parametrize("bits", [12, 16])
def test_colours_of_16_bits_that_use_fewer(bits, tmp_path):
    """12 bits of 16 came out black."""
    values = np.linspace(0, (1 << bits) - 1, 16 * 16 * 3).reshape(16, 16, 3).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    content = b"".join(chunk(*part) for part in parts)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    remark = look_at(tmp_path / "a.png").remark
    assert (remark is None) if bits == 16 else "values to 15 of 255" in str(remark)


def test_labels_of_labelme_that_are_no_classes(tmp_path):
    """__ignore__ and _background_ were classes like others."""
    shape = (
        '{{"label": "{}", "shape_type": "polygon", "points": [[{a}, 5], [{b}, 5], [{b}, 20], '
        "[{a}, 20]]}}"
    )
    labels = ("cat", "__ignore__", "_background_")
    shapes = ", ".join(
        shape.format(label, a=5 + 20 * i, b=20 + 20 * i) for i, label in enumerate(labels)
    )
    for i in range(4):
        image(tmp_path / f"{i}.jpg")
        text(
            tmp_path / f"{i}.json",
            f'{{"version": "5", "imagePath": "{i}.jpg", "imageHeight": 48, "imageWidth": 64, '
            f'"shapes": [{shapes}]}}',
        )
    dataset = read_masks(tmp_path)
    assert dataset.labels == ("background", "cat")
    ids = dataset.train[0].mask.read()
    assert [ids[10, x] for x in (10, 30, 50)] == [1, 255, 0]
    assert "__ignore__" not in read_boxes(tmp_path).labels


def test_class_folders_of_odd_names_are_read_or_told(tmp_path):
    """__other__ was left out in silence, and so was a hidden folder of images."""
    names = ("cat", "__other__", "a, b", "caf\u00e9", "1", "cat ")
    for name in (*names, ".net", ".cache", "__pycache__", "__MACOSX"):
        for i in range(3):
            image(tmp_path / name / f"{i}.jpg")
    (tmp_path / ".cache" / "0.jpg").unlink()
    (tmp_path / ".cache" / "1.jpg").unlink()
    (tmp_path / ".cache" / "2.jpg").rename(tmp_path / ".cache" / "2.bin")
    dataset = read_dataset(tmp_path)
    assert dataset.labels == tuple(sorted(names))
    told = reasons(dataset)
    assert "holds images, and is a hidden folder: left out" in told
    assert "classes 'cat' and 'cat ' are spelt alike" in told
    assert {issue.path.name for issue in dataset.issues if "hidden" in issue.reason} == {".net"}


def test_ids_that_count_objects_are_told(tmp_path):
    masks = [np.zeros((48, 64), "uint8") for _ in range(6)]
    for i, mask in enumerate(masks):
        for k in range(2 + i):
            mask[4:14, 8 * k + 1 : 8 * k + 6] = k + 1
    assert "from 1, to 2 in one and 7 in another: are they" in reasons(
        read_masks(masked(tmp_path, masks))
    )


def test_inverted_masks_are_told(tmp_path):
    mask = np.full((48, 64), 255, "uint8")
    mask[10:30, 20:40] = 0
    told = "class 1 lies around class 0"
    assert told in reasons(read_masks(masked(tmp_path / "a", [mask] * 4)))
    assert told not in reasons(read_masks(masked(tmp_path / "b", [255 - mask] * 4)))


XML = (
    "<annotation><filename>{}</filename><object><name>{}</name><bndbox><xmin>5</xmin>"
    "<ymin>5</ymin><xmax>30</xmax><ymax>30</ymax></bndbox></object></annotation>"
)


def test_a_png_beside_a_jpeg_of_its_name(tmp_path):
    """Of VOC's 0.png beside 0.jpg the boxes went to 0.jpg."""
    for name in ("0.jpg", "0.png", "1.jpg", "2.jpg", "3.jpg"):
        image(tmp_path / name)
    for i in range(4):
        text(tmp_path / f"{i}.txt", f"{i % 2} .5 .5 .2 .2")
    found = read_boxes(tmp_path)
    assert "0.png: stands beside 0.jpg and is taken for its mask" in reasons(found)
    assert {e.path.name for e in (*found.train, *found.val)} == {f"{i}.jpg" for i in range(4)}
    for i in range(4):
        (tmp_path / f"{i}.txt").unlink()
        text(tmp_path / f"{i}.xml", XML.format("0.png" if i == 0 else f"{i}.jpg", "ab"[i % 2]))
    found = read_boxes(tmp_path)
    assert "0.jpg: has no annotation: left out" in reasons(found)
    assert "0.png" in {e.path.name for e in (*found.train, *found.val)}


def test_two_images_that_an_annotation_may_mean(tmp_path):
    for name in ("0.jpg", "0.bmp", "1.jpg", "2.jpg"):
        image(tmp_path / "images" / name)
    for i in range(3):
        text(tmp_path / "labels" / f"{i}.txt", f"{i % 2} .5 .5 .2 .2")
    both = "its image '0' may be images/0.bmp or images/0.jpg: left out"
    assert both in reasons(read_boxes(tmp_path))
    masks = masked(tmp_path / "masks", [np.eye(48, 64, dtype="uint8")] * 3)
    image(tmp_path / "masks" / "images" / "0.bmp")
    assert both in reasons(read_masks(masks))
