"""CVAT for images 1.1: one xml of many images (https://docs.cvat.ai)."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from kzoo.recipes.data.formats.outlines import circle, runs_of
from kzoo.recipes.data.formats.records import Found, Object, Record, head_of, labels_of
from kzoo.recipes.data.layout import Tree, folded, split_of
from kzoo.recipes.data.text import Issue, numbers, read_xml

NO_SUBSET = ("", "default")  # what CVAT writes of images that are in none


def has_cvat(tree: Tree) -> bool:
    return any(b"<annotations" in head_of(file) for file in tree.of(".xml"))


def read_cvat(tree: Tree, issues: list[Issue]) -> Found:
    """Return the images of all xml files of CVAT's."""
    records: list[Record] = []
    labels: dict[str, None] = {}
    left: Counter[str] = Counter()
    unknown: Counter[str] = Counter()  # subsets that are no split
    for file in tree.of(".xml"):
        if b"<annotations" not in head_of(file):
            issues.append(Issue(file, "is no CVAT file: left out"))
            continue
        try:
            root = read_xml(file, issues)
        except ValueError as error:
            raise ValueError(f"{file} is {error}.") from None
        if root.find("track") is not None:
            raise ValueError(
                f"{file} is a video annotation. Export it from CVAT as 'CVAT for images 1.1'."
            )
        for path in ("meta/task/labels", "meta/job/labels", "meta/project/labels"):
            for item in root.findall(f"{path}/label/name"):
                labels.setdefault((item.text or "").strip())
        for number, image in enumerate(root.findall("image"), 1):
            try:
                records.append(record_of(file, image, left))
                subset = subset_of(image)
                unknown[subset] += folded(subset) not in NO_SUBSET and not split_of(subset)
            except ValueError as error:
                name = image.get("name") or f"image {number}"
                issues.append(Issue(file, f"{name}: {error}: left out"))
    for kind, count in left.items():
        issues.append(Issue(tree.root, f"{count} shapes of type {kind!r} cover nothing: left out"))
    for subset, count in (+unknown).items():
        reason = (
            f"images of the subset {subset!r}, which is neither train, val nor test: read as of "
            f"none ({count} in all)"
        )
        issues.append(Issue(tree.root, reason))
    used = labels_of(records)
    named = [label for label in labels if label]
    return (*named, *(label for label in used if label not in labels)), records


def record_of(file: Path, image: Element, left: Counter[str]) -> Record:
    name = (image.get("name") or "").strip()
    if not name:
        raise ValueError("an image without a name")
    sides = numbers([image.get("height") or "0", image.get("width") or "0"])
    if not sides:
        raise ValueError("its height and width are not numbers")
    size = (sides[0], sides[1]) if all(sides) else None
    objects = []
    for item in image:
        if item.tag == "tag":
            continue
        if item.tag not in SHAPES:
            left[item.tag] += 1
            continue
        label = (item.get("label") or "").strip()
        try:
            found = SHAPES[item.tag](label, item, size) if label else None
        except (IndexError, OverflowError, TypeError) as error:
            raise ValueError(f"a broken {item.tag} ({error})") from None
        if found is None:
            raise ValueError(f"a {item.tag} without a label or without its numbers")
        objects.append(found)
    return Record(file, name, tuple(objects), size, split_of(subset_of(image)))


def subset_of(image: Element) -> str:
    return (image.get("subset") or "").strip()


Size = tuple[float, float] | None


def box(label: str, item: Element, size: Size) -> Object | None:
    values = numbers([item.get(key) for key in ("xtl", "ytl", "xbr", "ybr")])
    angle = numbers([item.get("rotation") or "0"])
    if not values or not angle:
        return None
    x0, y0, x1, y1 = values
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    turn = np.deg2rad(angle[0])
    centre = corners.mean(axis=0)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if angle[0]:
        corners = (corners - centre) @ matrix.T + centre
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return Object(label, (top, left, bottom, right), (corners.ravel().tolist(),))


def polygon(label: str, item: Element, size: Size) -> Object | None:
    points = [numbers(point.split(",")) for point in (item.get("points") or "").split(";")]
    if len(points) < 3 or not all(len(point) == 2 for point in points):
        return None
    return Object(label, None, ([value for point in points for value in point],))


def ellipse(label: str, item: Element, size: Size) -> Object | None:
    values = numbers([item.get(key) for key in ("cx", "cy", "rx", "ry")])
    if not values:
        return None
    x, y, across, down = values
    return Object(label, (y - down, x - across, y + down, x + across), (circle(*values),))


def mask(label: str, item: Element, size: Size) -> Object | None:
    """Run lengths, row by row, within a box."""
    place = numbers([item.get(key) for key in ("left", "top", "width", "height")])
    lengths = numbers((item.get("rle") or "").split(","))
    if not place or not lengths or size is None or min(lengths) < 0:
        return None
    left, top, width, height = map(int, place)
    if width < 1 or height < 1 or sum(lengths) != width * height or min(left, top) < 0:
        return None
    inside = np.arange(len(lengths)) % 2 == 1
    part = np.repeat(inside, [int(n) for n in lengths]).reshape(height, width)
    whole = np.zeros([int(side) for side in size], bool)
    shown = whole[top : top + height, left : left + width]
    shown |= part[: shown.shape[0], : shown.shape[1]]
    return Object(label, (top, left, top + height, left + width), (runs_of(whole),))


SHAPES: dict[str, Callable[[str, Element, Size], Object | None]] = {
    "box": box, "polygon": polygon, "ellipse": ellipse, "mask": mask,
}  # fmt: skip
