"""The classes of masks by name, as far as files, a model or a person name them."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from kzoo.segmentation.masks import VOID

PLAIN_IDS = 20  # ids up to there are ids, whether or not there are gaps
MOST_COLOURS = 40  # classes that colours without a label map may be


@dataclasses.dataclass(frozen=True)
class Void:
    """What masks ignore: a value, or classes by name."""

    value: int | None = None  # None: 255
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: "str | int | None") -> "Void":
        """Return what a --void means: 11, "Void", or "Void,Other". Raises ValueError."""
        words = [word.strip() for word in str("" if given is None else given).split(",")]
        words = [word for word in words if word]
        values = [int(word) for word in words if word.lstrip("-").isdecimal()]
        if len(values) > 1 or not all(0 <= value <= VOID for value in values):
            raise ValueError(
                f"void must be one value of masks, 0 to {VOID}, or class names separated by "
                f"commas. Received: {given}"
            )
        names = tuple(word for word in words if not word.lstrip("-").isdecimal())
        return cls(values[0] if values else None, names)

    def among(self, labels: Sequence[str] | None) -> tuple[int, ...]:
        """Return the ids of the classes that are ignored, sorted. Raises ValueError."""
        known = {label.casefold(): i for i, label in enumerate(labels or ())}
        for name in self.names:
            if name.casefold() not in known:
                what = f"The classes are {', '.join(labels)}." if labels else (
                    "No file names the classes: give the value that void has in the masks."
                )  # fmt: skip
                raise ValueError(f"void names the class {name!r}, which does not exist. {what}")
        return tuple(sorted({known[name.casefold()] for name in self.names}))


def without(labels: Sequence[str], ids: Sequence[int]) -> tuple[str, ...]:
    """Return the labels but those of these ids."""
    return tuple(label for i, label in enumerate(labels) if i not in ids)


@dataclasses.dataclass(frozen=True)
class Names:
    """The classes of masks, as far as files name them."""

    labels: tuple[str, ...] | None = None
    colours: Mapping[int, int] = dataclasses.field(default_factory=dict)  # colour: class
    source: str = ""  # what names colours or ids: a file, or the model
    ids: Mapping[int, int] = dataclasses.field(default_factory=dict)  # value: class

    @classmethod
    def of_model(cls, labels: tuple[str, ...]) -> "Names":
        """Return the classes of a model: the names that kzoo gave them tell their values."""
        found = [re.fullmatch(r"colour (\d+),(\d+),(\d+)|class (\d+)", label) for label in labels]
        parts = [one.groups() for one in found if one]
        if len(parts) < len(labels):
            return cls(labels)
        ids = {int(number): i for i, (*_, number) in enumerate(parts) if number}
        rgb = {
            colour_of([*map(int, own)]): i for i, (*own, number) in enumerate(parts) if not number
        }
        if len(ids) == len(labels) and is_sparse(list(ids)):
            return cls(labels, source="the model", ids=ids)
        return cls(labels, rgb, "the model") if len(rgb) == len(labels) else cls(labels)


def is_sparse(ids: Sequence[int]) -> bool:
    """Whether ids, sorted, are far apart and few, so that each is a class of its own."""
    return PLAIN_IDS <= max(ids, default=0) >= 2 * len(ids) - 1 and len(ids) <= MOST_COLOURS


def colour_of(rgb: Sequence[int]) -> int:
    return rgb[0] << 16 | rgb[1] << 8 | rgb[2]


def colour_name(colour: int) -> str:
    return f"colour {colour >> 16},{colour >> 8 & 255},{colour & 255}"
