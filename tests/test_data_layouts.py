"""Data as people have it: every layout is read as what it means, and nothing wrong in silence."""

import codecs
import json
import os
import struct
import sys
import unicodedata
from pathlib import Path

import data_sets
import numpy as np
import pytest
from data_sets import LAYOUTS, SCENE, as_coco, as_voc, as_yolo, image, text
from PIL import Image

from kzoo.recipes.data import read_boxes, read_dataset, read_image, read_masks
from kzoo.recipes.data.images import BadImageError
from kzoo.recipes.data.layout import key_of, split_of
from kzoo.recipes.data.mask_dataset import read_test
from kzoo.recipes.data.masks.pairs import full_mask

sys.path.insert(0, str(Path(__file__).parent / "bench"))
import mutate_data

SPLITS = ("train", "val", "test")
GROUND = np.zeros((48, 64), "uint8")
GROUND[:24] = 1


def boxes_of(dataset) -> dict[str, list]:
    """{split/name: [(class, x0, y0, x1, y1)]} in px."""
    found = {}
    for split in SPLITS:
        for example in getattr(dataset, split):
            height, width = example.size
            pixels = example.boxes * [height, width, height, width]
            found[f"{split}/{example.path.stem.split('_')[-1]}"] = sorted(
                (dataset.labels[k], *box[[1, 0, 3, 2]].round(2).tolist())
                for k, box in zip(example.labels, pixels, strict=True)
            )
    return found


def expected(scene: data_sets.Boxes = SCENE) -> dict[str, list]:
    return {
        name: sorted((label, *map(float, box)) for label, box in objects)
        for name, objects in scene.items()
    }


def remarks(dataset) -> str:
    return "\n".join(map(str, dataset.issues))


def mask(path: Path, ids: np.ndarray = GROUND, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids)
    (image.convert(mode) if mode else image).save(path)


def pairs_of(dataset) -> dict[str, list[tuple[str, str]]]:
    return {
        split: [(str(p.image), str(p.mask.path)) for p in getattr(dataset, split)]
        for split in SPLITS
    }


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_format_with_every_split_says_the_same(name, tmp_path):
    """Three images called a, of three splits: each has its own boxes."""
    dataset = read_boxes(LAYOUTS[name](tmp_path))
    assert dataset.format == name
    assert dataset.labels == ("cat", "dog")
    assert boxes_of(dataset) == expected()
    assert dataset.issues == ()


@pytest.mark.parametrize("name", ["coco", "labelme", "cvat"])
def test_every_format_with_outlines_makes_the_same_masks(name, tmp_path):
    dataset = read_masks(LAYOUTS[name](tmp_path))
    assert dataset.labels == ("background", "cat", "dog")
    assert [len(getattr(dataset, split)) for split in SPLITS] == [3, 2, 2]
    for split in SPLITS:
        for pair in getattr(dataset, split):
            objects = SCENE[f"{split}/{pair.image.stem}"]
            ids = np.zeros((48, 64), "uint8")
            for label, (x0, y0, x1, y1) in sorted(objects, key=lambda o: -area(o[1])):
                ids[y0:y1, x0:x1] = 1 + ("cat", "dog").index(label)
            np.testing.assert_array_equal(full_mask(pair), ids)


def area(box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


# Which image, which mask


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/{s}/{i}.png", "masks/{s}/{i}.png"),
        ("{s}/images/{i}.png", "{s}/masks/{i}.png"),
        ("data/images/{s}/x/{i}.png", "data/labels/{s}/x/{i}.png"),
        ("{s}/{i}.png", "{s}annot/{i}.png"),
        ("{s}/{i}.png", "{s}_masks/{i}_mask.png"),
        ("img_dir/{s}/{i}.png", "ann_dir/{s}/{i}.png"),
        ("leftImg8bit/{s}/ulm/{i}_leftImg8bit.png", "gtFine/{s}/ulm/{i}_gtFine_labelIds.png"),
    ],
)
def test_masks_of_every_layout_are_of_their_own_images(images, masks, tmp_path):
    for s in SPLITS:
        for i in range(3):
            image(tmp_path / images.format(s=s, i=i))
            mask(tmp_path / masks.format(s=s, i=i))
    found = read_masks(tmp_path)
    assert pairs_of(found) == {
        s: [
            (str(tmp_path / images.format(s=s, i=i)), str(tmp_path / masks.format(s=s, i=i)))
            for i in range(3)
        ]
        for s in SPLITS
    }


def test_a_mask_of_another_folder_is_not_taken(tmp_path):
    for s in ("train", "val"):
        for i in range(3):
            image(tmp_path / "images" / s / f"{i}.png")
            mask(tmp_path / "masks" / s / f"{i}.png")
    (tmp_path / "masks" / "train" / "0.png").unlink()
    (tmp_path / "images" / "val" / "0.png").unlink()  # what is left: 0.png of each, of two images
    found = read_masks(tmp_path)
    assert [Path(a).name for a, _ in pairs_of(found)["train"]] == ["1.png", "2.png"]
    assert "val/0.png: its image '0' is missing" in remarks(found)
    assert "train/0.png: has no mask" in remarks(found)


def test_masks_beside_their_images_and_two_for_one(tmp_path):
    for i in range(4):
        image(tmp_path / f"{i}.jpg")
        mask(tmp_path / f"{i}_mask.png")
    assert len(read_masks(tmp_path).train) == 3
    mask(tmp_path / "masks" / "0.png")
    mask(tmp_path / "masks" / "0_mask.png")
    for i in range(1, 4):
        mask(tmp_path / "masks" / f"{i}.png")
        (tmp_path / f"{i}_mask.png").unlink()
    (tmp_path / "0_mask.png").unlink()
    found = read_masks(tmp_path)
    assert "0.jpg: has 2 masks, masks/0.png and masks/0_mask.png: left out" in remarks(found)


@pytest.mark.parametrize("name", ["coco", "csv", "createml"])
def test_an_image_of_another_folder_is_not_taken(name, tmp_path):
    """b/1 is missing: a/1 keeps its own box."""
    scene = {"train/1": [("cat", (5, 5, 25, 25))], "train/2": [("dog", (1, 1, 9, 9))],
             "val/1": [("dog", (40, 30, 50, 40))], "val/2": [("cat", (1, 1, 30, 30))]}  # fmt: skip
    LAYOUTS[name](tmp_path, scene)
    next(tmp_path.rglob("val/1.jpg")).unlink()
    dataset = read_boxes(tmp_path)
    wanted = expected(scene)
    del wanted["val/1"]
    assert boxes_of(dataset) == wanted
    assert "is missing" in remarks(dataset)


