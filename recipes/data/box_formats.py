"""The files that say where objects are: COCO json, Pascal VOC xml, YOLO txt, CSV.

Each format is a pair: `fits` looks whether it is there, `read` gives the classes and one `Raw` for
each image. A broken file is told by the place where it breaks: of those with one image each it
is left out, one for all of them raises ValueError.
"""

import csv
import dataclasses
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

from kzoo.recipes.data.coco_boxes import (
    Found,
    Object,
    Raw,
    files,
    has_coco,
    numbers,
    read_coco,
    split_by_folder,
    split_of,
    within,
)
from kzoo.recipes.data.images import Issue, text_of


@dataclasses.dataclass(frozen=True)
class Format:
    about: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, list[Issue]], Found]


# Pascal VOC


def has_voc(data: Path) -> bool:
    return any(b"<annotation" in file.read_bytes()[:4096] for file in files(data, ".xml")[:20])


def read_voc(data: Path, issues: list[Issue]) -> Found:
    """One xml per image. `ImageSets/Main/train.txt`, `val.txt` and `test.txt` split."""
    lists: dict[str, str] = {}
    for name in ("train", "val", "test"):
        for file in data.rglob(f"ImageSets/Main/{name}.txt"):
            lines = map(str.split, text_of(file).splitlines())
            lists.update({words[0]: name for words in lines if words})
    records = []
    for file in files(data, ".xml"):
        try:
            split = lists.get(file.stem) or split_by_folder(within(file, data))
            records.append(one_voc(file, split))
        except ElementTree.ParseError as error:
            line, column = error.position
            reason = str(error).partition(":")[0]
            issues.append(
                Issue(file, f"broken at line {line}, column {column} ({reason}): left out")
            )
        except (LookupError, ValueError) as error:  # LookupError: of an encoding nobody knows
            issues.append(Issue(file, f"{error}: left out"))
    # The VOC devkit counts pixels from 1, most programs that write its format from 0.
    corners = [item.box[i] for record in records for item in record.objects for i in (0, 1)]
    if corners and min(corners) >= 1 and any(corner == 1 for corner in corners):
        issues.append(Issue(data, "boxes begin at 1: read as pixels counted from 1, as in VOC"))
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
        if not label or not (box := numbers(values)):
            raise ValueError(f"object {number} has no name or no box of four numbers: {values}")
        objects.append(Object(label, (box[0], box[1], box[2], box[3])))
    given = [root.findtext(f"size/{key}") or "0" for key in ("height", "width")]
    if not (sides := numbers(given)):
        raise ValueError(f"its size's height and width are no numbers: {given}")
    name = (root.findtext("filename") or "").strip() or file.stem
    return Raw(file, name, tuple(objects), (sides[0], sides[1]) if all(sides) else None, split)


def from_one(record: Raw) -> Raw:
    objects = tuple(
        Object(o.label, (o.box[0] - 1, o.box[1] - 1, o.box[2], o.box[3])) for o in record.objects
    )
    return dataclasses.replace(record, objects=objects)


# YOLO


NAMES = ("classes.txt", "obj.names", "labels.txt")
MOST_CLASSES = 100_000  # the number of a class beyond says that a file is of something else


def yolo_files(data: Path) -> list[Path]:
    """The txt files of images: those of digits only."""
    found = files(data, ".txt") if data.is_dir() else []
    return [file for file in found if file.name not in NAMES and holds_numbers(file)]


def holds_numbers(file: Path) -> bool:
    return not file.read_text("utf-8", "replace")[:200].strip("0123456789.eE+- \t\r\n")


def has_yolo(data: Path) -> bool:
    return bool(yolo_files(data))


def read_yolo(data: Path, issues: list[Issue]) -> Found:
    """One txt per image, of lines "class x_centre y_centre width height" in [0, 1].

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
                values = numbers(line.split())
                if len(values) < 5 or values[0] != int(values[0]) or values[0] >= MOST_CLASSES:
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
            issues.append(Issue(file, f"{error}: left out"))
            continue
        split = split_by_folder(within(file, data))
        records.append(Raw(file, file.stem, tuple(objects), (1, 1), split))
    return names or tuple(f"class {i}" for i in range(most + 1)), records


def yolo_names(data: Path) -> tuple[str, ...]:
    for name in NAMES:
        for file in data.rglob(name):
            return tuple(line.strip() for line in text_of(file).splitlines() if line.strip())
    for file in [*data.glob("*.yaml"), *data.glob("*.yml")]:
        # The one entry that is needed, in the three forms that YAML has for a list of names.
        text = text_of(file)
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
        try:
            names = {name.strip().lower(): name for name in next(csv.reader(lines), [])}
        except csv.Error:  # some other program's file
            return {}
    found = {what: [names[a] for a in also if a in names] for what, also in COLUMNS.items()}
    return {what: names[0] for what, names in found.items() if names}


def has_csv(data: Path) -> bool:
    return any(set(NEEDED) <= set(columns_of(file)) for file in files(data, ".csv"))


def read_csv(data: Path, issues: list[Issue]) -> Found:
    """Lines of an image, a class and a box, in px or all in [0, 1]; without a box: no objects."""
    rows: dict[tuple[Path, str], list[Line]] = {}
    for file in files(data, ".csv"):
        columns = columns_of(file)
        if missing := [what for what in NEEDED if what not in columns]:
            if data.is_dir():
                continue
            raise ValueError(
                f"{file}: the first line must name the columns {', '.join(NEEDED)}; missing: "
                f"{', '.join(missing)}."
            )
        reader = csv.DictReader(io.StringIO(text_of(file), newline=""))
        try:
            for row in reader:
                values = {what: (row[name] or "").strip() for what, name in columns.items()}
                line = one_line(values, f"{file}, line {reader.line_num}")
                split = line.split or split_of(within(file, data))
                line = dataclasses.replace(line, split=split)
                rows.setdefault((file, values["file"]), []).append(line)
        except csv.Error as error:
            raise ValueError(f"{file} is no CSV after line {reader.line_num}: {error}.") from None
    every = [line.item for own in rows.values() for line in own if line.item]
    shares = bool(every) and max(max(item.box) for item in every) <= 1.001
    records = []
    for (file, name), own in rows.items():
        objects = tuple(line.item for line in own if line.item)
        size = (1, 1) if shares else own[0].size
        records.append(Raw(file, name, objects, size, own[0].split))
    return tuple(sorted({item.label for item in every})), records


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a CSV file."""

    item: Object | None
    split: str | None
    size: tuple[float, float] | None  # (H, W)


def one_line(values: dict[str, str], where: str) -> Line:
    item = size = None
    corners = [values[key] for key in ("ymin", "xmin", "ymax", "xmax")]
    if any(corners):
        if not (box := numbers(corners)):
            raise ValueError(f"{where}: a box is four numbers, not {corners}")
        item = Object(values["label"], (box[0], box[1], box[2], box[3]))
    given = [values.get(key, "") for key in ("height", "width")]
    if all(given):
        if not (sides := numbers(given)):
            raise ValueError(f"{where}: height and width are numbers, not {given}")
        size = (sides[0], sides[1]) if all(sides) else None
    return Line(item, split_of(values.get("split", "")), size)


FORMATS = {
    "coco": Format("json with images, annotations and categories", has_coco, read_coco),
    "voc": Format("one xml per image", has_voc, read_voc),
    "yolo": Format("one txt per image, and a data.yaml or classes.txt", has_yolo, read_yolo),
    "csv": Format("the columns file,label,ymin,xmin,ymax,xmax", has_csv, read_csv),
}
