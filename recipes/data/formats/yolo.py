"""YOLO: one txt per image, and the names of classes in a data.yaml or classes.txt.

Lines are told apart by how many numbers they have, as ultralytics' formats define them
(https://docs.ultralytics.com/datasets/): class x y w h (5), the same and a confidence (6), class
and the corners of an outline (7, 9, ...), class x y w h and keypoints of 2 or 3 numbers each.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.recipes.data.formats.records import Found, Object, Record, head_of
from kzoo.recipes.data.layout import SPLITS, Tree
from kzoo.recipes.data.text import Issue, numbers, read_lines, read_text, read_yaml

NAMES = ("classes.txt", "obj.names", "labels.txt", "class.names", "predefined_classes.txt")
YAMLS = ("data", "dataset")  # of several that do not agree, these count
MOST_CLASSES = 100_000  # the number of a class beyond says that a file is of something else
FARTHEST = 2.0  # coordinates are shares of the image's sides; a few reach outside of it
Values = tuple[float, ...]
# What the four numbers of a box may be, as (x_min, y_min, x_max, y_max): YOLO's are the first.
READINGS: dict[str, Callable[[Values], Values]] = {
    "centre, width and height": lambda v: (
        v[0] - v[2] / 2, v[1] - v[3] / 2, v[0] + v[2] / 2, v[1] + v[3] / 2),
    "two corners": lambda v: v,
    "corner, width and height": lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3]),
}  # fmt: skip
ROUNDING = 0.02  # share of a side that boxes may reach outside
LEAST_TOLD, MANY = 3, 0.2  # boxes outside, and their share, that speak against YOLO's own reading
SURE = 0.99  # share of the boxes that the right reading puts inside
VISIBLE = (0.0, 1.0, 2.0)  # what the third number of a keypoint may be


def yolo_files(tree: Tree) -> list[Path]:
    """Return the txt files of images: those whose lines begin with five numbers, or empty ones."""
    return [f for f in tree.of(".txt") if f.name.lower() not in NAMES and holds_boxes(f)]


def holds_boxes(file: Path) -> bool:
    head = head_of(file, 200).decode("utf-8-sig", "replace").lstrip("\ufeff\ufffd")
    if head.strip("0123456789.eE+-, \t\r\n"):
        return False
    lines = [line for line in head.splitlines() if line.strip()]
    columns = len(lines[0].replace(",", " ").split()) if lines else 5
    return columns >= 5 or (columns >= 3 and "." in head)  # broken lines of boxes are told


def has_yolo(tree: Tree) -> bool:
    return any(file.stat().st_size for file in yolo_files(tree))


@dataclasses.dataclass(frozen=True)
class Line:
    number: int
    label: int
    values: tuple[float, ...]  # what follows the class


def read_yolo(tree: Tree, issues: list[Issue]) -> Found:
    """Return the records of all txt files; those that cannot be read go to `issues`."""
    given = read_names(tree, issues)
    files: dict[Path, list[Line]] = {}
    for file in yolo_files(tree):
        try:
            files[file] = read_file(file, issues)
        except ValueError as error:
            issues.append(Issue(file, f"{error}: left out"))
    lines = [line for own in files.values() for line in own]
    kinds = kinds_of(lines, given.keypoints)
    tell_kinds(lines, kinds, tree, issues)
    usual, reading = next(iter(READINGS)), reading_of(lines, kinds)
    if reading != usual:
        reason = (
            f"boxes are {reading}, as they lie inside the images so and not as YOLO's {usual}: "
            f"read as {reading}"
        )
        issues.append(Issue(tree.root, reason))
    used = {line.label for line in lines}
    names = given.names
    if not names:
        names = {i: f"class {i}" for i in range(max(used, default=-1) + 1)}
    elif min(used, default=0) == 1 and max(used) == len(names) and max(names) == len(names) - 1:
        raise ValueError(
            f"{tree.root}: lines number the classes from 1 to {max(used)}, and names are numbered "
            f"from 0 to {max(names)}. Subtract 1 from the class of every line, or number the names "
            "(1: cat)."
        )
    elif 0 in used and 0 not in names and max(names) not in used:
        reason = (
            f"names begin at {min(names)} and lines at 0: they are read by their numbers. If names "
            "were counted from 1, subtract 1 from each"
        )
        issues.append(Issue(tree.root, reason))
    for name, count in Counter(names.values()).items():
        if count > 1:
            ids = ", ".join(str(i) for i in sorted(names) if names[i] == name)
            issues.append(Issue(tree.root, f"the classes {ids} are all {name!r}: read as one"))
    records = []
    for file, own in files.items():
        objects = tuple(
            object_of(line, names.get(line.label, f"class {line.label}"), kinds, reading)
            for line in own
        )
        records.append(Record(file, "", objects, (1, 1), own=True))
    return tuple(dict.fromkeys(names[i] for i in sorted(names))), records


def read_file(file: Path, issues: list[Issue]) -> list[Line]:
    """Return the lines of a file. Raises ValueError with the line where it breaks."""
    found = []
    for number, text in enumerate(read_text(file, issues).splitlines(), 1):
        if not text.strip():
            continue
        values = numbers(text.replace(",", " ").split())
        broken = len(values) < 5 or values[0] != int(values[0]) or values[0] >= MOST_CLASSES
        if broken or values[0] < 0:
            raise ValueError(f"broken at line {number}: {text[:60]!r}")
        if max(map(abs, values[1:] if len(values) > 6 else values[1:5])) > FARTHEST:
            raise ValueError(
                f"line {number} holds numbers beyond 1, and YOLO's are shares of the image's sides "
                f"({text[:60]!r})"
            )
        found.append(Line(number, int(values[0]), tuple(values[1:])))
    return found


def kinds_of(lines: list[Line], keypoints: int | None) -> dict[int, str]:
    """Return, by how many numbers follow the class, what they are: box, outline or keypoints.

    keypoints: how many numbers of keypoints a data.yaml says that a line has.
    """
    kinds = {4: "box", 5: "box and confidence"}
    by_count: dict[int, list[Line]] = {}
    for line in lines:
        by_count.setdefault(len(line.values), []).append(line)
    for count, own in by_count.items():
        if count in kinds:
            continue
        if (
            (keypoints is not None and count == 4 + keypoints)
            or ((count - 4) % 3 == 0 and all(points_inside(line.values, 3) for line in own))
            or (
                count % 2 == 0
                and len(by_count) == 1
                and all(points_inside(line.values, 2) for line in own)
                and not all(is_outline(line.values) for line in own)
            )
        ):
            kinds[count] = "box and keypoints"
        elif count % 2 == 0:
            kinds[count] = "outline"
        else:
            kinds[count] = "outline and confidence"
    return kinds


def is_outline(values: tuple[float, ...]) -> bool:
    """Whether the second corner of a line, a box's sides in another, is near the others."""
    corners = np.reshape(values, (-1, 2))
    others = np.delete(corners, 1, axis=0)
    spread = np.ptp(others, axis=0).max()
    return float(np.abs(corners[1] - others.mean(axis=0)).max()) <= 1.5 * float(spread)


