"""MixUp and CutMix: training images made of two, whose targets are shared between both classes."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kzoo.arguments import is_number, require


def require_share(name: str, value: Any, most: float) -> None:
    """Raise ValueError unless the value is a finite number in [0, most]."""
    holds = is_number(value) and 0 <= value <= most and value < math.inf
    wanted = "a finite number, 0 or more" if most == math.inf else f"a number in [0, {most:g}]"
    require(name, value, holds, wanted)


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How images are mixed with the next one of their batch.

    mixup: alpha of the Beta distribution that weighs two images (https://arxiv.org/abs/1710.09412);
        0: images are never blended.
    cutmix: alpha of that which says how much of an image stays (https://arxiv.org/abs/1905.04899),
        the rest being a rectangle of the other; 0: none has one.
    share: of the images, that are mixed at all; half of them each way where both are on.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        require_share("mixup", self.mixup, math.inf)
        require_share("cutmix", self.cutmix, math.inf)
        require_share("share", self.share, 1)

    def __call__(
        self, images: np.ndarray, last: np.ndarray, rngs: Sequence[np.random.Generator]
    ) -> np.ndarray:
        """Mix each image (N, H, W, C) with the next one, the last with `last`, in place.

        Returns (N,): how much of each is its own, in [0, 1]. `rngs` are the images' generators.
        """
        following = [*images[1:], np.array(last)]  # a copy: it may be the first of them
        pairs = zip(images, following, rngs, strict=True)
        return np.array([self.mix(image, other, rng) for image, other, rng in pairs], "float32")

    def mix(self, image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> float:
        """Mix one image (H, W, C) with another, in place; return how much of it is left."""
        if rng.random() >= self.share or not (self.mixup or self.cutmix):
            return 1.0
        cut = self.cutmix and (not self.mixup or rng.random() < 0.5)
        if not cut:
            own = rng.beta(self.mixup, self.mixup)
            own = max(own, 1 - own)  # the image keeps the larger part: its weight is its class's
            image *= np.float32(own)
            image += np.float32(1 - own) * other
            return own
        own = rng.beta(self.cutmix, self.cutmix)
        sides = np.array(image.shape[:2])
        centre = rng.uniform(0, 1, 2) * sides
        half = np.sqrt(1 - own) * sides / 2
        low, high = (np.clip(edge.round().astype(int), 0, sides) for edge in (
            centre - half, centre + half,
        ))  # fmt: skip
        box = (slice(low[0], high[0]), slice(low[1], high[1]))
        image[box] = other[box]
        return 1 - float(np.prod(high - low) / np.prod(sides))
