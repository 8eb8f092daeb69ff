"""Batches of images and masks, augmented alike.

As in data/augment.py, what a model sees in an epoch is a function of seed and epoch alone.
"""

from collections.abc import Sequence

import numpy as np

from kzoo.recipes.data.augment import Augment, Epoch, warp
from kzoo.recipes.data.masks.pairs import Masked, Pair
from kzoo.segmentation.masks import VOID
from kzoo.sizes import Size, height_width, scaled


class MaskBatches(Epoch):
    """One epoch of (images (N, H, W, 3) float32, masks (N, H, W) uint8), in order.

    With `augment` both are moved by the same map, the image is recoloured too, and what comes
    from outside of it is void. `margin`: images are kept so many times larger than they are seen.
    """

    def __init__(
        self, pairs: Sequence[Pair], size: Size, *, batch_size: int, augment: Augment | None = None,
        margin: float = 1.0,
    ):  # fmt: skip
        super().__init__(len(pairs), batch_size)
        self.masked = Masked(pairs, scaled(size, margin) if augment else size)
        self.size, self.augment = size, augment

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        chosen, counted = self.own(i)
        images = np.empty((len(chosen), *height_width(self.size), 3), "float32")
        masks = np.empty(images.shape[:3], "uint8")
        for row, j in enumerate(chosen):
            self.example(j, images[row], masks[row])
        masks[~counted] = VOID
        return images, masks

    def example(self, j: int, image_out: np.ndarray, mask_out: np.ndarray) -> None:
        """Write an example into its rows of a batch: (H, W, 3) float32, (H, W) uint8."""
        image, mask = self.masked[j]
        if self.augment is None:
            image_out[...], mask_out[...] = image, mask
            return
        rng = self.rng(j)
        place = self.augment.place(self.masked.size, self.size, rng)
        self.augment.recolour(warp(image, self.size, place), rng, out=image_out)
        mask_out[...] = warp(mask, self.size, place, fill=VOID, nearest=True)
