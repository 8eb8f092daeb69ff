"""CreateML: one json list of images, each with boxes by centre and sides in px."""

from pathlib import Path
from typing import Any

from kzoo.recipes.data.formats.records import Found, Object, Record, head_of, labels_of
from kzoo.recipes.data.formats.unread import program_of
from kzoo.recipes.data.layout import Tree
from kzoo.recipes.data.text import Issue, label_in, numbers, read_json

NAMES = ("image", "imagefilename", "filename")
LISTS = ("annotations", "annotation", "objects")


def is_createml(file: Path) -> bool:
    head = head_of(file).lstrip(b"\xef\xbb\xbf\xff\xfe \r\n\t")
    named = any(f'"{name}"'.encode() in head for name in NAMES)
    return head.startswith(b"[") and named and program_of(file) is None


def has_createml(tree: Tree) -> bool:
    return any(is_createml(file) for file in tree.of(".json"))


def read_createml(tree: Tree, issues: list[Issue]) -> Found:
    """Return the images of all json files of CreateML's."""
    records = []
    for file in filter(is_createml, tree.of(".json")):
        for number, item in enumerate(read_json(file, issues), 1):
            try:
                records.append(record_of(file, item))
            except (AttributeError, KeyError, StopIteration, TypeError, ValueError) as error:
                reason = f"entry {number} is none of CreateML's ({error}): left out"
                issues.append(Issue(file, reason))
    return labels_of(records), records


def record_of(file: Path, item: dict[str, Any]) -> Record:
    name = next(str(item[key]) for key in NAMES if key in item)
    objects = []
    for entry in next((item[key] for key in LISTS if key in item), []):
        place = entry["coordinates"]
        values = numbers([place.get(key) for key in ("x", "y", "width", "height")])
        if not values:
            raise ValueError(f"coordinates are x, y, width and height, not {place}")
        x, y, w, h = values
        box = (y - h / 2, x - w / 2, y + h / 2, x + w / 2)
        objects.append(Object(label_in(entry["label"]), box))
    return Record(file, name, tuple(objects), None)
