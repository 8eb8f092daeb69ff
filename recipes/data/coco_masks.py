"""Masks in COCO json files: polygons, which pycocotools draws, or run lengths.

What cannot be drawn is found when the file is read: pycocotools itself meets it with all kinds of
errors, or with memory that nobody has written.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.recipes.data.box_dataset import Finder
from kzoo.recipes.data.coco_boxes import (
    Raw,
    as_coco,
    category_of,
    files,
    is_coco,
    numbers,
    read_json,
    split_by_folder,
    split_of,
    within,
)
from kzoo.recipes.data.images import Issue
from kzoo.segmentation.masks import VOID

Coco = tuple[str | None, Path, "CocoMask"]  # split, image, mask
Size = tuple[int, int]  # (H, W)
FARTHEST = 1e5  # px; pycocotools takes memory by the length of an outline
NEEDS = "images (id, file_name, height, width), annotations (image_id, category_id, segmentation)"


@dataclasses.dataclass(frozen=True)
class Region:
    """What one annotation covers."""

    label: int  # of the mask; VOID for crowds and unknown categories
    area: float
    outlines: tuple[Any, ...]  # polygons [x, y, x, y, ...], run lengths {"counts":, "size":}


@dataclasses.dataclass(frozen=True)
class CocoMask:
    """The mask that a COCO file's annotations of an image make."""

    path: Path  # of the COCO file
    size: Size
    regions: tuple[Region, ...]  # larger ones first: where two overlap, the smaller is on top

    def read(self) -> np.ndarray:
        """Class ids (H, W): 0 where nothing is annotated."""
        ids = np.zeros(self.size, np.int32)
        for region in self.regions:
            for outline in region.outlines:
                ids[covered(outline, self.size)] = region.label
        return ids


def covered(outline: Any, size: Size) -> np.ndarray:
    """Whether each pixel lies inside, (H, W) bool, of an outline without a `fault`."""
    if isinstance(outline, dict):
        lengths = run_lengths(outline["counts"])
        inside = np.arange(len(lengths)) % 2 == 1
        return np.repeat(inside, lengths).reshape(size[::-1]).T  # they go column by column
    from pycocotools import mask as coco

    return coco.decode(coco.frPyObjects([outline], *size))[..., 0] > 0


def run_lengths(counts: list[int] | str) -> list[int]:
    """How many pixels are outside, inside, outside and so on. Raises ValueError.

    A text packs them as maskApi.c's rleToString does: five bits a character, the lowest first; from
    the fourth number on it is the difference from the last but one.
    """
    if isinstance(counts, list):
        lengths = [int(value) for value in numbers(counts)]
        if lengths != counts:
            raise ValueError("they are not whole numbers")
        return lengths
    lengths, number, shift = [], 0, 0
    for character in counts.encode("ascii"):
        digit = character - 48
        if not 0 <= digit < 64:
            raise ValueError(f"they hold {chr(character)!r}")
        number |= (digit & 31) << shift
        shift += 5
        if digit & 32:  # more to come
            continue
        if digit & 16:  # negative
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("they end within a number")
    return lengths


def fault(outline: Any, size: Size) -> str | None:
    """Why an outline cannot be drawn on an image of that size, or None."""
    if isinstance(outline, list):
        corners = numbers(outline)
        if len(outline) < 6 or len(outline) % 2:
            return f"a polygon of {len(outline)} numbers, not of three corners or more"
        if not corners or max(map(abs, corners)) > FARTHEST:
            return f"a polygon with a corner that is no number or beyond {FARTHEST:g} px"
        return None
    if not isinstance(outline, dict) or not isinstance(outline.get("counts"), list | str):
        return "neither a polygon nor run lengths"
    if outline.get("size") != [*size]:
        return f"run lengths of size {outline.get('size')}, the image's is {[*size]}"
    try:
        lengths = run_lengths(outline["counts"])
    except ValueError as error:
        return f"broken run lengths: {error}"
    if min(lengths, default=0) < 0:
        return "broken run lengths: one of them is negative"
    if sum(lengths) != size[0] * size[1]:
        return f"run lengths of {sum(lengths)} px in all, the image has {size[0] * size[1]}"
    return None


