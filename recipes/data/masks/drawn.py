"""Masks that the outlines of annotations make."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kzoo.recipes.data.formats.frames import SHARES, Frame, alike, stored_size
from kzoo.recipes.data.formats.outlines import Size, covered, fault, run_lengths, scaled
from kzoo.recipes.data.formats.records import Matched
from kzoo.recipes.data.images import Look
from kzoo.recipes.data.pixels import TRANSPOSED
from kzoo.recipes.data.text import numbers
from kzoo.segmentation.masks import VOID


@dataclasses.dataclass(frozen=True)
class Region:
    """What one annotation covers."""

    label: int  # of the mask; VOID for crowds and unknown classes
    area: float
    outlines: tuple[Any, ...]  # polygons [x, y, x, y, ...], run lengths {"counts":, "size":}


@dataclasses.dataclass(frozen=True)
class DrawnMask:
    """The mask that the annotations of an image make."""

    path: Path  # of the annotation file
    size: Size  # that outlines are drawn at
    regions: tuple[Region, ...]  # larger ones first: where two overlap, the smaller is on top
    orientation: int = 1  # of the image's EXIF, where they were drawn on it as it is stored

    @property
    def mark(self) -> bytes:
        """What tells it apart from one that was changed."""
        return repr([(region.label, region.outlines) for region in self.regions]).encode()

    def read(self) -> np.ndarray:
        """Return class ids (H, W): 0 where nothing is annotated."""
        ids = np.zeros(self.size, np.int32)
        for region in self.regions:
            for outline in region.outlines:
                ids[covered(outline, self.size)] = region.label
        if self.orientation == 1:
            return ids
        whole = Image.fromarray(ids.astype("uint8")).transpose(TRANSPOSED[self.orientation])
        return np.asarray(whole).astype(np.int32)


def other_size(item: Matched, look: Look, frame: Frame) -> str | None:
    """Return why an annotation is not of its image's size, or None."""
    size = frame.size
    if size == SHARES or (min(size) > 0 and (frame.turn != 1 or alike(size, look.size))):
        return None
    height, width = look.size
    return f"has {size[1]:.0f} x {size[0]:.0f} px, {item.path.name} has {width} x {height}"


def mask_of(
    item: Matched,
    look: Look,
    frame: Frame,
    index: dict[str, int],
    left: Counter[Any],
    broken: dict[Path, list[str]],
) -> DrawnMask:
    """Return the mask of a record; what cannot be drawn is counted in `left` and `broken`."""
    record = item.record
    own = look.size if frame.turn == 1 else stored_size(look)
    by = (own[0] / frame.size[0], own[1] / frame.size[1])
    regions = []
    for thing in record.objects:
        if not thing.outlines:
            left[record.source, "objects have no segmentation: left out"] += 1
            continue
        outlines = [scaled(outline, by) for outline in thing.outlines]
        faults = [fault(outline, own) for outline in outlines]
        if any(faults):
            where = f"{thing.name} of {record.image or item.path.name}".strip()
            broken.setdefault(record.source, []).append(f"{where}: {next(filter(None, faults))}")
        sound = tuple(o for o, why in zip(outlines, faults, strict=True) if not why)
        label = VOID if thing.crowd else index.get(thing.label)
        if label is None:  # something is there, and none of the classes: no ground to learn either
            label = VOID
            what = f"objects of unknown class {thing.label!r}: left out, their pixels are void"
            left[record.source, what] += 1
        regions.append(Region(label, area_of(sound), sound))
    regions.sort(key=lambda region: -region.area)
    return DrawnMask(record.source, own, tuple(regions), frame.turn)


def area_of(outlines: Sequence[Any]) -> float:
    """Return the area of outlines; what annotations say of it is often that of the box, or 1."""
    total = 0.0
    for outline in outlines:
        if isinstance(outline, list):
            x, y = np.array(numbers(outline)).reshape(-1, 2).T
            total += abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
        else:
            total += sum(run_lengths(outline["counts"])[1::2])
    return total
