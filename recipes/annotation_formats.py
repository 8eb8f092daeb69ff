"""The files that say where objects are: COCO json, Pascal VOC xml, YOLO txt, CSV.

Each format is a pair: `fits` looks whether it is there, `read` gives the classes and one `Raw` for
each picture. A broken file is told by the place where it breaks: of those with one picture each it
is left out, one for all of them raises ValueError.
"""

import csv
import dataclasses
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kzoo.recipes.data import TRAIN, VAL, Defect

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Object:
    label: str
    box: Box  # y_min, x_min, y_max, x_max, in `Raw.size`


@dataclasses.dataclass(frozen=True)
class Raw:
    """One picture's annotation as it is written."""

    source: Path  # the file that it stands in
    picture: str  # the name that it gives
    objects: tuple[Object, ...]
    size: tuple[float, float] | None  # (H, W) that boxes are measured in; None: the picture's px
    split: str | None  # train, val, or None: not given


Found = tuple[tuple[str, ...], list[Raw]]  # classes, pictures


@dataclasses.dataclass(frozen=True)
class Format:
    about: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, list[Defect]], Found]


def split_of(path: Path | str) -> str | None:
    """train or val, where a part of a path says so: train/, instances_val2017.json."""
    for part in reversed(Path(path).parts):
        words = re.split(r"[^a-z]+", part.lower())
        for name, known in (("train", TRAIN), ("val", VAL)):
            if any(word in known for word in words):
                return name
    return None


def within(path: Path, data: Path) -> Path:
    """The path from the data set on: what stands above it says nothing of a split."""
    return path.relative_to(data) if data.is_dir() else Path(path.name)


def files(data: Path, suffix: str) -> list[Path]:
    if data.is_file():
        return [data] if data.suffix.lower() == suffix else []
    return sorted(
        path for path in data.rglob(f"*{suffix}") if not path.name.startswith(".")
    )  # fmt: skip


# Pascal VOC


def has_voc(data: Path) -> bool:
    return any(b"<annotation" in file.read_bytes()[:4096] for file in files(data, ".xml")[:20])


def read_voc(data: Path, defects: list[Defect]) -> Found:
    """One xml per picture. `ImageSets/Main/train.txt` and `val.txt`, where they are, split."""
    lists: dict[str, str] = {}
    for name in ("train", "val"):
        for file in data.rglob(f"ImageSets/Main/{name}.txt"):
            lists.update({line.split()[0]: name for line in file.read_text().split("\n") if line})
    records = []
    for file in files(data, ".xml"):
        try:
            records.append(one_voc(file, lists.get(file.stem) or split_of(within(file, data))))
        except ElementTree.ParseError as error:
            line, column = error.position
            reason = str(error).partition(":")[0]
            defects.append(
                Defect(file, f"broken at line {line}, column {column} ({reason}): left out")
            )
        except ValueError as error:
            defects.append(Defect(file, f"{error}: left out"))
    # The VOC devkit counts pixels from 1, most programs that write its format from 0.
    corners = [item.box[i] for record in records for item in record.objects for i in (0, 1)]
    if corners and min(corners) >= 1 and any(corner == 1 for corner in corners):
        defects.append(Defect(data, "boxes begin at 1: read as pixels counted from 1, as in VOC"))
        records = [from_one(record) for record in records]
    return tuple(sorted({item.label for record in records for item in record.objects})), records


def one_voc(file: Path, split: str | None) -> Raw:
    root = ElementTree.parse(file).getroot()
    if root.tag != "annotation":
        raise ValueError(f"begins with <{root.tag}>, not <annotation>")
    objects = []
    for number, item in enumerate(root.findall("object"), 1):
        values = [item.findtext(f"bndbox/{key}") for key in ("ymin", "xmin", "ymax", "xmax")]
        label = (item.findtext("name") or "").strip()
        try:
            box = tuple(float(value or "") for value in values)
        except ValueError:
            box = ()
        if not label or len(box) != 4:
            raise ValueError(f"object {number} has no name or no box of four numbers: {values}")
        objects.append(Object(label, box))
    sides = [float(root.findtext(f"size/{key}") or 0) for key in ("height", "width")]
    name = (root.findtext("filename") or "").strip() or file.stem
    return Raw(file, name, tuple(objects), (sides[0], sides[1]) if all(sides) else None, split)


