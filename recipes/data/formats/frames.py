"""What the coordinates of annotations are of: the image as it is seen, as it is stored, or scaled.

The size that an annotation gives may be that of the image before EXIF turned it or before it was
resized. Or it is wrong, as where width and height are swapped: what the objects fit tells.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from kzoo.recipes.data.formats.records import Matched, Record
from kzoo.recipes.data.images import Look
from kzoo.recipes.data.pixels import TURNED
from kzoo.recipes.data.text import Issue

Size = tuple[float, float]  # (H, W)
SHARES = (1.0, 1.0)  # the size of coordinates that are shares of the image's sides
ENOUGH = 0.2  # share of images whose objects fit one of two sizes alone, for it to count


@dataclasses.dataclass(frozen=True)
class Frame:
    """What a record's coordinates are of."""

    size: Size
    turn: int = 1  # the EXIF orientation to turn them by


def alike(a: Size, b: Size) -> bool:
    """Whether two sizes have the same shape, to 2 %."""
    return abs(a[0] * b[1] - a[1] * b[0]) <= 0.02 * a[0] * b[1]


def stored_size(look: Look) -> tuple[int, int]:
    """Return (H, W) of an image before its EXIF has turned it."""
    return look.size[::-1] if look.orientation in TURNED else look.size


def frames_of(
    found: Sequence[Matched], looks: Sequence[Look], issues: list[Issue]
) -> list[Frame | None]:
    """Return the frame of each record; None, and an issue, where it cannot be known.

    Records that give no size, a wrong one or a swapped one are decided on together.
    """
    frames: list[Frame | None] = [Frame(item.record.size or look.size) for item, look in
                                  zip(found, looks, strict=True)]  # fmt: skip
    sizeless, swapped, resized = Sizes(), Sizes(), Sizes()
    unsure: list[Path] = []
    for i, (item, look) in enumerate(zip(found, looks, strict=True)):
        size, seen, stored = item.record.size, look.size, stored_size(look)
        if look.fault:
            continue
        if size is None and seen != stored:
            sizeless.add(i, item.record, stored, seen)
        elif size in (None, SHARES) or stored == seen:
            if look.orientation != 1 and item.record.objects:
                unsure.append(item.path)
            if size is not None and size == seen[::-1] and size != seen:
                swapped.add(i, item.record, size, seen)
            elif size not in (None, SHARES, seen) and min(size or SHARES) > 0:
                resized.add(i, item.record, size, seen)
        elif size is not None and alike(size, stored):
            frames[i] = Frame(size, look.orientation)
    for i in sizeless.places:
        if sizeless.first and not sizeless.second:
            frames[i] = Frame(stored_size(looks[i]), looks[i].orientation)
        elif not sizeless.second:
            unsure.append(found[i].path)
    if swapped.first:
        for i in swapped.places:
            frames[i] = None
            issues.append(Issue(found[i].path, f"{unlike(found[i].record, looks[i])}: left out"))
    misread = [] if swapped.first else swapped.places
    misread = misread + (resized.places if resized.second and not resized.first else [])
    for i in misread:
        frames[i] = Frame(looks[i].size)
    if misread:
        i = misread[0]
        reason = f"{unlike(found[i].record, looks[i])}, which the objects fit: read as its pixels"
        issues.append(Issue(found[i].path, f"{reason} ({len(misread)} in all)"))
    tell_unsure(unsure, issues)
    return frames


class Sizes:
    """Records that may be of either of two sizes, and what their objects say."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.fitting: list[tuple[bool, bool]] = []

    def add(self, place: int, record: Record, first: Size | None, second: Size) -> None:
        self.places.append(place)
        if record.objects:
            self.fitting.append((fits(record, first or second), fits(record, second)))

    @property
    def first(self) -> bool:
        """Whether enough of them fit the first size alone."""
        return self.alone((True, False))

    @property
    def second(self) -> bool:
        """Whether enough of them fit the second size alone."""
        return self.alone((False, True))

    def alone(self, which: tuple[bool, bool]) -> bool:
        count = self.fitting.count(which)
        return count > 0 and count >= ENOUGH * len(self.fitting)


def fits(record: Record, size: Size) -> bool:
    """Whether all objects lie on an image of that size, but for 1 % and 2 px."""
    extents = [item.extent for item in record.objects]
    height, width = (1.01 * side + 2 for side in size)
    return all(len(e) == 4 and e[2] <= height and e[3] <= width for e in extents if e)


def unlike(record: Record, look: Look) -> str:
    """Return what differs between the sizes of an annotation and its image."""
    height, width = record.size or look.size
    return (
        f"its annotation is of {width:g} x {height:g} px, the image has "
        f"{look.size[1]} x {look.size[0]}"
    )


def tell_unsure(paths: Sequence[Path], issues: list[Issue]) -> None:
    """Add an issue for images with an EXIF orientation that their annotations may know or not."""
    if paths:
        reason = (
            "is turned by its EXIF, and nothing tells whether it was annotated before that: read "
            f"as annotated as it is seen ({len(paths)} in all). If that is wrong, remove the EXIF "
            "orientation"
        )
        issues.append(Issue(paths[0], reason))
