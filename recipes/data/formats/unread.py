"""Labelling programs' own exports, which are not read, told by words in their first bytes."""

from pathlib import Path

from kzoo.recipes.data.formats.records import head_of
from kzoo.recipes.data.layout import Tree

MARKS = {
    "Label Studio": (b"rectanglelabels", b"polygonlabels", b"brushlabels"),
    "VGG Image Annotator": (b"shape_attributes",),
    "Labelbox": (b'"data_row"',),
    "Supervisely": (b'"geometryType"',),
}


def program_of(file: Path) -> str | None:
    """Return the program whose own export a file is; None for any other file."""
    head = head_of(file)
    return next((name for name, marks in MARKS.items() if any(m in head for m in marks)), None)


def unread_export(tree: Tree) -> str | None:
    """Return what to do about the first such file of a data set, in a sentence; None for none."""
    for file in tree.of(".json", ".csv"):
        if program := program_of(file):
            return export_advice(file, program)
    return None


def export_advice(file: Path, program: str) -> str:
    return (
        f"{file} is an export of {program} in its own format, which kzoo does not read: export the "
        "labels as COCO there, or as YOLO or Pascal VOC."
    )