def test_a_moved_folder_is_read_and_said(tmp_path):
    """The whole set was drawn on photos/, and lies in other/ now."""
    as_coco(tmp_path)
    for file in (tmp_path / "annotations").iterdir():
        content = json.loads(file.read_text())
        for entry in content["images"]:
            entry["file_name"] = f"C:\\me\\photos\\{file.stem.split('_')[1]}\\{entry['file_name']}"
        file.write_text(json.dumps(content))
    assert boxes_of(read_boxes(tmp_path)) == expected()
    (tmp_path / "images").rename(tmp_path / "other")
    assert boxes_of(read_boxes(tmp_path)) == expected()


def test_names_in_another_case_or_form(tmp_path):
    scene = {"train/Käse": [("cat", (5, 5, 25, 25))], "train/B": [("dog", (1, 1, 9, 9))],
             "val/c": [("dog", (1, 1, 30, 30)), ("cat", (1, 1, 9, 9))]}  # fmt: skip
    as_coco(tmp_path, scene)
    folder = tmp_path / "images" / "train"
    (folder / "Käse.jpg").rename(folder / unicodedata.normalize("NFD", "KÄSE.JPG"))
    (folder / "B.jpg").rename(folder / "b.jpeg")
    assert {k.split("/")[1].casefold() for k in boxes_of(read_boxes(tmp_path))} == {
        unicodedata.normalize("NFD", "käse").casefold(), "b", "c",
    }  # fmt: skip
    image(folder / "B.JPEG")  # which of the two is meant?
    dataset = read_boxes(tmp_path)
    assert "its image 'B.jpg' may be images/train/B.JPEG or images/train/b.jpeg" not in remarks(
        dataset
    )  # B.JPEG has the very stem
    (folder / "B.JPEG").rename(folder / "B.PNG")
    (folder / "b.jpeg").rename(folder / "B.bmp")
    assert "its image 'B.jpg' may be images/train/B.PNG or images/train/B.bmp: left out" in remarks(
        read_boxes(tmp_path)
    )


@pytest.mark.parametrize("written", ["my%20photo.jpg", "http://x/my%20photo.jpg", "50%.jpg"])
def test_names_of_web_addresses(written, tmp_path):
    scene = {"train/a": [("cat", (5, 5, 25, 25))], "train/my photo": [("dog", (1, 1, 9, 9))],
             "val/c": [("dog", (1, 1, 30, 30)), ("cat", (1, 1, 9, 9))]}  # fmt: skip
    as_coco(tmp_path, scene)
    file = tmp_path / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace("my photo.jpg", written))
    dataset = read_boxes(tmp_path)
    assert ("train/my photo" in boxes_of(dataset)) == ("%20" in written)


def test_images_and_annotations_renamed_together(tmp_path):
    """Each xml names another image, that of its neighbour: it is read as of its own name."""
    as_voc(tmp_path)
    stems = sorted(path.stem for path in (tmp_path / "Annotations").iterdir())
    for i, stem in enumerate(stems):
        file = tmp_path / "Annotations" / f"{stem}.xml"
        file.write_text(file.read_text().replace(f"{stem}.jpg", f"{stems[i - 1]}.jpg"))
    dataset = read_boxes(tmp_path)
    assert boxes_of(dataset) == expected()
    assert "read as of" in remarks(dataset)
    for i, stem in enumerate(stems):
        file = tmp_path / "Annotations" / f"{stem}.xml"
        file.write_text(file.read_text().replace(f"{stems[i - 1]}.jpg", f"IMG_{i}.JPG"))
    dataset = read_boxes(tmp_path)
    assert boxes_of(dataset) == expected()
    assert dataset.issues == ()


def test_one_xml_that_names_another_image_is_left_out(tmp_path):
    as_voc(tmp_path)
    file = tmp_path / "Annotations" / "train_a.xml"
    file.write_text(file.read_text().replace("train_a.jpg", "train_b.jpg"))
    (tmp_path / "Annotations" / "train_c.xml").rename(tmp_path / "Annotations" / "other.xml")
    dataset = read_boxes(tmp_path)
    assert "names 'train_b.jpg' and is called like JPEGImages/train_a.jpg: left out" in remarks(
        dataset
    )
    assert boxes_of(dataset)["train/b"] == expected()["train/b"]


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    for kind in "ab":
        for i in range(3):
            image(tmp_path / "far" / kind / f"{i}.png")
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / kind).symlink_to(tmp_path / "far" / kind)
    (tmp_path / "far" / "a" / "loop").symlink_to(tmp_path / "far")
    assert len(read_dataset(tmp_path / "data").train) >= 4
    as_yolo(tmp_path / "yolo")
    (tmp_path / "linked").mkdir()
    for name in ("images", "labels", "data.yaml"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "yolo" / name)
    assert boxes_of(read_boxes(tmp_path / "linked")) == expected()


def test_coco_ids_given_twice(tmp_path):
    as_coco(tmp_path)
    file = tmp_path / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["images"][1]["id"] = 0
    file.write_text(json.dumps(content))
    dataset = read_boxes(tmp_path)
    assert "'a.jpg' and 'b.jpg' have the id 0: both left out" in remarks(dataset)
    assert {"train/a", "train/b"}.isdisjoint(boxes_of(dataset))
    content["images"][1]["id"] = 1
    content["categories"][1]["id"] = 1
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"category id 1 is 'cat' and 'dog'"):
        read_boxes(tmp_path)


def test_coco_categories_go_by_name_and_ids_may_be_texts(tmp_path):
    as_coco(tmp_path)
    file = tmp_path / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    for entry in content["categories"]:
        entry["id"] = 3 - entry["id"]
    for note in content["annotations"]:
        note["category_id"] = 3 - note["category_id"]
        note["image_id"] = str(note["image_id"])
    file.write_text(json.dumps(content))
    dataset = read_boxes(tmp_path)
    assert boxes_of(dataset) == expected()
    assert "category 'cat' has the ids 1 and 2: read as one class" in remarks(dataset)


def test_files_of_other_kinds_beside_the_right_ones(tmp_path):
    as_coco(tmp_path / "coco")
    folder = tmp_path / "coco" / "annotations"
    captions = {"images": [], "annotations": [{"id": 1, "image_id": 0, "caption": "x"}]}
    text(folder / "captions_train.json", json.dumps(captions))
    panoptic = captions | {"annotations": [{"segments_info": []}], "categories": []}
    text(folder / "panoptic_train.json", json.dumps(panoptic))
    keypoints = (folder / "instances_train.json").read_text()
    text(folder / "person_keypoints_train.json", keypoints)
    text(tmp_path / "coco" / "package.json", '{"name": "x"}')
    dataset = read_boxes(tmp_path / "coco")
    assert boxes_of(dataset) == expected()
    for words in ("captions, not objects", "panoptic", "repeats the images", "package.json"):
        assert words in remarks(dataset)

    as_voc(tmp_path / "voc")
    text(tmp_path / "voc" / "notes.xml", "<settings/>")
    text(tmp_path / "voc" / "info.json", '{"annotations": 5, "version": 1}')
    text(tmp_path / "voc" / "log.csv", "epoch,loss\n1,2\n")
    dataset = read_boxes(tmp_path / "voc")
    assert boxes_of(dataset) == expected()
    assert "notes.xml: begins with <settings>" in remarks(dataset)

    as_yolo(tmp_path / "yolo")
    text(tmp_path / "yolo" / "README.roboflow.txt", "Exported")
    text(tmp_path / "yolo" / "requirements.txt", "1.0\n")
    assert boxes_of(read_boxes(tmp_path / "yolo")) == expected()