def has_coco(data: Path) -> bool:
    return any(is_coco(file) for file in files(data, ".json"))


def read_coco(data: Path, issues: list[Issue]) -> tuple[tuple[str, ...], list[Coco]]:
    """(Labels, background first; images and masks). Raises ValueError for a broken file."""
    contents = {file: read_json(file) for file in files(data, ".json") if is_coco(file)}
    names: dict[int, str] = {}
    for file, content in contents.items():
        with as_coco(file, NEEDS):
            names |= {int(c["id"]): str(c["name"]) for c in content["categories"]}
    index = {key: i for i, key in enumerate(sorted(names), 1)}
    finder = Finder(data if data.is_dir() else data.parent)
    found: list[Coco] = []
    for file, content in contents.items():
        with as_coco(file, NEEDS):
            found += one_file(file, content, index, finder, split_of(within(file, data)), issues)
    return ("background", *(names[key] for key in index)), found


def one_file(
    file: Path, content: Any, index: dict[int, int], finder: Finder, split: str | None,
    issues: list[Issue],
) -> Iterator[Coco]:  # fmt: skip
    regions = regions_of(file, content, index, issues)
    for entry in content["images"]:
        name, size = str(entry["file_name"]), size_of(entry)
        image = finder(Raw(file, name, (), size, split))
        if image is None:
            issues.append(Issue(file, f"its image {name!r} is missing: left out"))
            continue
        order = sorted(regions[entry["id"]], key=lambda region: -region.area)
        yield split or split_by_folder(name), image, CocoMask(file, size, tuple(order))


def regions_of(
    file: Path, content: Any, index: dict[int, int], issues: list[Issue]
) -> dict[Any, list[Region]]:
    """What each image's annotations cover; those that cannot be used are counted in `issues`."""
    images = {image["id"]: image for image in content["images"]}
    regions: dict[Any, list[Region]] = {key: [] for key in images}
    left: Counter[str] = Counter()
    broken: list[str] = []  # of each object with a fault in its outline: which, and what fault
    for item in content["annotations"]:
        key, outlines = item.get("image_id"), outlines_of(item.get("segmentation"))
        if key not in images:
            left["objects on images that it does not name: left out"] += 1
            continue
        if not outlines:
            left["objects have no segmentation: left out"] += 1
            continue
        faults = [fault(outline, size_of(images[key])) for outline in outlines]
        if any(faults):
            where = f"annotation {item.get('id', 'without an id')} of {images[key]['file_name']}"
            broken.append(f"{where}: {next(filter(None, faults))}")
        sound = tuple(o for o, why in zip(outlines, faults, strict=True) if not why)
        label = VOID if item.get("iscrowd") else index.get(category_of(item))
        if label is None:  # something is there, and none of the classes: no ground to learn either
            name, label = f"category {item.get('category_id')}", VOID
            left[f"objects of unknown class {name!r}: left out, their pixels are void"] += 1
        area = numbers([item.get("area")]) or [0.0]
        regions[key].append(Region(label, area[0], sound))
    if broken:
        what = f"objects have outlines that cannot be drawn (first: {broken[0]}): left out"
        left[what] = len(broken)
    issues += [Issue(file, f"{count} {what}") for what, count in left.items()]
    return regions


def size_of(image: dict[str, Any]) -> Size:
    return int(image["height"]), int(image["width"])


def outlines_of(segmentation: Any) -> list[Any]:
    """The polygons or run lengths of an annotation: as a list, also of a single one."""
    if isinstance(segmentation, list):
        return segmentation
    return [segmentation] if segmentation else []
