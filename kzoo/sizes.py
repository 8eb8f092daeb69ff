"""Sizes of images in px: one number is a square's side, a pair (height, width), as in Keras."""

import math
from typing import Literal

Size = int | tuple[int, int]
Tiles = tuple[int, int] | Literal["auto"]  # (rows, columns), or as many as help on each image


def height_width(size: Size) -> tuple[int, int]:
    """Return (height, width)."""
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return int(height), int(width)


def simplest(height: int, width: int) -> Size:
    """Return the side of a square, else (height, width)."""
    return height if height == width else (height, width)


def scaled(size: Size, factor: float, *, multiple: int = 1, least: int = 1) -> Size:
    """Return the size with sides `factor` times as long, rounded to multiples, `least` or more."""
    height, width = (
        max(least, multiple * round(side * factor / multiple)) for side in height_width(size)
    )
    return simplest(height, width)


def mean_side(size: Size) -> float:
    """Return the side of a square of the same area."""
    return math.sqrt(math.prod(height_width(size)))


def size_text(size: Size) -> str:
    """Return a size as --size takes it: 320 for a square, else WIDTHxHEIGHT, such as 320x240."""
    height, width = height_width(size)
    return str(height) if height == width else f"{width}x{height}"


def tiles_text(tiles: Tiles) -> str:
    """Return tiles as --tiles takes them: auto, or ROWSxCOLUMNS, such as 2x2."""
    return tiles if isinstance(tiles, str) else f"{tiles[0]}x{tiles[1]}"