def points_inside(values: tuple[float, ...], each: int) -> bool:
    """Whether a line reads as a box with its keypoints, of 2 or 3 numbers each, inside of it."""
    x, y, w, h = values[:4]
    if w <= 0 or h <= 0:
        return False
    points = [values[i : i + each] for i in range(4, len(values), each)]
    if each == 3 and not all(point[2] in VISIBLE for point in points):
        return False
    shown = [p for p in points if any(p[:2])]  # points at 0, 0 are not shown
    margin = 0.02
    return all(
        abs(p[0] - x) <= w / 2 + margin and abs(p[1] - y) <= h / 2 + margin for p in shown
    ) or (each == 3)  # fmt: skip


def tell_kinds(lines: list[Line], kinds: dict[int, str], tree: Tree, issues: list[Issue]) -> None:
    counts = Counter(len(line.values) for line in lines)
    for count, kind in sorted(kinds.items()):
        if not counts[count] or kind in ("box", "outline"):
            continue
        what = kind.split(" and ")
        reason = (
            f"{counts[count]} lines of {count + 1} numbers are read as class, {what[0]} and "
            f"{what[1]}: the {what[1]} is not used"
        )
        issues.append(Issue(tree.root, reason))


def reading_of(lines: list[Line], kinds: dict[int, str]) -> str:
    """Return what the numbers of boxes are: YOLO's own, or the one other reading that fits."""
    boxes = [line.values[:4] for line in lines if kinds[len(line.values)].startswith("box")]
    inside = {name: sum(lies_inside(read(box)) for box in boxes) for name, read in READINGS.items()}
    usual, *others = READINGS
    fitting = [name for name in others if inside[name] >= SURE * len(boxes)]
    outside = len(boxes) - inside[usual]
    certain = len(fitting) == 1 and outside >= max(LEAST_TOLD, MANY * len(boxes))
    return fitting[0] if certain else usual