def from_one(record: Raw) -> Raw:
    objects = tuple(
        Object(o.label, (o.box[0] - 1, o.box[1] - 1, o.box[2], o.box[3])) for o in record.objects
    )
    return dataclasses.replace(record, objects=objects)


# COCO


def has_coco(data: Path) -> bool:
    return any(is_coco(file) for file in files(data, ".json"))


def is_coco(file: Path) -> bool:
    """Whether a json file looks like COCO's instances: by its first and last pieces."""
    with file.open("rb") as content:
        head = content.read(1 << 16)
        content.seek(max(0, file.stat().st_size - (1 << 16)))
        text = head + content.read()
    return any(key in text for key in (b'"annotations"', b'"categories"', b'"bbox"'))


def read_coco(data: Path, defects: list[Defect]) -> Found:
    """Files with images, annotations and categories; one for each split, or one for all."""
    records: list[Raw] = []
    names: dict[int, str] = {}
    for file in files(data, ".json"):
        if not is_coco(file):
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{file} is broken at line {error.lineno}, column {error.colno}: {error.msg}."
            ) from None
        try:
            categories = {int(c["id"]): str(c["name"]) for c in content["categories"]}
            if any(names.get(i, name) != name for i, name in categories.items()):
                raise ValueError(f"{file}: its categories are not those of the files before it.")
            names |= categories
            records += one_coco(file, content, categories, split_of(within(file, data)), defects)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{file} is no COCO file: {type(error).__name__} {error}. It needs images (id, "
                "file_name), annotations (image_id, category_id, bbox) and categories (id, name)."
            ) from None
    labels = tuple(names[i] for i in sorted(names))
    if sorted(names) != list(range(min(names, default=0), min(names, default=0) + len(names))):
        defects.append(Defect(data, f"category ids have gaps ({min(names)} to {max(names)})"))
    return labels, records


def one_coco(
    file: Path, content: dict[str, Any], categories: dict[int, str], split: str | None,
    defects: list[Defect],
) -> Iterable[Raw]:  # fmt: skip
    objects: dict[Any, list[Object]] = {image["id"]: [] for image in content["images"]}
    crowds = strays = 0
    for item in content["annotations"]:
        if item.get("iscrowd"):
            crowds += 1
        elif item["image_id"] not in objects:
            strays += 1
        else:
            x, y, width, height = map(float, item["bbox"])
            label = categories.get(int(item["category_id"]), f"category {item['category_id']}")
            objects[item["image_id"]].append(Object(label, (y, x, y + height, x + width)))
    for count, what in ((crowds, "crowds"), (strays, "objects on pictures that it does not name")):
        if count:
            defects.append(Defect(file, f"{count} {what}: left out"))
    for image in content["images"]:
        sides = float(image.get("height") or 0), float(image.get("width") or 0)
        yield Raw(
            file, str(image["file_name"]), tuple(objects[image["id"]]),
            sides if all(sides) else None, split or split_of(str(image["file_name"])),
        )  # fmt: skip


# YOLO


NAMES = ("classes.txt", "obj.names", "labels.txt")


def yolo_files(data: Path) -> list[Path]:
    """The txt files of pictures: those of digits only."""
    found = files(data, ".txt") if data.is_dir() else []
    return [file for file in found if file.name not in NAMES and holds_numbers(file)]


def holds_numbers(file: Path) -> bool:
    return not file.read_text("utf-8", "replace")[:200].strip("0123456789.eE+- \t\r\n")


def has_yolo(data: Path) -> bool:
    return bool(yolo_files(data))


def read_yolo(data: Path, defects: list[Defect]) -> Found:
    """One txt per picture, of lines "class x_centre y_centre width height" in [0, 1].

    Names of classes stand in a data.yaml or classes.txt; without, they are their numbers.
    """
    names = yolo_names(data)
    records, most = [], -1
    for file in yolo_files(data):
        objects = []
        try:
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                if not line.strip():
                    continue
                values = [float(value) for value in line.split()]
                if len(values) < 5 or values[0] != int(values[0]):
                    raise ValueError(f"broken at line {number}: {line[:60]!r}")
                if len(values) > 5:  # the corners of an outline
                    x, y = values[1::2], values[2::2]
                    box = min(y), min(x), max(y), max(x)
                else:
                    _, x, y, w, h = values  # type: ignore[assignment]
                    box = y - h / 2, x - w / 2, y + h / 2, x + w / 2  # type: ignore[operator]
                most = max(most, int(values[0]))
                known = names and 0 <= values[0] < len(names)
                objects.append(
                    Object(names[int(values[0])] if known else f"class {int(values[0])}", box)
                )
        except ValueError as error:
            defects.append(Defect(file, f"{error}: left out"))
            continue
        split = split_of(within(file, data))
        records.append(Raw(file, file.stem, tuple(objects), (1, 1), split))
    return names or tuple(f"class {i}" for i in range(most + 1)), records