def test_a_group_of_categories_is_no_class(tmp_path):
    as_coco(tmp_path)
    for file in (tmp_path / "annotations").iterdir():
        content = json.loads(file.read_text())
        for entry in content["categories"]:
            entry["supercategory"] = "pets"
        content["categories"].append({"id": 0, "name": "pets", "supercategory": "none"})
        file.write_text(json.dumps(content))
    dataset = read_boxes(tmp_path)
    assert dataset.labels == ("cat", "dog")
    assert "'pets' is the group of others" in remarks(dataset)


def test_a_category_called_background_is_the_ground(tmp_path):
    as_coco(tmp_path)
    for file in (tmp_path / "annotations").iterdir():
        content = json.loads(file.read_text())
        content["categories"].append({"id": 0, "name": "Background"})
        content["annotations"].append(
            {"id": 999, "image_id": 0, "category_id": 0, "bbox": [0, 0, 64, 48], "area": 1,
             "segmentation": [[0, 0, 3, 0, 3, 3, 0, 3]]}
        )  # fmt: skip
        file.write_text(json.dumps(content))
    found = read_masks(tmp_path)
    assert found.labels == ("background", "cat", "dog")
    assert full_mask(found.train[0])[1, 1] == 0


# What is trained on


@pytest.mark.parametrize("names", [("images", "masks"), ("Images", "labels"), ("images",)])
def test_folders_of_images_and_masks_are_no_classes(names, tmp_path):
    """A classifier learnt to tell photos from masks."""
    for name in names:
        for i in range(3):
            image(tmp_path / name / f"{i}.png")
    with pytest.raises(ValueError, match=r"mages/.*not one folder per class. Use kzoo segment if"):
        read_dataset(tmp_path)
    for i in range(3):
        image(tmp_path / "paintings" / f"{i}.png")
    assert "paintings" in read_dataset(tmp_path).labels


def test_test_images_are_kept_apart_in_every_task(tmp_path):
    for s in SPLITS:
        for kind in "ab":
            for i in range(2):
                image(tmp_path / "folders" / s / kind / f"{i}.png")
                image(tmp_path / "inner" / kind / s / f"{i}.png")
        for i in range(3):
            image(tmp_path / "masks" / s / "images" / f"{i}.png")
            mask(tmp_path / "masks" / s / "masks" / f"{i}.png")
    for name in ("folders", "inner"):
        dataset = read_dataset(tmp_path / name)
        assert [len(getattr(dataset, s)) for s in SPLITS] == [4, 4, 4]
        assert all(s in str(p) for s in SPLITS for p in getattr(dataset, s).paths)
    found = read_masks(tmp_path / "masks")
    assert [len(getattr(found, s)) for s in SPLITS] == [3, 3, 3]
    assert all(f"/{s}/" in str(p.image) for s in SPLITS for p in getattr(found, s))


def test_with_a_test_and_no_val_some_are_drawn_from_train(tmp_path):
    scene = {name: own for name, own in SCENE.items() if not name.startswith("val")}
    for name, write in LAYOUTS.items():
        dataset = read_boxes(write(tmp_path / name, scene))
        assert {e.path.stem.split("_")[-1] for e in dataset.test} == {"a", "e"}
        assert (len(dataset.train), len(dataset.val)) == (2, 1), name


@pytest.mark.parametrize("names", ["train.txt", "train.lst", "splits/train_list.txt"])
def test_lists_of_files_split_every_task(names, tmp_path):
    """Lists may name an image by its stem, its path, or with its mask; the rest is left out."""
    forms = ("{}", "images/{}.jpg", "/content/set/images/{}.jpg masks/{}.png")
    for number, form in enumerate(forms):
        root = tmp_path / str(number)
        for i in range(7):
            image(root / "images" / f"im{i}.jpg")
            mask(root / "masks" / f"im{i}.png")
            text(root / "labels" / f"im{i}.txt", f"{i % 2} .5 .5 .2 .2\n")
        for split, chosen in (("train", (0, 1, 2)), ("val", (3,)), ("test", (4, 5))):
            lines = "\n".join(form.format(f"im{i}", f"im{i}") for i in chosen)
            text(root / names.replace("train", split), lines)
        for dataset in (read_masks(root), read_boxes(root, format="yolo")):
            sources = [getattr(dataset, s) for s in SPLITS]
            stems = [[getattr(x, "image", getattr(x, "path", x)).stem for x in s] for s in sources]
            assert stems == [["im0", "im1", "im2"], ["im3"], ["im4", "im5"]]
            assert "im6.jpg: is in none of" in remarks(dataset)


def test_pascal_vocs_lists_of_both_tasks_and_trainval(tmp_path):
    as_voc(tmp_path)
    for stem in ("train_a", "train_b", "val_a", "test_a"):
        mask(tmp_path / "SegmentationClass" / f"{stem}.png")
        mask(tmp_path / "SegmentationObject" / f"{stem}.png")
    text(tmp_path / "ImageSets" / "Segmentation" / "train.txt", "train_a\nval_a\n")
    text(tmp_path / "ImageSets" / "Segmentation" / "val.txt", "train_b\n")
    text(tmp_path / "ImageSets" / "Segmentation" / "test.txt", "test_a\n")
    text(tmp_path / "ImageSets" / "Main" / "cat_train.txt", "train_a 1\ntest_a -1\n")
    found = read_masks(tmp_path)
    stems = [[p.image.stem for p in getattr(found, s)] for s in SPLITS]
    assert stems == [["train_a", "val_a"], ["train_b"], ["test_a"]]
    assert boxes_of(read_boxes(tmp_path)) == expected()
    main = tmp_path / "ImageSets" / "Main"
    text(main / "trainval.txt", "train_a\ntrain_b\ntrain_c\nval_a\nval_d\n")
    for name in ("train", "val", "cat_train"):
        (main / f"{name}.txt").unlink()
    dataset = read_boxes(tmp_path)
    assert [len(getattr(dataset, s)) for s in SPLITS] == [4, 1, 2]


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("../train/images", "../valid/images"),
        ("train/images", ["valid/images"]),
        ("train.txt", "some/where/val.txt"),
        (["train/images/0.jpg", "train/images/1.jpg", "train/images/2.jpg"], "valid/images"),
    ],
)
def test_entries_of_a_data_yaml(train, val, tmp_path):
    for split, numbers in (("train", range(4)), ("valid", (4, 5)), ("test", (6, 7))):
        for i in numbers:
            image(tmp_path / split / "images" / f"{i}.jpg")
            text(tmp_path / split / "labels" / f"{i}.txt", f"{i % 2} .5 .5 .2 .2\n")
    text(tmp_path / "train.txt", "".join(f"./train/images/{i}.jpg\n" for i in range(3)))
    text(tmp_path / "some" / "where" / "val.txt", "/x/valid/images/4.jpg\n/x/valid/images/5.jpg\n")
    content = {"train": train, "val": val, "test": "test/images", "names": ["a", "b"]}
    text(tmp_path / "data.yaml", json.dumps(content))  # which is YAML
    dataset = read_boxes(tmp_path)
    stems = [sorted(e.path.stem for e in getattr(dataset, s)) for s in SPLITS]
    assert stems[1:] == [["4", "5"], ["6", "7"]]
    assert stems[0][:3] == ["0", "1", "2"]