def lies_inside(box: Values) -> bool:
    """Return whether (x_min, y_min, x_max, y_max) is a box on an image, but for rounding."""
    x0, y0, x1, y1 = box
    return x0 <= x1 and y0 <= y1 and min(x0, y0) >= -ROUNDING and max(x1, y1) <= 1 + ROUNDING


def object_of(line: Line, label: str, kinds: dict[int, str], reading: str) -> Object:
    if kinds[len(line.values)].startswith("outline"):
        corners = list(line.values[: len(line.values) // 2 * 2])
        return Object(label, None, (corners,), name=f"line {line.number}")
    x0, y0, x1, y1 = READINGS[reading](line.values[:4])
    return Object(label, (y0, x0, y1, x1), name=f"line {line.number}")


# Names of classes


@dataclasses.dataclass(frozen=True)
class Given:
    """What is said of the classes."""

    names: dict[int, str]
    keypoints: int | None = None  # numbers of keypoints in a line


def read_names(tree: Tree, issues: list[Issue]) -> Given:
    """Return the names by their numbers: of a data.yaml, else of a classes.txt.

    Raises ValueError where two of a kind do not agree.
    """
    yamls = {f: given for f in tree.files if (given := yaml_names(f, issues)) is not None}
    texts = {
        f: Given(dict(numbered_lines(f, issues)))
        for f in tree.files if f.name.lower() in NAMES and not holds_numbers(f)
    }  # fmt: skip
    file, given = agreed({f: g for f, g in yamls.items() if f.stem in YAMLS} or yamls)
    if not file:
        return agreed({f: given for f, given in texts.items() if given.names})[1]
    for other, others in texts.items():
        if others.names and others.names != given.names:
            reason = f"names other classes than {tree.inside(file)}, which counts"
            issues.append(Issue(other, reason))
    return given


def holds_numbers(file: Path) -> bool:
    """Whether a labels.txt is of an image called labels."""
    head = head_of(file, 400).decode("utf-8", "replace")
    return bool(head.strip()) and len(numbers(head.splitlines()[0].split())) >= 5


def agreed(found: dict[Path, Given]) -> tuple[Path | None, Given]:
    """Return the nearest to the top of the files that name classes. Raises where two differ."""
    files = sorted(found, key=lambda file: len(file.parts))
    for file in files[1:]:
        if found[file].names != found[files[0]].names:
            raise ValueError(f"{files[0]} and {file} list different classes. Keep the right one.")
    return (files[0], found[files[0]]) if files else (None, Given({}))


def numbered_lines(file: Path, issues: list[Issue]) -> list[tuple[int, str]]:
    """Return the lines of a list of names by their number; an empty line names nothing."""
    return [(i, line) for i, line in enumerate(read_lines(file, issues)) if line]


def yaml_names(file: Path, issues: list[Issue]) -> Given | None:
    """Return the names of a YAML file, where it holds any."""
    if file.suffix.lower() not in (".yaml", ".yml"):
        return None
    content = read_yaml(file, issues)
    if not isinstance(content, dict) or "names" not in content:
        return None
    if not isinstance(content["names"], dict | list):
        if content["names"] and {"nc", *SPLITS} & {str(key).lower() for key in content}:
            raise ValueError(
                f"{file}: names must be a list, as [cat, dog], or numbers with a name each. "
                f"Received: {str(content['names'])[:60]!r}"
            )
        return None
    names = by_number(file, content["names"])
    count = numbers([content.get("nc", len(names))])
    if names and count and count[0] != len(names):
        reason = f"says nc: {count[0]:g} and names {len(names)} classes: the names count"
        issues.append(Issue(file, reason))
    return Given(names, keypoints_of(content.get("kpt_shape")))


def by_number(file: Path, names: Any) -> dict[int, str]:
    """Return the names by the numbers that they are given. Raises ValueError for others."""
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    found = {}
    for key, name in pairs:
        if not str(key).strip().isdigit() or not isinstance(name, str) or not name.strip():
            raise ValueError(
                f"{file}: names must be a list, or numbers with a name each. Received: "
                f"{key!r}: {name!r}"
            )
        found[int(key)] = name.strip()
    return found


def keypoints_of(shape: Any) -> int | None:
    """Return how many numbers keypoints of a `kpt_shape: [17, 3]` have."""
    values = numbers(shape)
    return int(values[0] * values[1]) if len(values) == 2 else None
