"""What is trained on, validated on and tested on, and classes that are one by their spelling."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kzoo.recipes.data.box_dataset import read_boxes
from kzoo.recipes.data.box_dataset import read_test as read_test_boxes
from kzoo.recipes.data.class_dataset import read_dataset, read_test
from kzoo.recipes.data.label_sets import read_label_sets, read_label_sets_test
from kzoo.recipes.data.mask_dataset import read_masks
from kzoo.recipes.data.splits import versions


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), "uint8")
    Image.fromarray(pixels).save(path)
    return path


def photos_in_versions(folder: Path, task: str) -> None:
    """Ten photos, each in three versions, as Roboflow exports them."""
    rows = ["file,labels"]
    for i in range(30):
        kind = i // 3 % 2
        name = f"IMG_{i // 3}_jpg.rf.{i:032x}"
        place = {"classify": f"class{kind}", "segment": "images"}.get(task, "")
        image(folder / place / f"{name}.png", i)
        rows.append(f"{name}.png,{'red;round' if kind else 'red'}")
        if task == "detect":
            (folder / f"{name}.txt").write_text(f"{kind} .5 .5 .4 .4\n")
        if task == "segment":
            (folder / "masks").mkdir(exist_ok=True)
            ids = np.tile(np.arange(32, dtype="uint8") // 16, (24, 1))
            Image.fromarray(ids).save(folder / "masks" / f"{name}.png")
    if task == "multilabel":
        (folder / "labels.csv").write_text("\n".join(rows))


@pytest.mark.parametrize(
    ("task", "read", "paths"),
    [
        ("classify", read_dataset, lambda split: split.paths),
        ("multilabel", read_label_sets, lambda split: split.paths),
        ("detect", read_boxes, lambda split: [example.path for example in split]),
        ("segment", read_masks, lambda split: [pair.image for pair in split]),
    ],
)
def test_versions_of_one_photo_are_validated_on_together(task, read, paths, tmp_path):
    photos_in_versions(tmp_path, task)
    found = read(tmp_path)
    splits = paths(found.train), paths(found.val)
    train, val = ({path.name.split(".rf.")[0] for path in split} for split in splits)
    assert not train & val
    assert (len(train), len(val)) == (8, 2)
    assert [*map(len, splits)] == [24, 6]


def test_versions_are_told_by_roboflow_s_names():
    names = ["a_jpg.rf.1.jpg", "b.jpg", "a_jpg.rf.2.jpg", "a_jpg.jpg", "a.rf.jpg"]
    assert versions([Path(name) for name in names]) == [[0, 2], [1], [3], [4]]


def test_a_path_of_a_data_yaml_does_not_mean_a_folder_that_holds_more(tmp_path):
    """../train/images where the images are in images/train: not all that is in images/."""
    for k, split in enumerate(("train", "val", "test")):
        for i in range(3):
            image(tmp_path / "images" / split / f"{i}.png", 10 * k + i)
            label = tmp_path / "labels" / split / f"{i}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 .5 .5 .4 .4\n")
    yaml = tmp_path / "data.yaml"
    yaml.write_text("train: ../train/images\nval: ../val/images\nnames: [a]\n")
    found = read_boxes(tmp_path)
    assert [len(s) for s in (found.train, found.val, found.test)] == [3, 3, 3]
    yaml.write_text("path: /elsewhere\ntrain: images/train\nval: images/val\nnames: [a]\n")
    found = read_boxes(tmp_path)
    assert [len(s) for s in (found.train, found.val, found.test)] == [3, 3, 0]


def test_a_split_that_is_none_is_an_error_in_every_table(tmp_path):
    """Where it stood in a table of boxes, such images were trained on without a word."""
    for i in range(4):
        image(tmp_path / f"{i}.png", i)
    table = tmp_path / "a.csv"
    table.write_text("file,label,ymin,xmin,ymax,xmax,split\n0.png,cat,1,1,9,9,holdout\n")
    with pytest.raises(ValueError, match=r"line 2: split must be .* It says: 'holdout'"):
        read_boxes(table)
    rows = [f"{i}.png,{i % 2},{1 - i % 2},{'holdout' if i else 'train'}\n" for i in range(4)]
    table.write_text(f"filename,cat,dog,split\n{''.join(rows)}")
    with pytest.raises(ValueError, match=r"line 3: split must be .* It says: 'holdout'"):
        read_dataset(table)


def test_a_comma_is_of_a_number_only_where_numbers_stand(tmp_path):
    """Excel's: semicolons between cells, and commas in decimals and between labels."""
    for i in range(10):
        image(tmp_path / f"{i}.png", i)
    table = tmp_path / "a.csv"
    rows = [f'{i}.png;"{"1,2" if i % 2 else "2,3"}"\n' for i in range(10)]
    table.write_text(f"file;labels\n{''.join(rows)}")
    assert read_label_sets(table).labels == ("1", "2", "3")
    table.write_text(
        "file;label;ymin;xmin;ymax;xmax\n"
        + "".join(f"{i}.png;1,5;1,5;2,25;10,5;12\n" for i in range(10))
    )
    found = read_boxes(table)
    assert found.labels == ("1,5",)
    box = found.train[0].boxes[0] * [24, 32, 24, 32]
    np.testing.assert_allclose(box, [1.5, 2.25, 10.5, 12], rtol=1e-5)


LABELS = tuple(unicodedata.normalize("NFC", name) for name in ("Café", "Thé"))
OTHERS = [unicodedata.normalize("NFD", name.lower()) for name in LABELS]


def test_classes_of_a_test_are_known_in_another_spelling(tmp_path):
    """Of another disk or program: Unicode in two forms, upper and lower case."""
    rows = ["file,label,ymin,xmin,ymax,xmax"]
    for k, name in enumerate(OTHERS):
        image(tmp_path / "folders" / name / "0.png", k)
        image(tmp_path / f"{k}.png", k)
        rows.append(f"{k}.png,{name},1,1,9,9")
    split, issues = read_test(tmp_path / "folders", LABELS)
    assert (split.targets.tolist(), issues) == ([0, 1], ())
    (tmp_path / "boxes.csv").write_text("\n".join(rows), encoding="utf-8")
    examples, _ = read_test_boxes(tmp_path / "boxes.csv", LABELS)
    assert [example.labels.tolist() for example in examples] == [[0], [1]]
    sets = "".join(f"{k}.png,{name}\n" for k, name in enumerate(OTHERS))
    (tmp_path / "sets.csv").write_text(f"file,labels\n{sets}", encoding="utf-8")
    split, _ = read_label_sets_test(tmp_path / "sets.csv", LABELS)
    assert split.targets.tolist() == [[1, 0], [0, 1]]


def test_classes_that_are_spelt_alike_are_told(tmp_path):
    for k, name in enumerate(("Cat", "cat", "dog")):
        for i in range(4):
            image(tmp_path / name / f"{i}.png", 10 * k + i)
    found = read_dataset(tmp_path)
    assert [issue.reason for issue in found.issues] == [
        "classes 'Cat' and 'cat' are spelt alike: are they one?"
    ]