def test_train_and_val_of_one_folder_are_told_apart(tmp_path):
    """ultralytics' coco8 and coco128 validate on what they train on."""
    as_yolo(tmp_path)
    names = "names: [cat, dog]\n"
    text(tmp_path / "data.yaml", f"train: images/train\nval: images/train\n{names}")
    dataset = read_boxes(tmp_path)
    assert not {e.path for e in dataset.train} & {e.path for e in dataset.val}
    assert "listed as train and as val" in remarks(dataset)


def test_an_image_of_two_splits_is_kept_from_training(tmp_path):
    as_coco(tmp_path)
    folder = tmp_path / "annotations"
    content = json.loads((folder / "instances_train.json").read_text())
    content["images"].append({"id": 50, "file_name": "test/a.jpg", "width": 64, "height": 48})
    text(folder / "instances_train.json", json.dumps(content))
    dataset = read_boxes(tmp_path)
    assert "test" not in {e.path.parent.name for e in (*dataset.train, *dataset.val)}
    given = [(i, "train") for i in range(4)] + [(0, "test"), (2, "val"), (3, "val")]
    rows = [f"{i}.jpg,{'ab'[i % 2]},{split}" for i, split in given]
    text(tmp_path / "x" / "x.csv", "\n".join(["file,label,split", *rows]))
    for i in range(4):
        image(tmp_path / "x" / f"{i}.jpg")
    with pytest.raises(ValueError, match="class 'a' has validation images but no training images"):
        read_dataset(tmp_path / "x" / "x.csv")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"), ("Valid", "val"), ("instances_val2017", "val"), ("testannot", "test"),
        ("train_images", "train"), ("test-annotations-bbox", "test"), ("mydata-test", "test"),
        ("train station", None), ("testimony", None), ("bus_train_stop", None), ("trainval", None),
        ("images", None), ("train_test_split", None),
    ],
)  # fmt: skip
def test_names_of_splits(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("images/train", ("train",)), ("train/masks", ("train",)), ("trainannot", ("train",)),
        ("data/obj_train_data/labels", ("data", "train")), ("JPEGImages", ()),
        ("masks_2/a", ("2", "a")), ("leftImg8bit/val/ulm", ("val", "ulm")),
    ],
)  # fmt: skip
def test_what_folders_say_of_which_images(path, key):
    assert key_of(path.split("/")) == key


def test_a_class_that_is_called_train(tmp_path):
    for kind in ("bus", "car", "train"):
        for i in range(3):
            image(tmp_path / kind / f"{i}.png")
    assert read_dataset(tmp_path).labels == ("bus", "car", "train")


@pytest.mark.parametrize("names", [("training_set", "test_set"), ("seg_train", "seg_test")])
def test_folders_that_are_nearly_called_train_and_test(names, tmp_path):
    for name in names:
        for kind in "ab":
            for i in range(3):
                image(tmp_path / name / kind / f"{i}.png")
    dataset = read_dataset(tmp_path)
    assert [len(getattr(dataset, s)) for s in SPLITS] == [4, 2, 6]


def test_a_folder_within_a_folder(tmp_path):
    for kind in "ab":
        for i in range(3):
            image(tmp_path / "photos" / "photos" / kind / f"{i}.png")
    (tmp_path / "__MACOSX").mkdir()
    assert read_dataset(tmp_path).labels == ("a", "b")


# YOLO


def yolo(root: Path, line: str, count: int = 6, more: str = "") -> Path:
    for i in range(count):
        image(root / "images" / f"{i}.jpg")
        text(root / "labels" / f"{i}.txt", line.format(i % 2))
    text(root / "data.yaml", f"names: [cat, dog]\n{more}")
    return root


BOX = [0.3, 0.4, 0.7, 0.6]  # of x .5, y .5, w .2, h .4, as yxyx
YOLO_LINES = {
    "confidence": ("{} .5 .5 .2 .4 .9", "", BOX, "class, box and confidence"),
    "17 keypoints": ("{} .5 .5 .2 .4" + " .45 .6 2" * 17, "", BOX, "box and keypoints"),
    "keypoints not shown": ("{} .5 .5 .2 .4 .45 .6 2 0 0 0 .5 .5 1", "", BOX, "keypoints"),
    "keypoints of two": ("{} .5 .5 .2 .4 .45 .6 .5 .5", "", BOX, "box and keypoints"),
    "kpt_shape": ("{} .5 .5 .2 .4 .1 .1 .9 .9", "kpt_shape: [2, 2]", BOX, "box and keypoints"),
    "outline": ("{} .4 .3 .6 .3 .6 .7 .4 .7", "", BOX, None),
    "outline and confidence": ("{} .4 .3 .6 .3 .6 .7 .4 .7 .9", "", BOX, "outline and confidence"),
    "commas": ("{}, .5, .5, .2, .4", "", BOX, None),
}


@pytest.mark.parametrize("name", YOLO_LINES)
def test_lines_of_yolo_by_their_counts(name, tmp_path):
    line, more, box, remark = YOLO_LINES[name]
    dataset = read_boxes(yolo(tmp_path, line, more=more))
    for example in (*dataset.train, *dataset.val):
        np.testing.assert_allclose(example.boxes, [box], atol=1e-6)
    assert (remark or "") in remarks(dataset)
    assert bool(remark) == bool(dataset.issues)


def test_numbers_of_pixels_are_no_shares(tmp_path):
    yolo(tmp_path, "{} .5 .5 .2 .4")
    text(tmp_path / "labels" / "0.txt", "0 32 24 10 20\n")
    assert "0.txt: line 1 holds numbers beyond 1, and YOLO's are shares" in remarks(
        read_boxes(tmp_path)
    )


