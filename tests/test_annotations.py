"""Reading annotated images: the same boxes from every format, and every issue told."""

import json
from pathlib import Path, PurePath

import numpy as np
import pytest
from PIL import Image

from kzoo.recipes.data.box_dataset import read_boxes
from kzoo.recipes.data.images import read_image
from kzoo.recipes.data.packing import pack
from kzoo.recipes.inspection.inspection import inspect_data

CARDS = Path(__file__).parents[2] / "shared" / "data" / "cards"
HEIGHT, WIDTH = 40, 80
# Of image 0 a cat and a dog, of image 1 a dog, of 2 nothing; and four more cats and dogs.
BOXES = {
    0: [("cat", (4, 8, 20, 40)), ("dog", (10, 40, 30, 72))],
    1: [("dog", (0, 0, 40, 80))],
    2: [],
    **{i: [(kind, (10, 20, 30, 60))] for i, kind in enumerate(("cat", "dog", "cat", "dog"), 3)},
}


def write_images(folder: Path, numbers=BOXES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in numbers:
        Image.new("RGB", (WIDTH, HEIGHT), (i * 20, 90, 90)).save(folder / f"{i}.png")
    return folder


def voc(folder: Path) -> Path:
    write_images(folder / "images")
    (folder / "annotations").mkdir()
    for i, objects in BOXES.items():
        inside = "".join(
            f"<object><name>{kind}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for kind, (y0, x0, y1, x1) in objects
        )
        (folder / "annotations" / f"{i}.xml").write_text(
            f"<annotation><filename>{i}.png</filename><size><width>{WIDTH}</width>"
            f"<height>{HEIGHT}</height></size>{inside}</annotation>"
        )
    return folder


def coco_content() -> dict:
    images = [
        {"id": 7 * i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in BOXES
    ]
    annotations = [
        {"id": 1, "image_id": 7 * i, "category_id": {"cat": 1, "dog": 2}[kind],
         "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for i, objects in BOXES.items()
        for kind, (y0, x0, y1, x1) in objects
    ]  # fmt: skip
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(folder: Path, content: dict | None = None) -> Path:
    write_images(folder / "images")
    (folder / "instances.json").write_text(json.dumps(content or coco_content()))
    return folder


def yolo(folder: Path) -> Path:
    write_images(folder / "images")
    (folder / "labels").mkdir()
    (folder / "data.yaml").write_text("path: .\nnc: 2\nnames:\n  0: cat\n  1: 'dog'  # barks\n")
    for i, objects in BOXES.items():
        lines = [
            f"{('cat', 'dog').index(kind)} {(x0 + x1) / 2 / WIDTH} {(y0 + y1) / 2 / HEIGHT} "
            f"{(x1 - x0) / WIDTH} {(y1 - y0) / HEIGHT}\n"
            for kind, (y0, x0, y1, x1) in objects
        ]
        (folder / "labels" / f"{i}.txt").write_text("".join(lines))
    return folder


def table(folder: Path) -> Path:
    write_images(folder)
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for i, objects in BOXES.items():
        for kind, (y0, x0, y1, x1) in objects or [("", ("",) * 4)]:
            lines.append(f"{i}.png,{WIDTH},{HEIGHT},{kind},{x0},{y0},{x1},{y1}")
    (folder / "boxes.csv").write_text("\n".join(lines))
    return folder


FORMATS = {"voc": voc, "coco": coco, "yolo": yolo, "csv": table}


def by_name(dataset) -> dict[str, list]:
    """Classes and boxes in px, by image."""
    sides = [HEIGHT, WIDTH, HEIGHT, WIDTH]
    return {
        PurePath(e.path.name).stem: sorted(
            (
                dataset.labels[k],
                *np.round(box * sides).astype(int).tolist(),
            )
            for box, k in zip(e.boxes, e.labels, strict=True)
        )
        for e in (*dataset.train, *dataset.val)
    }


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_the_same(name, tmp_path):
    dataset = read_boxes(FORMATS[name](tmp_path))
    assert dataset.format == name
    assert dataset.labels == ("cat", "dog")
    assert by_name(dataset) == {
        str(i): sorted((kind, *box) for kind, box in objects) for i, objects in BOXES.items()
    }
    assert dataset.issues == ()
    assert len(dataset.val) == 1  # a fifth of seven
    again = read_boxes(tmp_path, seed=0)
    assert [e.path for e in again.val] == [e.path for e in dataset.val]
    assert any(
        [e.path for e in read_boxes(tmp_path, seed=s).val] != [e.path for e in dataset.val]
        for s in range(1, 5)
    )


def test_names_of_yolo_in_every_form(tmp_path):
    yolo(tmp_path)
    for text in ("names: [cat, 'dog']\n", 'names:\n- cat\n- "dog"\nval: x\n'):
        (tmp_path / "data.yaml").write_text(text)
        assert read_boxes(tmp_path).labels == ("cat", "dog")
    (tmp_path / "data.yaml").unlink()
    assert read_boxes(tmp_path).labels == ("class 0", "class 1")
    (tmp_path / "classes.txt").write_text("Katze\nHund\n")
    assert read_boxes(tmp_path).labels == ("Katze", "Hund")
    (tmp_path / "labels" / "6.txt").write_text("1 .1 .1 .4 .1 .4 .5 .1 .5\n")  # an outline
    outline = next(e for e in read_boxes(tmp_path).train if e.path.stem == "6")
    np.testing.assert_allclose(outline.boxes, [[0.1, 0.1, 0.5, 0.4]])


def test_splits_are_found_in_names(tmp_path):
    for part, numbers in (("train", range(5)), ("valid", (5, 6))):
        write_images(tmp_path / part / "images", numbers)
        (tmp_path / part / "labels").mkdir()
        for i in numbers:
            (tmp_path / part / "labels" / f"{i}.txt").write_text(f"{i % 2} .5 .5 .2 .2\n")
    dataset = read_boxes(tmp_path)
    assert [e.path.stem for e in dataset.val] == ["5", "6"]
    assert len(dataset.train) == 5

    sets = voc(tmp_path / "other") / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("0\n1 1\n3\n4\n")
    (sets / "val.txt").write_text("2\n5\n6\n")
    assert [e.path.stem for e in read_boxes(tmp_path / "other").val] == ["2", "5", "6"]


@pytest.mark.parametrize("packed", [False, True])
def test_crowds_and_difficult_objects_are_kept_for_measuring(tmp_path, packed):
    content = coco_content()
    more = {"bbox": [0, 0, 50, 5], "iscrowd": 1}
    content["annotations"].append({"image_id": 7, "category_id": 1, **more})
    dataset = read_boxes(coco(tmp_path / "coco", content))
    plain = read_boxes(coco(tmp_path / "plain"))
    if packed:
        pytest.importorskip("array_record")
        pack(tmp_path / "coco", tmp_path / "packed", task="detect")
        dataset = read_boxes(tmp_path / "packed", format="coco")
        assert "is packed, and read so: format coco" in remarks(dataset)
    assert by_name(dataset) == by_name(plain)
    (crowds,) = [e.crowds for e in (*dataset.train, *dataset.val) if len(e.crowds[1])]
    np.testing.assert_allclose(
        crowds[0] * [HEIGHT, WIDTH, HEIGHT, WIDTH], [[0, 0, 5, 50]], atol=1e-4
    )


def test_difficult_objects_of_voc(tmp_path):
    folder = voc(tmp_path)
    file = next(iter(sorted(folder.rglob("*.xml"))))
    text = file.read_text()
    file.write_text(text.replace("</object>", "<difficult>1</difficult></object>", 1))
    dataset = read_boxes(folder)
    counted = [e.counted for e in (*dataset.train, *dataset.val) if not e.counted.all()]
    assert [int((~own).sum()) for own in counted] == [1]
    assert "1 objects are difficult: neither right nor false when measured" in remarks(dataset)


def remarks(dataset) -> str:
    return "\n".join(map(str, dataset.issues))


def test_issues_of_boxes(tmp_path):
    content = coco_content()
    extra = [
        (0, 1, [8, 4, 32, 16], {}),  # the cat again
        (0, 1, [60, 20, 40, 40], {}),  # beyond the lower right corner
        (0, 1, [90, 10, 10, 10], {}),  # outside altogether
        (1, 1, [10, 10, 0, 10], {}),
        (1, 9, [10, 10, 5, 5], {}),
        (99, 1, [0, 0, 5, 5], {}),
        (1, 1, [0, 0, 50, 5], {"iscrowd": 1}),
    ]
    for image, category, box, more in extra:
        content["annotations"].append(
            {"image_id": 7 * image, "category_id": category, "bbox": box, **more}
        )
    content["images"].append({"id": 1000, "file_name": "lost.png"})
    content["categories"].append({"id": 5, "name": "unicorn"})
    coco(tmp_path, content)
    write_images(tmp_path / "images", [12])
    dataset = read_boxes(tmp_path)
    for expected in (
        "0.png: 1 objects twice: left out",
        "0.png: 2 boxes reach outside the image: cut off",
        "0.png: 1 boxes without an area: left out",
        "1.png: 1 boxes without an area: left out",
        "1.png: 1 objects of unknown class 'category 9': left out",
        "1 objects on images that it does not name: left out",
        "1 crowds: not trained on, neither right nor false when measured",
        "its image 'lost.png' is missing: left out",
        "12.png: has no annotation: left out",
        "category ids have gaps (1 to 5)",
        "class 'unicorn' has no object to train on",
    ):
        assert expected in remarks(dataset)
    assert by_name(dataset)["0"] == [
        ("cat", 4, 8, 20, 40), ("cat", 20, 60, 40, 80), ("dog", 10, 40, 30, 72),
    ]  # fmt: skip
    assert "11 issues" in str(dataset)


def test_broken_files_say_where(tmp_path):
    voc(tmp_path / "voc")
    folder = tmp_path / "voc" / "annotations"
    (folder / "3.xml").write_text("<annotation>\n  <filename>3.png</filename>\n  <object></annot")
    text = (folder / "4.xml").read_text()
    (folder / "4.xml").write_text(text.replace("<ymin>10</ymin>", "<ymin>ten</ymin>"))
    (tmp_path / "voc" / "images" / "5.png").write_bytes(b"")
    dataset = read_boxes(tmp_path / "voc")
    assert "3.xml: broken at line 3, column" in remarks(dataset)
    assert "4.xml: object 1 has no name or no box of four numbers: ['ten', '20'" in remarks(dataset)
    assert "5.png: empty: left out" in remarks(dataset)
    assert "3.png: has no annotation: left out" in remarks(dataset)
    assert set(by_name(dataset)) == {"0", "1", "2", "6"}

    yolo(tmp_path / "yolo")
    (tmp_path / "yolo" / "labels" / "4.txt").write_text("0 .5 .5 .1 .1\n1 .5 .5\n")
    assert "4.txt: broken at line 2: '1 .5 .5'" in remarks(read_boxes(tmp_path / "yolo"))

    coco(tmp_path / "coco")
    (tmp_path / "coco" / "instances.json").write_text('{"annotations": [],\n "images": [}')
    with pytest.raises(ValueError, match=r"instances.json is broken at line 2, column 13"):
        read_boxes(tmp_path / "coco")
    (tmp_path / "coco" / "instances.json").write_text('{"annotations": [], "images": []}')
    with pytest.raises(ValueError, match="is not a COCO file: KeyError 'categories'"):
        read_boxes(tmp_path / "coco")

    table(tmp_path / "csv")
    file = tmp_path / "csv" / "boxes.csv"
    file.write_text(file.read_text() + "\n3.png,80,40,cat,1,2,three,4")
    with pytest.raises(ValueError, match=r"boxes.csv, line 10: a box is four numbers"):
        read_boxes(tmp_path / "csv")


def test_coco_objects_without_a_box_are_counted(tmp_path):
    """Mask and keypoint exports have objects with an empty bbox, or with none."""
    content = coco_content()
    own = {"image_id": 7, "category_id": 1}
    for i, bbox in enumerate(([], ["a", 1, 2, 3], [1, 2, 3], None, [1, 2, 3, float("nan")]), 50):
        content["annotations"].append({"id": i, "bbox": bbox, **own})
    content["annotations"] += [own, {**own, "bbox": [1, 1, 9, 9], "category_id": "?"}]
    dataset = read_boxes(coco(tmp_path, content))
    assert (
        "instances.json: 6 objects have no box of four numbers (first: annotation 50): left out"
    ) in remarks(dataset)
    assert "1.png: 1 objects of unknown class 'category ?': left out" in remarks(dataset)
    assert by_name(dataset)["1"] == [("dog", 0, 0, 40, 80)]


def append(file: Path, more: bytes) -> None:
    file.write_bytes(file.read_bytes() + more)


NOT_READ = {
    "coco of bytes": (
        coco, lambda d: (d / "instances.json").write_bytes(
            b'{"annotations": "images' + b'\x00\xff' * 300 + b'"}"images"'
        ),
        r"instances\.json is not a text file",
    ),
    "coco without numbers": (
        coco, lambda d: (d / "instances.json").write_text(
            '{"annotations": [], "images": [], "categories": [{"id": "x", "name": "cat"}]}'
        ),
        r"instances\.json is not a COCO file: ValueError .*'x'",
    ),
    "coco of texts": (
        coco, lambda d: (d / "instances.json").write_text(
            '{"annotations": ["a"], "images": [], "categories": []}'
        ),
        r"instances\.json is not a COCO file: AttributeError",
    ),
    "csv with an endless field": (
        table, lambda d: append(d / "boxes.csv", b"\n" + b"9" * 140_000),
        r"boxes\.csv is not valid CSV after line 9: field larger",
    ),
    "csv of odd sizes": (
        table, lambda d: append(d / "boxes.csv", b"\n3.png,wide,40,cat,1,2,3,4"),
        r"boxes\.csv, line 10: height and width are numbers, not \['40', 'wide'\]",
    ),
    "names of yolo": (
        yolo, lambda d: (d / "data.yaml").write_text("names: [cat, [dog]]"),
        r"data\.yaml: names must be a list, or numbers with a name each\. Received: 1: \['dog'\]",
    ),
    "data.yaml of yolo": (
        yolo, lambda d: (d / "data.yaml").write_text("names: [cat, dog"),
        r"data\.yaml is broken at line 2, column 1",
    ),
    "two data.yaml of yolo": (
        yolo, lambda d: ((d / "data.yaml").rename(d / "a.yaml"),
                         (d / "b.yaml").write_text("names: [dog, cat]")),
        r"a\.yaml and .*b\.yaml list different classes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_READ)
def test_a_file_that_cannot_be_read_is_named(name, tmp_path):
    make, spoil, message = NOT_READ[name]
    make(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_boxes(tmp_path)


def test_lists_of_voc_may_hold_empty_lines_and_must_be_text(tmp_path):
    """Here val.txt alone: what it does not name is trained on."""
    sets = voc(tmp_path) / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (sets / "val.txt").write_text("2\n \n5\n")
    assert [e.path.stem for e in read_boxes(tmp_path).val] == ["2", "5"]
    (sets / "val.txt").write_bytes(b"\x00\xff\x00\x00" * 9)
    with pytest.raises(ValueError, match=r"val\.txt is not a text file"):
        read_boxes(tmp_path)


def test_files_of_one_image_that_cannot_be_read_are_left_out(tmp_path):
    folder = voc(tmp_path / "voc") / "annotations"
    (folder / "3.xml").write_text('<?xml version="1.0" encoding="klingon"?><annotation/>')
    (folder / "4.xml").write_text((folder / "4.xml").read_text().replace(">80<", ">wide<"))
    dataset = read_boxes(tmp_path / "voc")
    assert "3.xml: unknown encoding: klingon: left out" in remarks(dataset)
    assert "4.xml: the height and width of its size are not numbers: ['40', 'wide']" in remarks(
        dataset
    )

    folder = yolo(tmp_path / "yolo") / "labels"
    (folder / "3.txt").write_text("1e999 .5 .5 .1 .1\n")
    (folder / "4.txt").write_text("0 .5 .5 .1 .1\n" * 20 + "0 .5 .5 .1 wide\n")
    (folder / "5.txt").write_text("1e12 .5 .5 .1 .1\n")
    dataset = read_boxes(tmp_path / "yolo")
    for words in ("3.txt: broken at line 1", "4.txt: broken at line 21", "5.txt: broken at line 1"):
        assert words in remarks(dataset)


@pytest.mark.parametrize("name", ["voc", "coco", "yolo"])
def test_the_name_of_a_image_is_no_split(name, tmp_path):
    """Of seven images one is called val thorens: it would be all there is to validate on."""
    FORMATS[name](tmp_path)
    for path in sorted(tmp_path.rglob("0.*")):
        path.rename(path.with_stem("val thorens"))
    for path in tmp_path.rglob("*"):
        if path.suffix in (".json", ".xml"):
            path.write_text(path.read_text().replace("0.png", "val thorens.png"))
    splits = {tuple(e.path.stem for e in read_boxes(tmp_path, seed=s).val) for s in range(8)}
    assert len(splits) > 1


@pytest.mark.parametrize("slash", ["/", "\\"])
def test_folders_and_names_of_whole_files_split(slash, tmp_path):
    """A COCO image's folder, and the name of a COCO file, still do."""
    content = coco_content()
    write_images(tmp_path / "one" / "val2017", [5, 6])
    write_images(tmp_path / "one" / "train2017", range(5))
    for image in content["images"]:
        part = "val2017" if image["file_name"] in ("5.png", "6.png") else "train2017"
        image["file_name"] = f"{part}{slash}{image['file_name']}"
    (tmp_path / "one" / "all.json").write_text(json.dumps(content))
    assert [e.path.stem for e in read_boxes(tmp_path / "one").val] == ["5", "6"]

    two = write_images(tmp_path / "two")
    whole = coco_content()
    for part, chosen in (("train", whole["images"][:5]), ("val", whole["images"][5:])):
        ids = [image["id"] for image in chosen]
        own = [item for item in whole["annotations"] if item["image_id"] in ids]
        content = {**whole, "images": chosen, "annotations": own}
        (two / f"instances_{part}2017.json").write_text(json.dumps(content))
    assert [e.path.stem for e in read_boxes(two).val] == ["5", "6"]


def test_from_train_alone_some_are_drawn(tmp_path):
    yolo(tmp_path / "train")
    first, other = (read_boxes(tmp_path, seed=seed) for seed in (0, 1))
    assert (len(first.train), len(first.val)) == (6, 1)
    assert first.val[0].path != other.val[0].path


def test_a_val_of_missing_images_is_no_lack_of_one(tmp_path):
    """Its objects were given to validate on: nothing else stands in for them unasked."""
    yolo(tmp_path / "train")
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "lost.txt").write_text("0 .5 .5 .1 .1\n")
    with pytest.raises(ValueError, match=r"no image to validate on\. First of .*'lost' is missing"):
        read_boxes(tmp_path)


def test_images_without_annotations_cost_no_search(tmp_path, monkeypatch):
    """600 of them beside 7 annotated ones: in a list that was 4,200 comparisons."""
    coco(tmp_path)
    for i in range(600):
        (tmp_path / f"more{i}.png").touch()
    compared = 0
    equal = PurePath.__eq__

    def counted(self, other):
        nonlocal compared
        compared += 1
        return equal(self, other)

    monkeypatch.setattr(PurePath, "__eq__", counted)
    dataset = read_boxes(tmp_path)
    assert remarks(dataset).count("has no annotation: left out") == 600
    assert compared < 600


def test_boxes_turn_with_the_image(tmp_path):
    """The same scene, stored in each of EXIF's eight ways: the box is on the white patch."""
    upright = np.zeros((30, 50), "uint8")
    upright[3:12, 5:20] = 255
    ways = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: upright.T[::-1], 7: upright.T[::-1, ::-1], 8: upright.T[:, ::-1],
    }  # fmt: skip
    lines = ["file,width,height,label,ymin,xmin,ymax,xmax"]
    for turn, stored in ways.items():
        exif = Image.Exif()
        exif[0x0112] = turn
        Image.fromarray(stored).convert("RGB").save(tmp_path / f"{turn}.png", exif=exif)
        ys, xs = np.nonzero(stored)
        box = f"{ys.min()},{xs.min()},{ys.max() + 1},{xs.max() + 1}"
        lines.append(f"{turn}.png,{stored.shape[1]},{stored.shape[0]},patch,{box}")
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    dataset = read_boxes(tmp_path)
    for example in (*dataset.train, *dataset.val):
        if example.path.stem in "1 5 6 7 8":  # of the rest no size says which way it was drawn
            assert example.size == (30, 50)
            np.testing.assert_allclose(
                example.boxes, [[3 / 30, 5 / 50, 12 / 30, 20 / 50]], atol=1e-6
            )
            seen = read_image(example.path, 100)[..., 0]
            y0, x0, y1, x1 = (example.boxes[0] * 100).astype(int)
            assert seen[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3].min() > 250
    assert remarks(dataset).count("boxes turned with the image") == 4


def test_counts_from_one_and_other_sizes(tmp_path):
    voc(tmp_path)
    for file in (tmp_path / "annotations").iterdir():
        text = file.read_text().replace("<xmin>0<", "<xmin>1<").replace("<ymin>0<", "<ymin>1<")
        file.write_text(text)
    dataset = read_boxes(tmp_path)
    assert "boxes begin at 1: read as pixels counted from 1" in remarks(dataset)
    assert by_name(dataset)["1"] == [("dog", 0, 0, 40, 80)]
    file = tmp_path / "annotations" / "1.xml"
    file.write_text(file.read_text().replace("<width>80", "<width>160"))
    assert "1.png: its annotation is of 160 x 40 px, the image has 80 x 40: boxes scaled" in (
        remarks(read_boxes(tmp_path))
    )


def test_nothing_to_learn_from_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"There is no .*nowhere"):
        read_boxes(tmp_path / "nowhere")
    write_images(tmp_path / "bare")
    with pytest.raises(ValueError, match=r"holds no annotations that kzoo reads \(coco: json"):
        read_boxes(tmp_path / "bare")
    with pytest.raises(
        ValueError,
        match=r"format must be one of coco, voc, yolo, csv, cvat, labelme, createml\. Received",
    ):
        read_boxes(tmp_path / "bare", format="xml")
    voc(tmp_path / "voc")
    for file in (tmp_path / "voc" / "images").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"no object to train on. First of 9 issues: .*0.xml"):
        read_boxes(tmp_path / "voc")


OWN_EXPORTS = {
    "Label Studio": {
        "a.json": '[{"id": 1, "annotations": [{"result": [{"type": "rectanglelabels"}]}], '
        '"data": {"image": "/data/upload/1/a.jpg"}}]'
    },
    "Label Studio in": {"a.csv": 'image,label\n/data/a.jpg,"[{""rectanglelabels"": [""cat""]}]"\n'},
    "VGG Image Annotator": {"via.csv": "filename,region_shape_attributes,region_attributes\n"},
}


@pytest.mark.parametrize("program", OWN_EXPORTS)
def test_what_a_program_should_export_instead_is_told(program, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.jpg")
    for name, content in OWN_EXPORTS[program].items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"is an export of {program} .*: export .* as COCO"):
        read_boxes(tmp_path)
    with pytest.raises(ValueError, match=rf"is an export of {program} "):
        inspect_data(tmp_path)


@pytest.mark.skipif(not CARDS.is_dir(), reason="the photos of cards are not on this machine")
def test_real_photos():
    """github.com/EdjeElectronics' playing cards: 296 photos of six kinds."""
    dataset = read_boxes(CARDS)
    assert dataset.labels == ("ace", "jack", "king", "nine", "queen", "ten")
    assert (len(dataset.train), len(dataset.val)) == (237, 59)


def polygon(x0, y0, x1, y1):
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


@pytest.mark.parametrize("tells", ["area", "outline"])
@pytest.mark.parametrize("corners", [True, False])
def test_coco_boxes_that_are_two_corners(corners, tells, tmp_path):
    content = coco_content()
    for item in content["annotations"]:
        x, y, w, h = item["bbox"]
        item |= {"area": w * h} if tells == "area" else {
            "area": w * h / 2, "segmentation": polygon(x, y, x + w, y + h)
        }  # fmt: skip
        item["bbox"] = [x, y, x + w, y + h] if corners else item["bbox"]
    found = read_boxes(coco(tmp_path / "a", content))
    plain = read_boxes(coco(tmp_path / "b"))
    for one, other in zip(found.train, plain.train, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-6)
    told = [issue for issue in found.issues if "read as corners" in issue.reason]
    assert len(told) == corners


def test_coco_areas_of_outlines_that_are_not_given_say_nothing_of_boxes(tmp_path):
    content = coco_content()
    for item in content["annotations"]:
        item["area"] = 0.7 * item["bbox"][2] * item["bbox"][3]
    assert read_boxes(coco(tmp_path, content)).issues == read_boxes(coco(tmp_path / "b")).issues
