"""Pascal VOC: one xml per image."""

import dataclasses
from pathlib import Path
from xml.etree.ElementTree import Element

from kzoo.recipes.data.formats.records import Found, Object, Record, head_of, labels_of
from kzoo.recipes.data.layout import Tree
from kzoo.recipes.data.text import Issue, numbers, read_xml

SAMPLED = 20  # files that are looked at for what they are


def has_voc(tree: Tree) -> bool:
    files = tree.of(".xml")
    return any(is_voc(file) for file in (*files[:SAMPLED], *files[-SAMPLED:]))


def is_voc(file: Path) -> bool:
    head = head_of(file)
    return b"<annotation" in head and b"<annotations" not in head


def read_voc(tree: Tree, issues: list[Issue]) -> Found:
    """Return the records of all xml files; those that cannot be read go to `issues`."""
    records, others = [], []
    for file in tree.of(".xml"):
        try:
            root = read_xml(file, issues)
            if root.tag != "annotation":
                others.append((file, f"begins with <{root.tag}>, not <annotation>"))
                continue
            records.append(record_of(file, root))
        except ValueError as error:
            issues.append(Issue(file, f"{error}: left out"))
    issues += [Issue(file, f"{reason}: left out") for file, reason in others]
    # The VOC devkit counts pixels from 1, most programs that write its format from 0.
    corners = [item.box[i] for r in records for item in r.objects if item.box for i in (0, 1)]
    if corners and min(corners) >= 1 and any(corner == 1 for corner in corners):
        reason = "boxes begin at 1: read as pixels counted from 1, as in VOC"
        issues.append(Issue(tree.root, reason))
        records = [from_one(record) for record in records]
    return labels_of(records), records


def record_of(file: Path, root: Element) -> Record:
    """Return what an xml says. Raises ValueError, saying what is wrong."""
    objects = []
    for number, item in enumerate(root.findall("object"), 1):
        values = [item.findtext(f"bndbox/{key}") for key in ("ymin", "xmin", "ymax", "xmax")]
        label = (item.findtext("name") or "").strip()
        if not label or not (box := numbers(values)):
            raise ValueError(f"object {number} has no name or no box of four numbers: {values}")
        difficult = (item.findtext("difficult") or "").strip() == "1"
        corners = (box[0], box[1], box[2], box[3])
        objects.append(Object(label, corners, difficult=difficult))
    given = [root.findtext(f"size/{key}") or "0" for key in ("height", "width")]
    if not (sides := numbers(given)):
        raise ValueError(f"the height and width of its size are not numbers: {given}")
    name = (root.findtext("filename") or "").strip()
    size = (sides[0], sides[1]) if all(sides) else None
    return Record(file, name, tuple(objects), size, own=True)


def from_one(record: Record) -> Record:
    """Return a record whose pixels are counted from 1 as one of corners counted from 0."""
    objects = tuple(
        dataclasses.replace(o, box=(o.box[0] - 1, o.box[1] - 1, o.box[2], o.box[3]))
        for o in record.objects
        if o.box
    )
    return dataclasses.replace(record, objects=objects)