NAMES = {
    "quoted": ("names: ['cat, small', \"dog\"]", ("cat, small", "dog")),
    "words that YAML knows": ("names: [no, 010]", ("no", "010")),
    "in lines": ("names:\n# two\n- cat # first\n- dog\n", ("cat", "dog")),
    "in disorder": ("names: {1: dog, 0: cat}", ("cat", "dog")),
    "with more": ("names: {0: cat, 1: dog, 7: emu}\nnc: 2", ("cat", "dog", "emu")),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_classes(name, tmp_path):
    written, wanted = NAMES[name]
    yolo(tmp_path, "{} .5 .5 .2 .4")
    text(tmp_path / "data.yaml", written)
    dataset = read_boxes(tmp_path)
    assert dataset.labels == wanted
    for example in (*dataset.train, *dataset.val):
        assert example.labels.tolist() == [int(example.path.stem) % 2]
    assert ("says nc: 2 and names 3" in remarks(dataset)) == (name == "with more")


def test_names_from_one_and_other_lists_are_told(tmp_path):
    yolo(tmp_path, "{} .5 .5 .2 .4")
    text(tmp_path / "data.yaml", "names: {1: cat, 2: dog}")
    assert "names begin at 1 and lines at 0" in remarks(read_boxes(tmp_path))
    text(tmp_path / "data.yaml", "names: [cat, dog]")
    text(tmp_path / "labels" / "classes.txt", "dog\ncat\n")
    dataset = read_boxes(tmp_path)
    assert dataset.labels == ("cat", "dog")
    assert "classes.txt: names other classes than data.yaml, which counts" in remarks(dataset)


# Text


ENCODINGS = {
    "mark": lambda s: codecs.BOM_UTF8 + s.encode(),
    "UTF-16": lambda s: s.encode("utf-16"),
    "UTF-16 without a mark": lambda s: s.encode("utf-16-le"),
    "cp1252": lambda s: s.encode("cp1252"),
    "Windows' lines": lambda s: s.replace("\n", "\r\n").encode(),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["coco", "voc", "yolo", "csv", "cvat", "labelme", "createml"])
def test_every_format_in_every_encoding(name, encoding, tmp_path):
    scene = {k: [("Löwe" if label == "cat" else label, box) for label, box in own]
             for k, own in SCENE.items()}  # fmt: skip
    LAYOUTS[name](tmp_path, scene)
    for path in tmp_path.rglob("*"):
        if path.suffix in (".json", ".xml", ".txt", ".csv", ".yaml"):
            content = path.read_text(encoding="utf-8")
            path.write_bytes(ENCODINGS[encoding](content))
    dataset = read_boxes(tmp_path)
    assert dataset.labels == ("Löwe", "dog")
    assert boxes_of(dataset) == expected(scene)
    if encoding != "cp1252":
        assert dataset.issues == ()


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("head", ["file,label", "Filename,Class", " image , category ", "id,breed"])
def test_tables_of_classes(head, separator, tmp_path):
    rows = [head]
    for i in range(6):
        image(tmp_path / "img" / f"{i}.png")
        rows.append(f"img\\{i}.png,{'ab'[i % 2]}")
    content = "\n".join([*rows[:3], "", ",", *rows[3:], ",,,,", ""]).replace(",", separator)
    text(tmp_path / "x.csv", content)
    dataset = read_dataset(tmp_path / "x.csv")
    assert dataset.labels == ("a", "b")
    assert len(dataset.train) + len(dataset.val) == 6
    assert dataset.issues == ()


def test_tables_without_a_header_of_ids_and_of_ones(tmp_path):
    for i in range(6):
        image(tmp_path / "img" / f"{i}.png")
    rows = [f"img/{i}.png,{'ab'[i % 2]}" for i in range(6)]
    ones = ["filename, a, b", *(f"{i}.png, {1 - i % 2}, {i % 2}" for i in range(6))]
    ids = ["id,species", *(f"{i},{'ab'[i % 2]}" for i in range(6))]
    for name, lines in (("bare", rows), ("ones", ones), ("ids", ids)):
        dataset = read_dataset(text(tmp_path / f"{name}.csv", "\n".join(lines)))
        assert dataset.labels == ("a", "b"), name
        (tmp_path / f"{name}.csv").unlink()
    text(tmp_path / "train.csv", "\n".join(ids[:5]))
    text(tmp_path / "test.csv", "\n".join([ids[0], *ids[5:]]))
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (2, 2, 2)


def test_a_table_beside_folders_that_are_no_classes(tmp_path):
    """Kaggle's images/, test/ without labels, and a table of the first."""
    for i in range(6):
        image(tmp_path / "images" / f"{i}.png")
        image(tmp_path / "test" / f"x{i}.png")
    rows = [f"{i},{'ab'[i % 2]}" for i in range(6)]
    text(tmp_path / "labels.csv", "\n".join(["id,breed", *rows]))
    text(tmp_path / "sample_submission.csv", "id,a,b\nx0,.5,.5\n")
    dataset = read_dataset(tmp_path)
    assert dataset.labels == ("a", "b")
    assert {path.parent.name for path in (*dataset.train.paths, *dataset.val.paths)} == {"images"}
    bare = [f"images/{i}.png,{i % 2},{'train' if i < 4 else 'test'}" for i in range(6)]
    dataset = read_dataset(text(tmp_path / "bare.csv", "\n".join(bare)))
    assert (dataset.labels, len(dataset.test)) == (("0", "1"), 2)


BOX_TABLES = {
    "corner and sides": ("image_id,label,x,y,w,h", "5,6,20,10"),
    "bbox": ('file,label,"bbox"', '"[5, 6, 20, 10]"'),
    "semicolons and commas": ("file;label;xmin;ymin;xmax;ymax", "5,0;6,0;25,0;16,0"),
}


@pytest.mark.parametrize("name", BOX_TABLES)
def test_tables_of_boxes(name, tmp_path):
    head, box = BOX_TABLES[name]
    mark = ";" if ";" in head else ","
    rows = [head]
    for i in range(6):
        image(tmp_path / f"{i}.jpg")
        rows.append(mark.join([f"{i}.jpg", "ab"[i % 2], box]))
    dataset = read_boxes(text(tmp_path / "x.csv", "\n".join(rows)))
    for example in (*dataset.train, *dataset.val):
        pixels = example.boxes * [48, 64, 48, 64]
        np.testing.assert_allclose(pixels, [[6, 5, 16, 25]], atol=1e-4)


# Masks


def mask_set(root: Path, write, count: int = 5) -> Path:
    for i in range(count):
        image(root / "images" / f"{i}.jpg")
        write(root / "masks" / f"{i}.png", i)
    return root


Y, X = np.mgrid[:192, :256]
DISC = (((Y - 96) ** 2 + (X - 128) ** 2) < 48**2).astype("uint8")
SOFT = np.asarray(Image.fromarray(DISC * 255).resize((64, 48), Image.Resampling.BILINEAR))
HARD = (SOFT > 127).astype("uint8")
THREE = HARD.copy()
THREE[:5] = 2


def palette_of_one(path: Path, i: int) -> None:
    """Palettes in the order in which a program met the colours."""
    own = Image.fromarray(HARD if i % 2 else 1 - HARD, "P")
    own.putpalette([0, 0, 0, 255, 0, 0] if i % 2 else [255, 0, 0, 0, 0, 0])
    path.parent.mkdir(parents=True, exist_ok=True)
    own.save(path)


def in_alpha(path: Path, i: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.merge("RGBA", [*Image.new("RGB", (64, 48)).split(), Image.fromarray(HARD * 255)]).save(
        path
    )


def as_jpeg(path: Path, i: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(HARD * 255).save(path.with_suffix(".jpg"), quality=90)


MASKS = {
    "soft edges": (lambda p, i: mask(p, SOFT), HARD),
    "0 and 128": (lambda p, i: mask(p, HARD * 128), HARD),
    "RGB": (lambda p, i: mask(p, HARD * 255, "RGB"), HARD),
    "RGBA": (lambda p, i: mask(p, HARD * 255, "RGBA"), HARD),
    "soft edges in RGB": (lambda p, i: mask(p, SOFT, "RGB"), HARD),
    "in transparency": (in_alpha, HARD),
    "1 bit": (lambda p, i: mask(p, HARD * 255, "1"), HARD),
    "16 bits": (lambda p, i: mask(p, HARD.astype("uint16") * 65535), HARD),
    "JPEG": (as_jpeg, HARD),
    "even greys": (lambda p, i: mask(p, THREE * 127), THREE),
    "palettes of their own": (palette_of_one, HARD),
    "ids of a large set": (lambda p, i: mask(p, np.array([7, 11, 33], "uint8")[THREE]), THREE),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_as_people_have_them(name, tmp_path):
    write, wanted = MASKS[name]
    found = read_masks(mask_set(tmp_path, write))
    assert len(found.labels) == wanted.max() + 1
    for pair in (*found.train, *found.val):
        got = full_mask(pair)
        assert (got == wanted).mean() > (0.98 if name == "JPEG" else 0.9999)
    assert found.issues or name == "1 bit"


COLOURS = {0: (0, 0, 0), 1: (250, 50, 83), 2: (36, 179, 83)}
MAPS = {
    "labelmap.txt": (
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nleaf:36,179,83::\nroad:250,50,83::\n"
    ),
    "class_dict.csv": "name,r,g,b\nbackground,0,0,0\nleaf,36,179,83\nroad,250,50,83\n",
    "label_colors.txt": "0 0 0\tbackground\n36 179 83\tleaf\n250 50 83\troad\n",
}


@pytest.mark.parametrize("mode", ["RGB", "P"])
@pytest.mark.parametrize("name", MAPS)
def test_masks_of_colours_by_a_label_map(name, mode, tmp_path):
    """Classes are in the map's order, whatever index a palette gives their colours."""

    def write(path: Path, i: int) -> None:
        own = Image.fromarray(THREE, "P")
        own.putpalette([v for colour in COLOURS.values() for v in colour])
        path.parent.mkdir(parents=True, exist_ok=True)
        own.convert(mode).save(path)

    found = read_masks(mask_set(tmp_path, write), void=None)
    assert found.labels  # no map: classes of colours or of indices
    text(tmp_path / name, MAPS[name])
    found = read_masks(tmp_path)
    assert found.labels == ("background", "leaf", "road")
    np.testing.assert_array_equal(full_mask(found.train[0]), np.array([0, 2, 1])[THREE])
    assert found.issues == ()


def test_a_colour_that_a_map_does_not_name(tmp_path):
    strange = np.zeros((48, 64, 3), "uint8")
    strange[:20] = 9, 8, 7
    road = np.dstack([HARD * 250, HARD * 50, HARD * 83])
    mask_set(tmp_path, lambda p, i: mask(p, road if i else strange))
    text(tmp_path / "labelmap.txt", MAPS["labelmap.txt"])
    assert "0.png: holds colour 9,8,7, which labelmap.txt does not name: left out" in remarks(
        read_masks(tmp_path)
    )


def test_photos_are_no_masks(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64), dtype="uint8")
    mask_set(tmp_path, lambda p, i: mask(p, noise if i == 0 else HARD))
    assert "0.png: holds 25" in remarks(read_masks(tmp_path))
    assert "is it a photo?" in remarks(read_masks(tmp_path))


def test_another_value_is_void(tmp_path):
    mask_set(tmp_path, lambda p, i: mask(p, THREE))
    found = read_masks(tmp_path, void=2)
    assert found.labels == ("background", "class 1")
    np.testing.assert_array_equal(full_mask(found.train[0]), np.where(THREE == 2, 255, THREE))
    for wrong in (300, "-1", "1,2"):
        with pytest.raises(ValueError, match=rf"one value of masks, 0 to 255.*Received: {wrong}"):
            read_masks(tmp_path, void=wrong)


@pytest.mark.parametrize("by_colour", [False, True])
def test_void_by_name(by_colour, tmp_path):
    """The class is left out, and those after it move down."""
    names = ("sky", "Void", "road")
    if by_colour:
        colours = np.array([(9, 9, 90), (0, 0, 0), (200, 10, 10)], "uint8")
        lines = [f"{n}:{r},{g},{b}::" for n, (r, g, b) in zip(names, colours, strict=True)]
        text(tmp_path / "labelmap.txt", "\n".join(lines))
        mask_set(tmp_path, lambda p, i: mask(p, colours[THREE]))
    else:
        text(tmp_path / "labels.txt", "\n".join(names))
        mask_set(tmp_path, lambda p, i: mask(p, THREE))
    plain = read_masks(tmp_path)
    assert plain.labels == names
    assert "class 'Void' is trained like the others: to ignore its pixels" in remarks(plain)
    found = read_masks(tmp_path, void="void")
    assert found.labels == ("sky", "road")
    assert found.issues == ()
    np.testing.assert_array_equal(full_mask(found.train[0]), np.array([0, 255, 1])[THREE])
    assert found.pixels.tolist() == [len(found.train) * (i == THREE).sum() for i in (0, 2)]
    again, _ = read_test(tmp_path, found.labels, void="Void")
    np.testing.assert_array_equal(full_mask(again[0]), np.array([0, 255, 1])[THREE])
    with pytest.raises(ValueError, match=r"class 'tree', which .* classes are sky, Void, road"):
        read_masks(tmp_path, void="tree")


def test_void_by_name_needs_names(tmp_path):
    mask_set(tmp_path, lambda p, i: mask(p, THREE))
    with pytest.raises(ValueError, match="No file names the classes: give the value that void has"):
        read_masks(tmp_path, void="Void")


def test_class_0_is_background_only_where_it_lies_around(tmp_path):
    mask_set(tmp_path, lambda p, i: mask(p, np.where(HARD, 0, THREE + 1).astype("uint8")))
    assert read_masks(tmp_path).labels[0] == "class 0"


def test_a_mask_turns_with_its_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(4):
        image(tmp_path / "images" / f"{i}.jpg", exif=exif)  # 64 x 48 as stored, seen as 48 x 64
        mask(tmp_path / "masks" / f"{i}.png")
    found = read_masks(tmp_path)
    np.testing.assert_array_equal(full_mask(found.train[0]), np.rot90(GROUND, -1))
    assert "turned with its image" in remarks(found)


@pytest.mark.parametrize("names", ["{}.jpg {}.png", "x/{}.jpg x/{}.png"])
def test_masks_that_stand_beside_photos(names, tmp_path):
    photo, drawn = names.split()
    for i in range(4):
        image(tmp_path / photo.format(i))
        mask(tmp_path / drawn.format(i))
    found = read_masks(tmp_path)
    assert {p.mask.path.suffix for p in (*found.train, *found.val)} == {".png"}


def test_masks_of_0_and_1_among_those_of_0_and_255(tmp_path):
    found = read_masks(mask_set(tmp_path, lambda p, i: mask(p, HARD * (255 if i % 2 else 1))))
    for pair in (*found.train, *found.val):
        np.testing.assert_array_equal(full_mask(pair), HARD)
    assert "some masks hold 0 and 1, others 0 and 255" in remarks(found)


def test_a_class_that_lies_between_all_others_may_be_void(tmp_path):
    """As CamVid's twelfth: remarked, not decided."""
    ids = np.repeat(np.arange(4, dtype="uint8"), 16)[None].repeat(48, 0)
    ids[24:] = ids[24:, ::-1]
    ids[:, 15::16] = 4
    mask_set(tmp_path, lambda p, i: mask(p, ids))
    assert (
        "class 4 lies in thin lines between all others, as void does: if it is, say --void 4"
        in (remarks(read_masks(tmp_path)))
    )
    assert "lies in thin lines" not in remarks(read_masks(tmp_path, void=4))


def test_labels_that_begin_with_labelmes_ignore(tmp_path):
    text(tmp_path / "labels.txt", "__ignore__\n_background_\nthing\n")
    found = read_masks(mask_set(tmp_path, lambda p, i: mask(p, HARD)))
    assert found.labels == ("_background_", "thing")


# Images


def odd_exif(tag: int, kind: int, count: int, value: bytes) -> bytes:
    """Orientation 6 and one tag more, as bytes."""
    return (
        b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 2)
        + struct.pack(">HHIHH", 0x112, 3, 1, 6, 0)
        + struct.pack(">HHII", tag, kind, count, 38) + b"\0\0\0\0" + value
    )  # fmt: skip


EXIF = {
    "negative resolution": odd_exif(0x11A, 10, 1, struct.pack(">ii", -5, 0)),
    "endless exposure": odd_exif(0x8298, 5, 2, struct.pack(">IIII", 1, 0, 1, 0)),
    "no number": odd_exif(0x11A, 11, 1, struct.pack(">f", float("nan"))),
    "cut off": odd_exif(0x11A, 5, 1000, b""),
}


@pytest.mark.parametrize("name", EXIF)
def test_odd_exif_ends_no_task(name, tmp_path):
    """The photo is read, and turned as its EXIF says."""
    for i in range(5):
        image(tmp_path / "images" / f"{i}.jpg")
        mask(tmp_path / "masks" / f"{i}.png")
        text(tmp_path / "labels" / f"{i}.txt", f"{i % 2} .5 .5 .2 .4\n")
    photo = tmp_path / "images" / "0.jpg"
    Image.new("RGB", (64, 48), "red").save(photo, exif=EXIF[name])
    boxes = read_boxes(tmp_path)
    assert {e.size for e in (*boxes.train, *boxes.val) if e.path == photo} == {(64, 48)}
    masks = read_masks(tmp_path)
    assert len(masks.train) + len(masks.val) == 5


def test_any_exception_of_a_decoder_is_an_issue(tmp_path, monkeypatch):
    for kind in "ab":
        for i in range(3):
            image(tmp_path / kind / f"{i}.jpg")
    image(tmp_path / "a" / "bad.webp")
    monkeypatch.setattr(
        "PIL.WebPImagePlugin.WebPImageFile.load", lambda self: {}["no such key"], raising=True
    )
    assert "bad.webp: damaged ('no such key'): left out" in remarks(read_dataset(tmp_path))


def test_suffixes_are_read_or_listed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    for kind in "ab":
        for i in range(3):
            image(tmp_path / kind / f"{i}.png")
    read = {
        "e.jpe": "JPEG",
        "f.JFIF": "JPEG",
        "m.mpo": "JPEG",
        "j.jp2": "JPEG2000",
        "v.avif": "AVIF",
    }
    for name, form in read.items():
        image(tmp_path / "a" / name, format=form)
    heif = pillow_heif.from_pillow(Image.open(image(tmp_path / "x.png")))
    heif.save(tmp_path / "a" / "h.heic")
    (tmp_path / "x.png").unlink()
    Image.open(tmp_path / "a" / "0.png").convert("L").save(tmp_path / "a" / "bare", format="PNG")
    for name in ("raw.CR2", "film.mp4", "drawing.svg"):
        (tmp_path / "a" / name).write_bytes(b"x")
    dataset = read_dataset(tmp_path)
    names = {path.name for path in (*dataset.train.paths, *dataset.val.paths)}
    assert names >= {*read, "h.heic", "bare"}
    assert "raw.CR2: is a raw photo (.cr2) that kzoo does not read: left out" in remarks(dataset)
    assert "film.mp4: is a video (.mp4) that kzoo does not read: left out" in remarks(dataset)
    with pytest.raises(BadImageError, match=r"^a video \(.mp4\) that kzoo does not read$"):
        read_image(tmp_path / "a" / "film.mp4", 32)
    assert "drawing.svg" in remarks(dataset)
    assert "3 issues" in str(dataset)


GREY = np.tile(np.linspace(0, 1, 64, dtype="float32"), (64, 1))
DEPTHS = {
    "float in [0, 1]": GREY,
    "float in [0, 255]": GREY * 255,
    "8 bits in 16": (GREY * 255).astype("uint16"),
    "8 bits in 32": (GREY * 255).astype("int32"),
    "10 bits": (GREY * 1023).astype("uint16"),
    "12 bits": (GREY * 4095).astype("uint16"),
    "16 bits": (GREY * 65535).astype("uint16"),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_values_of_more_bits_are_scaled(name, tmp_path):
    Image.fromarray(DEPTHS[name]).save(tmp_path / "a.tif")
    got = read_image(tmp_path / "a.tif", 64)[..., 0].astype(int)
    assert np.abs(got - np.round(GREY * 255)).max() <= 1


@pytest.mark.parametrize("values", [GREY * 1e9, GREY - 3, GREY * np.nan])
def test_values_that_nobody_can_read_are_refused(values, tmp_path):
    Image.fromarray(values.astype("float32")).save(tmp_path / "a.tif")
    for kind in "ab":
        for i in range(3):
            image(tmp_path / kind / f"{i}.png")
    (tmp_path / "a.tif").rename(tmp_path / "a" / "a.tif")
    assert "a.tif: holds values" in remarks(read_dataset(tmp_path))


def test_large_photos_are_decoded_small(tmp_path):
    """108 megapixels: more than Pillow opens without a warning, and a fraction of it in memory."""
    Image.new("RGB", (12000, 9000), "red").save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", 64).shape == (64, 64, 3)


def test_many_images_beside_the_classes_are_one_issue(tmp_path):
    for kind in "ab":
        for i in range(3):
            image(tmp_path / "train" / kind / f"{i}.png")
            image(tmp_path / "test" / f"{kind}{i}.png")
    dataset = read_dataset(tmp_path)
    assert [str(x).split(": ")[1:] for x in dataset.issues] == [
        ["stands beside the class folders", "left out (6 in all)"]
    ]


def test_a_class_in_another_case(tmp_path):
    for i in range(3):
        image(tmp_path / "train" / "Cat" / f"{i}.png")
        image(tmp_path / "train" / "dog" / f"{i}.png")
        image(tmp_path / "val" / "cat" / f"{i}.png")
        image(tmp_path / "val" / "dog" / f"{i}.png")
    dataset = read_dataset(tmp_path)
    assert dataset.labels == ("Cat", "dog")
    assert dataset.val.targets.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_data_yaml_stands_for_its_folder_and_one_image_of_two_entries(tmp_path):
    as_yolo(tmp_path / "yolo")
    assert boxes_of(read_boxes(tmp_path / "yolo" / "data.yaml")) == expected()
    as_coco(tmp_path / "coco")
    file = tmp_path / "coco" / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["images"].append(content["images"][0] | {"id": 77})
    content["annotations"][1]["image_id"] = 77
    file.write_text(json.dumps(content))
    dataset = read_boxes(tmp_path / "coco")
    assert boxes_of(dataset) == expected()
    assert "a.jpg: is listed twice in instances_train.json: read as one" in remarks(dataset)


# The same image twice


def test_the_same_bytes_in_two_classes_splits_or_rows(tmp_path):
    for s in ("train", "val"):
        for kind in "ab":
            for i in range(3):
                image(tmp_path / "x" / s / kind / f"{i}.png")
    content = (tmp_path / "x" / "train" / "a" / "0.png").read_bytes()
    (tmp_path / "x" / "train" / "b" / "9.png").write_bytes(content)
    (tmp_path / "x" / "val" / "a" / "9.png").write_bytes(content)
    (tmp_path / "x" / "train" / "a" / "8.png").write_bytes(content)  # no harm
    found = remarks(read_dataset(tmp_path / "x"))
    assert "b/9.png: is the same image as" in found
    assert "val/a/9.png: is the same image as" in found
    assert "8.png" not in found

    as_yolo(tmp_path / "y")
    (tmp_path / "y" / "images" / "val" / "d.jpg").write_bytes(
        (tmp_path / "y" / "images" / "train" / "c.jpg").read_bytes()
    )
    assert "which is in train (this one in val)" in remarks(read_boxes(tmp_path / "y"))


def test_an_image_of_two_classes_in_one_table_is_left_out(tmp_path):
    for i in range(4):
        image(tmp_path / f"{i}.png")
    text(tmp_path / "x.csv", "file,label\n0.png,a\n0.png,b\n1.png,a\n2.png,b\n3.png,a\n3.png,a\n")
    dataset = read_dataset(tmp_path / "x.csv")
    assert "0.png: is 'a' and 'b' in x.csv: left out" in remarks(dataset)
    assert "0.png" not in {path.name for path in (*dataset.train.paths, *dataset.val.paths)}


def test_a_tree_without_permission_or_a_broken_link(tmp_path):
    for kind in "ab":
        for i in range(3):
            image(tmp_path / kind / f"{i}.png")
    os.symlink(tmp_path / "gone.png", tmp_path / "a" / "link.png")
    assert "link.png: missing: left out" in remarks(read_dataset(tmp_path))


def test_mutated_files_are_read_or_told():
    """A short form of tests/bench/mutate_data.py: none of 400 ends in another error, or hangs."""
    rows = mutate_data.run(200, seed=7)
    assert sum(row["n"] for row in rows) == 400
    assert [row for row in rows if row["crash"] or row["hang"]] == []


@pytest.mark.parametrize(
    ("subset", "told"), [("foo", True), ("default", False), ("", False), ("Test-2", False)]
)
def test_subsets_of_cvat(subset, told, tmp_path):
    file = LAYOUTS["cvat"](tmp_path) / "annotations.xml"
    file.write_text(file.read_text().replace('<image id="0"', f'<image id="0" subset="{subset}"'))
    issues = [issue.reason for issue in read_boxes(tmp_path).issues]
    assert any("images of the subset 'foo', which is neither" in one for one in issues) is told


def test_a_run_within_the_data_is_not_read_as_data(tmp_path):
    """The images and files that a run leaves are made of the data."""
    for label in ("cats", "dogs"):
        for i in range(3):
            image(tmp_path / "photos" / label / f"{i}.jpg", (32, 32))
    before = read_dataset(tmp_path / "photos")
    for run in ("run", "runs/photos", "cats/run"):
        folder = tmp_path / "photos" / run
        image(folder / "predictions.png", (64, 64))
        image(folder / "predicted" / "0.jpg", (32, 32))
        text(folder / "labels.txt", "cats\ndogs\n")
        text(folder / "config.json", '{"task": "classify", "data": "photos", "labels": []}')
    after = read_dataset(tmp_path / "photos")
    assert after.labels == before.labels
    assert [*after.train.paths, *after.val.paths] == [*before.train.paths, *before.val.paths]
    assert [issue.path.name for issue in after.issues] == ["runs"]  # a class without images
    text(folder / "config.json", "{}")  # of another program
    assert len(read_dataset(tmp_path / "photos").train) > len(before.train)
