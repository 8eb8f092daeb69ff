"""Masks in COCO json files: polygons or run lengths, which pycocotools decodes."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.masks import VOID
from kzoo.recipes.annotation_formats import Raw, files, is_coco, split_of, within
from kzoo.recipes.annotations import Finder
from kzoo.recipes.data import Defect

Coco = tuple[str | None, Path, "CocoMask"]  # split, picture, mask


@dataclasses.dataclass(frozen=True)
class Region:
    """What one annotation covers."""

    label: int  # of the mask; VOID for crowds
    area: float
    outline: Any  # polygons [[x, y, x, y, ...], ...] or run lengths {"counts": ..., "size": ...}


@dataclasses.dataclass(frozen=True)
class CocoMask:
    """The mask that a COCO file's annotations of a picture make."""

    path: Path  # of the COCO file
    size: tuple[int, int]  # (H, W)
    regions: tuple[Region, ...]  # larger ones first: where two overlap, the smaller is on top

    def read(self) -> np.ndarray:
        """Class ids (H, W): 0 where nothing is annotated."""
        from pycocotools import mask as coco

        ids = np.zeros(self.size, np.int32)
        for region in self.regions:
            runs = region.outline
            if isinstance(runs, list) or isinstance(runs["counts"], list):
                runs = coco.frPyObjects(runs, *self.size)
            covered = coco.decode(coco.merge(runs) if isinstance(runs, list) else runs)
            ids[covered > 0] = region.label
        return ids


def has_coco(data: Path) -> bool:
    return any(is_coco(file) for file in files(data, ".json"))


def read_coco(data: Path, defects: list[Defect]) -> tuple[tuple[str, ...], list[Coco]]:
    """(Labels, background first; pictures and masks). Raises ValueError for a broken file."""
    contents: dict[Path, Any] = {}
    for file in files(data, ".json"):
        if is_coco(file):
            try:
                contents[file] = json.loads(file.read_text(encoding="utf-8"))
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{file} is broken at line {error.lineno}, column {error.colno}: {error.msg}."
                ) from None
    names: dict[int, str] = {}
    found: list[Coco] = []
    try:
        for content in contents.values():
            names |= {int(c["id"]): str(c["name"]) for c in content["categories"]}
        index = {key: i for i, key in enumerate(sorted(names), 1)}
        finder = Finder(data if data.is_dir() else data.parent)
        for file, content in contents.items():
            found += one_file(file, content, index, finder, split_of(within(file, data)), defects)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is no COCO file: {type(error).__name__} {error}. It needs images (id, "
            "file_name, height, width), annotations (image_id, category_id, segmentation) and "
            "categories (id, name)."
        ) from None
    return ("background", *(names[key] for key in index)), found


def one_file(
    file: Path, content: Any, index: dict[int, int], finder: Finder, split: str | None,
    defects: list[Defect],
) -> Iterator[Coco]:  # fmt: skip
    regions: dict[Any, list[Region]] = {image["id"]: [] for image in content["images"]}
    without = 0
    for item in content["annotations"]:
        if not item.get("segmentation"):
            without += 1
        elif item["image_id"] in regions:
            label = VOID if item.get("iscrowd") else index[int(item["category_id"])]
            region = Region(label, float(item.get("area") or 0), item["segmentation"])
            regions[item["image_id"]].append(region)
    if without:
        defects.append(Defect(file, f"{without} objects have no segmentation: left out"))
    for image in content["images"]:
        size = int(image["height"]), int(image["width"])
        name = str(image["file_name"])
        picture = finder(Raw(file, name, (), size, split))
        if picture is None:
            defects.append(Defect(file, f"its picture {name!r} is missing: left out"))
            continue
        order = sorted(regions[image["id"]], key=lambda region: -region.area)
        yield split or split_of(name), picture, CocoMask(file, size, tuple(order))
