"""Boxes in COCO json files, and what the readers of all formats share."""

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kzoo.recipes.data.images import SPLITS, Issue, text_of

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Object:
    label: str
    box: Box  # y_min, x_min, y_max, x_max, in `Raw.size`


@dataclasses.dataclass(frozen=True)
class Raw:
    """One image's annotation as it is written."""

    source: Path  # the file that it stands in
    image: str  # the name that it gives
    objects: tuple[Object, ...]
    size: tuple[float, float] | None  # (H, W) that boxes are measured in; None: the image's px
    split: str | None  # train, val, test, or None: not given


Found = tuple[tuple[str, ...], list[Raw]]  # classes, images


def split_of(path: Path | str) -> str | None:
    """train, val or test, where a part of a path says so: train/, instances_val2017.json."""
    for part in reversed(Path(path).parts):
        words = re.split(r"[^a-z]+", part.lower())
        found = {SPLITS[word] for word in words if word in SPLITS}
        if len(found) == 1:
            return found.pop()
    return None


def split_by_folder(image: Path | str) -> str | None:
    """The split of one image: its own name says nothing, it may show Val Thorens."""
    return split_of(Path(str(image).replace("\\", "/")).parent)


def within(path: Path, data: Path) -> Path:
    """The path from the data set on: what stands above it says nothing of a split."""
    return path.relative_to(data) if data.is_dir() else Path(path.name)


def files(data: Path, suffix: str) -> list[Path]:
    if data.is_file():
        return [data] if data.suffix.lower() == suffix else []
    return sorted(
        path for path in data.rglob(f"*{suffix}") if not path.name.startswith(".")
    )  # fmt: skip


def numbers(values: Any) -> list[float]:
    """A list's values as finite numbers; none where it is no list, or one of anything else."""
    try:
        found = [float(value) for value in values] if isinstance(values, list) else []
    except (OverflowError, TypeError, ValueError):
        return []
    return found if all(map(math.isfinite, found)) else []


def has_coco(data: Path) -> bool:
    return any(is_coco(file) for file in files(data, ".json"))


def is_coco(file: Path) -> bool:
    """Whether a json file looks like COCO's instances: by its first and last pieces."""
    with file.open("rb") as content:
        head = content.read(1 << 16)
        content.seek(max(0, file.stat().st_size - (1 << 16)))
        text = head + content.read()
    return any(key in text for key in (b'"annotations"', b'"categories"', b'"bbox"'))


def read_coco(data: Path, issues: list[Issue]) -> Found:
    """Files with images, annotations and categories; one for each split, or one for all."""
    records: list[Raw] = []
    names: dict[int, str] = {}
    needs = "images (id, file_name), annotations (image_id, category_id, bbox)"
    for file in filter(is_coco, files(data, ".json")):
        content = read_json(file)
        with as_coco(file, needs):
            categories = {int(c["id"]): str(c["name"]) for c in content["categories"]}
        if any(names.get(i, name) != name for i, name in categories.items()):
            raise ValueError(f"{file}: its categories are not those of the files before it.")
        names |= categories
        with as_coco(file, needs):
            records += one_coco(file, content, categories, split_of(within(file, data)), issues)
    labels = tuple(names[i] for i in sorted(names))
    if sorted(names) != list(range(min(names, default=0), min(names, default=0) + len(names))):
        issues.append(Issue(data, f"category ids have gaps ({min(names)} to {max(names)})"))
    return labels, records


def read_json(file: Path) -> Any:
    """What a file holds. Raises ValueError with its name and the place where it breaks."""
    try:
        return json.loads(text_of(file))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file} is broken at line {error.lineno}, column {error.colno}: {error.msg}."
        ) from None


@contextlib.contextmanager
def as_coco(file: Path, needs: str) -> Iterator[None]:
    """Names the file in whatever its content, of another shape than COCO's, makes go wrong."""
    try:
        yield
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is no COCO file: {type(error).__name__} {error}. It needs {needs} and "
            "categories (id, name)."
        ) from None


def category_of(item: dict[str, Any]) -> Any:
    """The number of the category that an annotation names, or None where that is none."""
    try:
        return int(item["category_id"])
    except (KeyError, OverflowError, TypeError, ValueError):
        return None


def one_coco(
    file: Path, content: dict[str, Any], categories: dict[int, str], split: str | None,
    issues: list[Issue],
) -> Iterable[Raw]:  # fmt: skip
    objects: dict[Any, list[Object]] = {image["id"]: [] for image in content["images"]}
    crowds = strays = 0
    boxless: list[Any] = []  # ids of annotations
    for item in content["annotations"]:
        if item.get("iscrowd"):
            crowds += 1
        elif item.get("image_id") not in objects:
            strays += 1
        elif len(box := numbers(item.get("bbox"))) != 4:
            boxless.append(item.get("id", "without an id"))
        else:
            x, y, width, height = box
            label = categories.get(category_of(item), f"category {item.get('category_id')}")
            objects[item["image_id"]].append(Object(label, (y, x, y + height, x + width)))
    for count, what in ((crowds, "crowds"), (strays, "objects on images that it does not name")):
        if count:
            issues.append(Issue(file, f"{count} {what}: left out"))
    if boxless:
        what = f"objects have no box of four numbers (first: annotation {boxless[0]})"
        issues.append(Issue(file, f"{len(boxless)} {what}: left out"))
    for image in content["images"]:
        sides = float(image.get("height") or 0), float(image.get("width") or 0)
        yield Raw(
            file, str(image["file_name"]), tuple(objects[image["id"]]),
            sides if all(sides) else None, split or split_by_folder(image["file_name"]),
        )  # fmt: skip
