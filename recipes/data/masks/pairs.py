"""Images with their masks, in files or packed."""

import dataclasses
import io
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from kzoo.old_names import renamed_attribute
from kzoo.recipes.data.images import Images, Source
from kzoo.recipes.data.masks.drawn import DrawnMask
from kzoo.recipes.data.masks.files import MaskFile
from kzoo.recipes.data.packed import Record, Records
from kzoo.sizes import Size, height_width

BACKGROUND = "background"


@dataclasses.dataclass(frozen=True)
class PackedMask:
    """The mask beside a packed image, looked at when it was packed."""

    record: Record

    @property
    def path(self) -> Path:
        return Path(self.record.name)

    @property
    def mark(self) -> bytes:
        """Nothing: the index of a packed folder has a digest of all that is in it."""
        return b""

    def read(self) -> np.ndarray:
        """Return class ids (H, W)."""
        with Image.open(io.BytesIO(self.record.mask())) as image:
            return np.asarray(image)


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its mask."""

    image: Source
    mask: MaskFile | DrawnMask | PackedMask
    picture: ClassVar[property] = renamed_attribute("picture", "image")


class PackedPairs(Sequence[Pair]):
    """The images of a packed split with their masks."""

    def __init__(self, records: Records):
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        return Pair(self.records[i], PackedMask(self.records[i]))


@dataclasses.dataclass(frozen=True)
class Seen:
    """A pair that can be used."""

    pair: Pair
    counts: Counter[int]  # pixels of each class
    edge: Counter[int]  # the same, at the edge of the image
    split: str | None


class Masked(Sequence[Any]):
    """Pairs as (image (H, W, 3), mask (H, W)), uint8, kept in memory as far as it goes.

    Images are stretched to the size bilinearly, masks by nearest neighbour.
    """

    def __init__(self, pairs: Sequence[Pair], size: Size):
        self.pairs, self.size = pairs, size
        self.images = Images([pair.image for pair in pairs], size)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: Any) -> Any:
        return self.images[i], self.mask(self.pairs[i])

    def mask(self, pair: Pair) -> np.ndarray:
        """Return the mask of a pair (H, W), kept in memory with the images, compressed."""
        if not isinstance(pair.image, Path):
            return resized_mask(pair, self.size)
        decoded, key = self.images.decoded, (pair.image, self.images.size, "mask")
        kept = decoded.images.get(key)
        if kept is None:
            mask = resized_mask(pair, self.size)
            decoded.keep(key, np.frombuffer(zlib.compress(mask.tobytes(), 1), "uint8"))
            return mask
        return np.frombuffer(zlib.decompress(kept.tobytes()), "uint8").reshape(
            height_width(self.size)
        )


def resized_mask(pair: Pair, size: Size) -> np.ndarray:
    """Return the mask of a pair at `size`, resized by nearest neighbour."""
    height, width = height_width(size)
    whole = Image.fromarray(full_mask(pair))
    return np.asarray(whole.resize((width, height), Image.Resampling.NEAREST))


def full_mask(pair: Pair) -> np.ndarray:
    """Return the mask of a pair at its image's own size, uint8."""
    return pair.mask.read().astype("uint8")
