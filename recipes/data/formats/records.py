"""What the readers of all formats give: records of images, with objects on them."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kzoo.recipes.data.layout import Tree
from kzoo.recipes.data.text import Issue, numbers

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Object:
    """What one annotation marks; coordinates are in the record's `size`."""

    label: str
    box: Box | None  # y_min, x_min, y_max, x_max; None: only outlines are given, if these
    outlines: tuple[Any, ...] = ()  # polygons [x, y, x, y, ...], run lengths {"counts":, "size":}
    crowd: bool = False  # several things under one mark: not trained on, and void in a mask
    difficult: bool = False  # VOC's: trained on, and neither a hit nor a miss when measured
    name: str = ""  # that messages call it by
    of_sides: bool = False  # the box is read as a corner, width and height

    @property
    def extent(self) -> Box | None:
        """The box that is given, or the one around the outlines' corners."""
        if self.box is not None:
            return self.box
        corners = [numbers(outline) for outline in self.outlines if isinstance(outline, list)]
        xs = [x for outline in corners for x in outline[::2]]
        ys = [y for outline in corners for y in outline[1::2]]
        return (min(ys), min(xs), max(ys), max(xs)) if xs and ys else None


@dataclasses.dataclass(frozen=True)
class Record:
    """One image's annotation as it is written."""

    source: Path  # the file that it stands in
    image: str  # the name that it gives; "": that of the file itself
    objects: tuple[Object, ...]
    size: tuple[float, float] | None  # (H, W) that coordinates are of; None: the image's px
    split: str | None = None  # where the annotation itself says one
    own: bool = False  # the file is of this image alone


@dataclasses.dataclass(frozen=True)
class Matched:
    """A record and its image."""

    record: Record
    path: Path
    split: str | None


Found = tuple[tuple[str, ...], list[Record]]  # classes in their order, images


@dataclasses.dataclass(frozen=True)
class Format:
    """A kind of annotation files."""

    about: str
    fits: Callable[[Tree], bool]
    read: Callable[[Tree, list[Issue]], Found]
    outlines: bool = False  # whether objects may have outlines, which masks are drawn from


def labels_of(records: Iterable[Record]) -> tuple[str, ...]:
    """Return the classes of all objects, in the order of the alphabet."""
    return tuple(sorted({item.label for record in records for item in record.objects}))


def head_of(file: Path, size: int = 4096) -> bytes:
    with file.open("rb") as content:
        return content.read(size).replace(b"\0", b"")  # of UTF-16 its letters
