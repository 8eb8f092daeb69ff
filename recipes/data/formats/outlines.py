"""Outlines of objects, and the pixels that they cover: polygons and COCO's run lengths.

What cannot be drawn is found when the file is read: pycocotools itself meets it with all kinds of
errors, or with memory that nobody has written.
"""

from typing import Any

import numpy as np

from kzoo.recipes.data.text import numbers

Size = tuple[int, int]  # (H, W)
FARTHEST = 1e5  # px; pycocotools takes memory by the length of an outline
CORNERS = 48  # of a polygon that stands for an ellipse


def covered(outline: Any, size: Size) -> np.ndarray:
    """Return whether each pixel lies inside, (H, W) bool, of an outline without a `fault`."""
    if isinstance(outline, dict):
        lengths = run_lengths(outline["counts"])
        inside = np.arange(len(lengths)) % 2 == 1
        return np.repeat(inside, lengths).reshape(size[::-1]).T  # they go column by column
    from pycocotools import mask as coco

    return coco.decode(coco.frPyObjects([outline], *size))[..., 0] > 0


def runs_of(inside: np.ndarray) -> dict[str, Any]:
    """Return the run lengths of a mask (H, W), as COCO has them."""
    flat = inside.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *edges, flat.size]).tolist()
    return {"counts": [0, *lengths] if flat[0] else lengths, "size": [*inside.shape]}


def circle(x: float, y: float, across: float, down: float) -> list[float]:
    """Return a polygon that stands for an ellipse of these half axes."""
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    return np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], -1).ravel().tolist()


def run_lengths(counts: list[int] | str) -> list[int]:
    """Return how many pixels are outside, inside, outside and so on. Raises ValueError.

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
    """Return why an outline cannot be drawn on an image of that size, or None."""
    if isinstance(outline, list):
        corners = numbers(outline)
        if len(outline) < 6 or len(outline) % 2:
            return f"a polygon of {len(outline)} numbers, not of three corners or more"
        if not corners or max(map(abs, corners)) > FARTHEST:
            return f"a polygon with a corner that is not a number or beyond {FARTHEST:g} px"
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


def scaled(outline: Any, by: tuple[float, float]) -> Any:
    """Return a polygon with y and x times so much; run lengths as they are."""
    if not isinstance(outline, list) or by == (1, 1) or len(numbers(outline)) != len(outline):
        return outline
    return [value * by[1 - i % 2] for i, value in enumerate(outline)]