def yolo_names(data: Path) -> tuple[str, ...]:
    for name in NAMES:
        for file in data.rglob(name):
            return tuple(
                line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()
            )
    for file in [*data.glob("*.yaml"), *data.glob("*.yml")]:
        # The one entry that is needed, in the three forms that YAML has for a list of names.
        text = file.read_text(encoding="utf-8")
        if inline := re.search(r"^names:\s*\[(.*?)\]", text, re.M | re.S):
            found = [part.strip().strip("\"'") for part in inline[1].split(",")]
        elif block := re.search(r"^names:\s*\n((?:[ \t]*(?:-|\d+:).*(?:\n|$))+)", text, re.M):
            lines = [re.sub(r"^\s*(?:-|\d+:)", "", line) for line in block[1].splitlines()]
            found = [line.partition(" #")[0].strip().strip("\"'") for line in lines]
        else:
            continue
        return tuple(name for name in found if name)
    return ()


# CSV


COLUMNS = {
    "file": ("file", "filename", "image", "image_path", "path"),
    "label": ("label", "class", "class_name", "name"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "split": ("split", "set", "subset"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
}
NEEDED = ("file", "label", "ymin", "xmin", "ymax", "xmax")


def columns_of(file: Path) -> dict[str, str]:
    """{what: the file's name for the column}."""
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        names = {name.strip().lower(): name for name in next(csv.reader(lines), [])}
    found = {what: [names[a] for a in also if a in names] for what, also in COLUMNS.items()}
    return {what: names[0] for what, names in found.items() if names}


def has_csv(data: Path) -> bool:
    return any(set(NEEDED) <= set(columns_of(file)) for file in files(data, ".csv"))


def read_csv(data: Path, defects: list[Defect]) -> Found:
    """Lines of a picture, a class and a box, in px or all in [0, 1]; without a box: no objects."""
    rows: dict[tuple[Path, str], list[tuple[Object | None, str | None, Any]]] = {}
    for file in files(data, ".csv"):
        columns = columns_of(file)
        if missing := [what for what in NEEDED if what not in columns]:
            if data.is_dir():
                continue
            raise ValueError(
                f"{file}: the first line must name the columns {', '.join(NEEDED)}; missing: "
                f"{', '.join(missing)}."
            )
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            for row in reader:
                values = {what: (row[name] or "").strip() for what, name in columns.items()}
                where = f"{file}, line {reader.line_num}"
                split = split_of(values.get("split", "")) or split_of(within(file, data))
                sides = values.get("height"), values.get("width")
                found = None
                corners = [values[key] for key in ("ymin", "xmin", "ymax", "xmax")]
                if any(corners):
                    try:
                        y0, x0, y1, x1 = map(float, corners)
                    except ValueError:
                        raise ValueError(f"{where}: a box is four numbers, not {corners}") from None
                    found = Object(values["label"], (y0, x0, y1, x1))
                rows.setdefault((file, values["file"]), []).append((found, split, sides))
    every = [item for own in rows.values() for item, *_ in own if item]
    shares = bool(every) and max(max(item.box) for item in every) <= 1.001
    records = []
    for (file, name), own in rows.items():
        objects = tuple(item for item, *_ in own if item)
        height, width = own[0][2]
        size = (float(height), float(width)) if height and width else None
        records.append(Raw(file, name, objects, (1, 1) if shares else size, own[0][1]))
    return tuple(sorted({item.label for item in every})), records


FORMATS = {
    "coco": Format("json with images, annotations and categories", has_coco, read_coco),
    "voc": Format("one xml per picture", has_voc, read_voc),
    "yolo": Format("one txt per picture, and a data.yaml or classes.txt", has_yolo, read_yolo),
    "csv": Format("the columns file,label,ymin,xmin,ymax,xmax", has_csv, read_csv),
}
