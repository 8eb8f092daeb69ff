"""`kzoo inspect`: what is understood of a data set, the same from every format it comes in."""

import json
from pathlib import Path

import data_sets
import numpy as np
import pytest
from data_sets import LAYOUTS, SCENE, as_yolo, image, labels_of, text
from PIL import Image

from kzoo.recipes.cli import main
from kzoo.recipes.data import read_boxes, read_dataset, read_masks
from kzoo.recipes.data.masks.pairs import full_mask
from kzoo.recipes.inspection.inspection import inspect_data
from kzoo.recipes.inspection.page import write_inspection

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="shared/data is not on this machine")


def examples(found: dict, key: str) -> dict[str, list]:
    """{split/stem: what is on it}; names of whole sets hold their split."""
    items = {}
    for item in found["items"]:
        stem = Path(item["path"]).stem.removeprefix(f"{item['split']}_")
        items[f"{item['split']}/{stem}"] = item[key]
    return items


@pytest.mark.parametrize("name", LAYOUTS)
def test_items_of_every_format_are_the_same(name, tmp_path, capsys):
    LAYOUTS[name](tmp_path)
    assert main(["inspect", str(tmp_path), "--json", "--items"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["task", "format", "labels", "splits", "issues", "items"]
    assert (found["task"], found["format"]) == ("detect", name)
    assert found["labels"] == ["cat", "dog"]
    assert found["splits"] == {"train": 3, "val": 2, "test": 2}
    assert {k: sorted(boxes) for k, boxes in examples(found, "boxes").items()} == {
        k: sorted([*map(float, box), label] for label, box in own) for k, own in SCENE.items()
    }


def test_json_is_what_is_promised_and_no_page_is_written(tmp_path, capsys, monkeypatch):
    for kind in "ab":
        for i in range(12):
            image(tmp_path / "data" / kind / f"{i}.png", (16, 16))
    (tmp_path / "data" / "a" / "bad.png").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "data", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "task": "classify", "format": "folders", "labels": ["a", "b"],
        "splits": {"train": 20, "val": 4, "test": 0},
        "issues": [
            {"path": "data/a/bad.png", "reason": "not an image that Pillow can read: left out"},
        ],
    }  # fmt: skip
    assert not (tmp_path / "inspect.html").exists()
    assert main(["inspect", "data", "--items", "--json"]) == 0
    assert {"path": "data/a/0.png", "split": "train", "label": "a"} in json.loads(
        capsys.readouterr().out
    )["items"]
    assert main(["inspect", "data"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "data: classify, read as folders",
        "train       20 images",
        "1 issue:",
        "a           10        2",
        "shorter sides of images: 16 to 16 px",
        "To do: Half of the images have sides of 16 px",
        "Page: inspect.html",
    ):
        assert words in shown
    page = (tmp_path / "inspect.html").read_text()
    assert page.count('<img src="data:image/jpeg') == 16
    assert "bad.png" in page


def test_small_uneven_and_missing_things_are_told(tmp_path):
    as_yolo(tmp_path)
    small = "\n".join(f"0 {x / 20} .5 .05 .05" for x in range(1, 20))
    text(tmp_path / "labels" / "train" / "a.txt", small)
    text(tmp_path / "data.yaml", "names: [cat, dog, emu]")
    found = inspect_data(tmp_path, size=160)
    advice = "\n".join(found.advice)
    # .05 of a side is 8 px at 160; 16 px want a size of 320.
    assert (
        "of the objects are smaller than 16 px at 160 px, and will rarely be found: --size 320"
        in advice
    )
    assert "'emu' has no training examples" in advice
    assert "'cat' is 20 times as frequent as 'dog'" in advice
    page = write_inspection(found, tmp_path / "page.html").page
    assert page is not None
    assert "sizes of objects at the net" in page.read_text()


def test_masks_and_near_duplicates(tmp_path):
    for i in range(6):
        image(tmp_path / "images" / f"{i}.png")
        ids = np.zeros((48, 64), "uint8")
        ids[:20] = 1
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(ids).save(tmp_path / "masks" / f"{i}.png")
    found = inspect_data(tmp_path)
    own = next(item for item in found.items if item.split == "val")
    other = next(item for item in found.items if item.split == "train")
    with Image.open(str(other.source)) as picture:  # lighter by a little: other bytes
        lighter = np.asarray(picture) // 2 + 60
    Image.fromarray(lighter.astype("uint8")).save(str(own.source))
    found = inspect_data(tmp_path)
    assert (found.task, found.format) == ("segment", "masks")
    assert f"{own.source}: is nearly the same image as {other.source}" in "\n".join(
        map(str, found.issues)
    )
    item = found.item_as_json(found.items[0])
    assert item["mask"] == str(tmp_path / "masks" / Path(item["path"]).name)
    assert write_inspection(found, tmp_path / "x.html").page


def test_what_is_nothing_to_learn_from_is_told(tmp_path, capsys):
    image(tmp_path / "a.png")
    assert main(["inspect", str(tmp_path)]) == 1
    assert "holds nothing that kzoo can learn from: neither one folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"one of classify, detect, multilabel, segment\. Rec"):
        inspect_data(tmp_path, task="count")
    with pytest.raises(ValueError, match="There is no nowhere"):
        inspect_data("nowhere")


# The photos of shared/data, and the same in other formats


@needs_data
@pytest.mark.parametrize(
    ("name", "task", "form", "splits"),
    [
        ("clothing", "classify", "folders", {"train": 1100, "val": 267, "test": 0}),
        ("cards", "detect", "voc", {"train": 237, "val": 59, "test": 0}),
        ("nuclei", "segment", "masks", {"train": 300, "val": 60, "test": 0}),
    ],
)
def test_inspect_on_real_photos(name, task, form, splits):
    found = inspect_data(DATA / name, near=False)
    assert (found.task, found.format, found.splits) == (task, form, splits)


@needs_data
@pytest.mark.parametrize("name", ["coco", "voc", "yolo", "labelme", "cvat", "createml", "csv"])
def test_real_boxes_are_the_same_from_every_format(name, tmp_path):
    """The cards (Pascal VOC, counted from 1), written anew in each format by tests/data_sets.py."""
    source = read_boxes(DATA / "cards")
    scene: data_sets.Boxes = {}
    sizes = {}
    for split in ("train", "val"):
        for example in getattr(source, split)[:60]:
            key = f"{split}/{example.path.stem}"
            height, width = example.size
            pixels = np.rint(example.boxes * [height, width, height, width]).astype(int)
            scene[key] = [
                (source.labels[k], (x0, y0, x1, y1))
                for k, (y0, x0, y1, x1) in zip(example.labels, pixels.tolist(), strict=True)
            ]
            sizes[key] = (width, height)
            place = PLACES.get(name, "images/{}.jpg").format(
                key.replace("/", "_") if name == "voc" else key
            )
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).symlink_to(example.path)
    LAYOUTS[name](tmp_path, scene, sizes)
    dataset = read_boxes(tmp_path)
    assert dataset.labels == labels_of(scene)
    got = {}
    for split in ("train", "val"):
        for example in getattr(dataset, split):
            sides = [*example.size, *example.size]
            stem = example.path.stem.removeprefix(f"{split}_")
            got[f"{split}/{stem}"] = sorted(
                (dataset.labels[k], tuple(np.rint(box * sides).astype(int)[[1, 0, 3, 2]].tolist()))
                for k, box in zip(example.labels, example.boxes, strict=True)
            )
    assert got == {key: sorted(objects) for key, objects in scene.items()}


PLACES = {"voc": "JPEGImages/{}.jpg", "labelme": "{}.jpg", "createml": "{}.jpg", "csv": "{}.jpg"}


@needs_data
@pytest.mark.parametrize("name", ["files", "rgb", "coco"])
def test_real_masks_are_the_same_from_every_format(name, tmp_path):
    """The nuclei: as they are, as 0 and 255 in RGB called _mask, as run lengths of COCO."""
    source = read_masks(DATA / "nuclei")
    pairs = [("train", p) for p in source.train[:12]] + [("val", p) for p in source.val[:4]]
    wanted = {f"{split}/{pair.image.stem}": full_mask(pair) for split, pair in pairs}
    entries: dict[str, list] = {"train": [], "val": []}
    for split, pair in pairs:
        key = f"{split}/{pair.image.stem}"
        place = tmp_path / "images" / f"{key}{pair.image.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(pair.image)
        entries[split].append((place.name, wanted[key]))
    MASK_WRITERS[name](tmp_path, entries)
    found = read_masks(tmp_path)
    got = {
        f"{split}/{pair.image.stem}": full_mask(pair)
        for split in ("train", "val") for pair in getattr(found, split)
    }  # fmt: skip
    assert got.keys() == wanted.keys()
    for key, ids in wanted.items():
        np.testing.assert_array_equal(got[key], ids)


def write_masks(root: Path, entries: dict[str, list], name: str, mode: str, scale: int) -> None:
    for split, own in entries.items():
        for file, ids in own:
            path = root / "masks" / split / name.format(Path(file).stem)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((ids * scale).astype("uint8")).convert(mode).save(path)


def write_runs(root: Path, entries: dict[str, list]) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    for split, own in entries.items():
        content: dict[str, list] = {"images": [], "annotations": [],
                                    "categories": [{"id": 1, "name": "nucleus"}]}  # fmt: skip
        for i, (file, ids) in enumerate(own):
            height, width = ids.shape
            content["images"].append({"id": i, "file_name": file, "height": height, "width": width})
            runs = coco.encode(np.asfortranarray((ids == 1).astype("uint8")))
            content["annotations"].append(
                {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0,
                 "segmentation": {"size": [height, width], "counts": runs["counts"].decode()}}
            )  # fmt: skip
        text(root / "annotations" / f"{split}.json", json.dumps(content))


MASK_WRITERS = {
    "files": lambda root, entries: write_masks(root, entries, "{}.png", "L", 1),
    "rgb": lambda root, entries: write_masks(root, entries, "{}_mask.png", "RGB", 255),
    "coco": write_runs,
}


@needs_data
def test_real_classes_are_the_same_from_a_table(tmp_path):
    source = read_dataset(DATA / "clothing")
    lines = ["image;category;subset"]
    for split in ("train", "val"):
        part = getattr(source, split)
        for path, target in list(zip(part.paths, part.targets, strict=True))[::5]:
            (tmp_path / "img").mkdir(exist_ok=True)
            (tmp_path / "img" / path.name).symlink_to(path)
            lines.append(f"img\\{path.name};{source.labels[target]};{split}")
    dataset = read_dataset(text(tmp_path / "all.csv", "\n".join(lines)))
    assert dataset.labels == source.labels
    assert (len(dataset.train), len(dataset.val)) == (220, 54)
