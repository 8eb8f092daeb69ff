"""LabelMe: one json per image, of shapes (https://github.com/wkentaro/labelme)."""

import base64
import dataclasses
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kzoo.recipes.data.formats.outlines import circle, runs_of
from kzoo.recipes.data.formats.records import Found, Object, Record, head_of, labels_of
from kzoo.recipes.data.layout import Tree
from kzoo.recipes.data.text import Issue, label_in, numbers, read_json

IGNORED = "__ignore__"  # LabelMe's label of what is none of the classes


def is_labelme(file: Path) -> bool:
    head = head_of(file)
    return b'"shapes"' in head or (b'"imagePath"' in head and b'"version"' in head)


def has_labelme(tree: Tree) -> bool:
    return any(is_labelme(file) for file in tree.of(".json"))


def read_labelme(tree: Tree, issues: list[Issue]) -> Found:
    """Return the records of all json files of shapes; those that cannot be read go to `issues`."""
    records = []
    left: Counter[str] = Counter()
    for file in filter(is_labelme, tree.of(".json")):
        try:
            content = read_json(file, issues)
        except ValueError as error:
            issues.append(Issue(file, f"{str(error).removeprefix(f'{file} ')[:-1]}: left out"))
            continue
        try:
            records.append(record_of(file, content, left))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"is no LabelMe file: {type(error).__name__} {error}: left out"
            issues.append(Issue(file, reason))
    for kind, count in left.items():
        issues.append(Issue(tree.root, f"{count} shapes of type {kind!r} cover nothing: left out"))
    return tuple(label for label in labels_of(records) if label != IGNORED), records


def record_of(file: Path, content: dict[str, Any], left: Counter[str]) -> Record:
    sides = numbers([content.get("imageHeight") or 0, content.get("imageWidth") or 0])
    size = (sides[0], sides[1]) if sides and all(sides) else None
    objects = []
    for number, shape in enumerate(content["shapes"], 1):
        kind = str(shape.get("shape_type") or "polygon")
        points = [numbers(list(point)) for point in shape["points"]]
        if not all(len(point) == 2 for point in points):
            raise ValueError(f"shape {number} has points that are not two numbers")
        if kind not in SHAPES:
            left[kind] += 1
            continue
        item = SHAPES[kind](label_in(shape["label"]), points, shape, size)
        if item is None:
            raise ValueError(f"shape {number}, a {kind}, has {len(points)} points")
        objects.append(dataclasses.replace(item, crowd=item.label == IGNORED))
    name = str(content.get("imagePath") or "")
    return Record(file, name, tuple(objects), size, own=True)


def polygon(label: str, points: list[Any], shape: Any, size: Any) -> Object | None:
    if len(points) < 3:
        return None
    return Object(label, None, ([value for point in points for value in point],))


def rectangle(label: str, points: list[Any], shape: Any, size: Any) -> Object | None:
    if len(points) not in (2, 4):
        return None
    xs, ys = zip(*points, strict=True)
    x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
    return Object(label, (y0, x0, y1, x1), ([x0, y0, x1, y0, x1, y1, x0, y1],))


def disc(label: str, points: list[Any], shape: Any, size: Any) -> Object | None:
    if len(points) != 2:
        return None
    (x, y), edge = points
    radius = float(np.hypot(edge[0] - x, edge[1] - y))
    box = (y - radius, x - radius, y + radius, x + radius)
    return Object(label, box, (circle(x, y, radius, radius),))


def drawn(label: str, points: list[Any], shape: Any, size: Any) -> Object | None:
    """A mask of a part of the image, as a PNG in the json."""
    if len(points) != 2 or size is None:
        return None
    with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
        part = np.asarray(image.convert("L")) > 0
    (x0, y0), (x1, y1) = points
    whole = np.zeros([int(side) for side in size], bool)
    top, left = int(y0), int(x0)
    shown = whole[top : top + part.shape[0], left : left + part.shape[1]]
    shown |= part[: shown.shape[0], : shown.shape[1]]
    return Object(label, (y0, x0, y1 + 1, x1 + 1), (runs_of(whole),))


SHAPES = {"polygon": polygon, "rectangle": rectangle, "circle": disc, "mask": drawn}
