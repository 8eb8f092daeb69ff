"""A remark if the model's input distorts the aspect ratio of most images, with a better size."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from kzoo.recipes.inputs import LEAST_SIDE
from kzoo.sizes import Size, height_width, mean_side, simplest, size_text

SQUASHED = 1.15  # largest ratio of aspects without a remark
# There is a remark if a share of MOST images have an aspect within a factor of ALIKE of the median.
ALIKE, MOST = 1.1, 0.5
STEP = 16  # px


def aspect_remark(sizes: Sequence[tuple[int, int]], size: Size) -> str | None:
    """Return a remark if most images, of these (height, width), are distorted at input `size`.

    None if most have about the input's aspect ratio, or no common one.
    """
    known = [math.log(width / height) for height, width in sizes if height and width]
    if not known:
        return None
    middle, (height, width) = float(np.median(known)), height_width(size)
    share = float(np.mean(np.abs(np.array(known) - middle) < math.log(ALIKE)))
    if share < MOST or abs(middle - math.log(width / height)) < math.log(SQUASHED):
        return None
    aspect = math.exp(middle)
    shape = f"{aspect:.2f} times as wide as high" if aspect > 1 else (
        f"{1 / aspect:.2f} times as high as wide"
    )  # fmt: skip
    return (
        f"{share:.0%} of the images are about {shape}, and the input of {width} x {height} px "
        f"squashes them: --size {size_text(size_of_aspect(size, aspect))} keeps their shapes at "
        "about the same cost. A square was as good on photos of 3:4, so compare both."
    )


def size_of_aspect(size: Size, aspect: float) -> Size:
    """Return a size of about the same area with this width / height, in multiples of 16."""
    side = mean_side(size)
    sides = (side / math.sqrt(aspect), side * math.sqrt(aspect))
    heights, widths = (
        [max(LEAST_SIDE, STEP * round_(length / STEP)) for round_ in (math.floor, math.ceil)]
        for length in sides
    )

    def far(pair: tuple[int, int]) -> float:
        height, width = pair
        area = abs(math.log(height * width / side**2))
        return area + abs(math.log(width / height / aspect))

    return simplest(*min(itertools.product(heights, widths), key=far))
