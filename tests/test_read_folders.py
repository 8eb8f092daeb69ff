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
