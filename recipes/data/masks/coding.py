"""Which class each value of a mask means.

A mask is an image of class ids (Pillow's mode P, whose indices count, or L, also with 16 bits), or
of colours that a label map names. People's masks also hold 0 and 255, soft edges, evenly spaced
grey values, and copies of these in RGB: what is meant is decided for all masks of a data set at
once, and said.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from kzoo.recipes.data.masks.names import (
    MOST_COLOURS,
    PLAIN_IDS,
    Names,
    Void,
    colour_name,
    colour_of,
    is_sparse,
    without,
)
from kzoo.segmentation.masks import VOID

SOFT = 0.1  # share of the range, at each end, where values of a soft-edged mask mostly lie
SOFT_PIXELS = 0.8  # share of the pixels that lie there
COMMON = 0.01  # share of the pixels that a colour without a name may have and be void
BORDER = (224, 224, 192)  # Pascal VOC's colour of void
IN_COLOUR = ("RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")  # modes of Pillow's
GREY = 0x010101  # times a grey value: its colour


@dataclasses.dataclass(frozen=True)
class Values:
    """What a mask file holds."""

    size: tuple[int, int]  # (H, W)
    counts: Mapping[int, int]  # pixels by value: a grey value, an index, or a colour 0xRRGGBB
    edge: Mapping[int, int]  # the same, at the edge of the image
    colours: bool = False  # whether a pixel is not grey
    palette: Mapping[int, int] = dataclasses.field(default_factory=dict)  # index: colour
    lossy: bool = False
    mode: str = "L"
    remark: str | None = None  # on how the file was read

    @property
    def by_colour(self) -> Mapping[int, int]:
        """Pixels by colour, of a mask in colours that may all be grey."""
        return self.counts if self.colours else {key * GREY: n for key, n in self.counts.items()}


@dataclasses.dataclass(frozen=True)
class Coding:
    """Which class each value of the masks means."""

    void: int = VOID  # the value that is ignored
    ids: Mapping[int, int] | None = None  # class by value; None: values are ids themselves
    threshold: int | None = None  # above: class 1, else class 0
    by_colour: bool = False  # palettes' indices and grey pixels are read by their colours
    left_out: tuple[int, ...] = ()  # classes that are ignored; those above move down

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return class ids, with VOID where nothing counts, of values of any shape."""
        ids = self.with_all(values)
        if not self.left_out:
            return ids
        void = (ids == VOID) | np.isin(ids, self.left_out)
        lower = np.searchsorted(self.left_out, ids).astype(np.int32)
        return np.where(void, np.int32(VOID), ids - lower)

    def with_all(self, values: np.ndarray) -> np.ndarray:
        """Return class ids as they are before any class is left out."""
        if self.threshold is not None:
            return (values > self.threshold).astype(np.int32)
        if self.ids is not None:
            keys, where = np.unique(values, return_inverse=True)
            classes = np.array([self.ids.get(int(key), VOID) for key in keys], np.int32)
            return classes[where].reshape(values.shape)
        return np.where(values == self.void, VOID, values).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Decided:
    """How the masks of a data set are read."""

    coding: Coding
    colours: Coding | None  # of masks of colours; None: they cannot be read
    labels: tuple[str, ...] | None  # names that follow from it, where none are given
    remarks: tuple[str, ...] = ()
    in_colour: bool = False  # whether masks in RGB are read by colours where they are grey too

    def coding_of(self, values: Values) -> Coding | None:
        """Return how a mask is read; None where it cannot be."""
        return self.colours if is_tinted(values, self.in_colour) else self.coding


def is_tinted(values: Values, in_colour: bool) -> bool:
    """Whether a mask is read by colours: of one in RGB that is all grey `in_colour` says it."""
    return values.colours or (in_colour and values.mode in IN_COLOUR and not values.lossy)


def decide(found: Sequence[Values], names: Names, void: Void) -> Decided:
    """Return how masks of these values are read, with the labels that are left of the names.

    Raises ValueError where `void` names a class that is not there.
    """
    decided = decide_with_all(found, names, void.value)
    ids = void.among(decided.labels)
    if not ids:
        return decided
    coding, colours = (
        part and dataclasses.replace(part, left_out=ids)
        for part in (decided.coding, decided.colours)
    )
    assert coding
    assert decided.labels
    labels = without(decided.labels, ids)
    return dataclasses.replace(decided, coding=coding, colours=colours, labels=labels)


def decide_with_all(found: Sequence[Values], names: Names, void: int | None) -> Decided:
    """Return how masks of these values are read; `void` is the value that is ignored."""
    greys = [v for v in found if v.mode in IN_COLOUR and not (v.colours or v.lossy)]
    named = {key for values in greys for key in values.by_colour} <= names.colours.keys()
    in_colour = (bool(greys) and named) or any(v.colours and not v.lossy for v in found)
    tinted = [values for values in found if is_tinted(values, in_colour)]
    plain = [values for values in found if not is_tinted(values, in_colour)]
    remarks: list[str] = []
    labels = names.labels
    coding, more = Coding(VOID if void is None else void), None
    by_palette = palette_coding(plain, names)
    if by_palette:
        coding, more, remark = by_palette
        remarks += [remark] if remark else []
    elif plain and names.ids:
        coding = Coding(coding.void, names.ids)
    elif plain:
        coding, more, remark = grey_coding(plain, labels, void)
        remarks += [remark] if remark else []
    labels = labels or more
    colours = None
    if tinted:
        colours, more, remark = colour_coding(tinted, names, alone=not plain)
        remarks += [remark] if remark else []
        labels = labels or more
    return Decided(coding, colours, labels, tuple(remarks), in_colour)


Reading = tuple[Coding, tuple[str, ...] | None, str]  # coding, names that follow, what to say


def grey_coding(
    found: Sequence[Values], labels: tuple[str, ...] | None, void: int | None
) -> Reading:
    """Return how masks of grey values or indices are read."""
    total: Counter[int] = Counter()
    for values in found:
        total.update(values.counts)
    keys = sorted(total)
    nothing = VOID if void is None else void
    plain = Coding(nothing)
    own = [key for key in keys if key != nothing]
    most, count = keys[-1], len(labels) if labels else 0
    lossy = any(values.lossy for values in found)
    two = count in (0, 2)  # of more classes, 255 is void wherever it stands
    if void is None and own == [0] and most == VOID and two:
        return Coding(ids={0: 0, VOID: 1}), None, (
            "masks hold nothing but 0 and 255: 255 is read as class 1"
        )  # fmt: skip
    mixed = any({1, VOID} <= values.counts.keys() for values in found)
    if void is None and own == [0, 1] and most == VOID and two and not mixed:
        return Coding(ids={0: 0, 1: 1, VOID: 1}), None, (
            "some masks hold 0 and 1, others 0 and 255: 255 is read as class 1 (--void 255 if not)"
        )  # fmt: skip
    if labels and own and own[-1] < count and not lossy:
        return plain, None, ""
    even = keys if void is None else own
    steps = even_steps(even, count)
    if len(own) == 2 and own[0] == 0 and own[1] >= PLAIN_IDS and two and not steps:
        coding = Coding(ids={0: 0, own[1]: 1})
        remark = f"masks hold nothing but 0 and {own[1]}: {own[1]} is read as class 1"
        if void is None and most == VOID and labels:
            raise ValueError(
                f"Masks hold 0, {own[1]} and 255, and the classes are {' and '.join(labels)}. Say "
                f"which value is void: --void {own[1]} or --void 255."
            )
        if void is None and most == VOID:
            remark = (
                f"masks hold 0, {own[1]} and 255: {own[1]} is read as class 1, 255 as void (--void "
                f"{own[1]} if it is the other way round)"
            )
        return coding, None, remark
    soft = [key for key in keys if SOFT * most < key < (1 - SOFT) * most]
    share = 1 - sum(total[key] for key in soft) / total.total()
    if two and most >= 100 and len(keys) > PLAIN_IDS and share >= SOFT_PIXELS:
        threshold = most // 2
        remark = (
            f"masks hold {len(keys)} grey values, most of them near 0 and {most}, as soft edges "
            f"have: above {threshold} is read as class 1"
        )
        return Coding(threshold=threshold), None, remark
    if steps:
        shown = ", ".join(map(str, even))
        remark = (
            f"masks hold the evenly spaced values {shown}: read as classes 0 to {len(even) - 1}"
        )
        if VOID in even:
            remark += f". If {even[1]} or 255 is void, say --void {even[1]} or --void 255"
        return Coding(ids=steps), None, remark
    if not labels and is_sparse(own):
        ids = {key: i for i, key in enumerate(own)}
        remark = f"masks hold {len(own)} of the ids to {own[-1]}: each is a class of its own"
        return Coding(nothing, ids), tuple(f"class {key}" for key in own), remark
    return plain, None, ""


def even_steps(keys: Sequence[int], count: int) -> dict[int, int] | None:
    """Return {value: class} of grey values as 0, 85, 170, 255; None of others."""
    if not 3 <= len(keys) <= PLAIN_IDS or keys[0] != 0 or keys[-1] < 2 * PLAIN_IDS:
        return None
    step = keys[-1] / (len(keys) - 1)
    even = all(abs(key - i * step) <= 1 for i, key in enumerate(keys))
    return {key: i for i, key in enumerate(keys)} if even and count in (0, len(keys)) else None


def palette_coding(found: Sequence[Values], names: Names) -> Reading | None:
    """Return how indices are read by their colours, where these say what the indices do not."""
    own = [values for values in found if values.palette]
    if not own or len(own) < len(found):
        return None
    colours: dict[int, set[int]] = {}
    for values in own:
        for index, colour in values.palette.items():
            colours.setdefault(index, set()).add(colour)
    used = set().union(*colours.values())
    if names.colours and used <= {*names.colours, colour_of(BORDER)}:
        return Coding(ids=names.colours, by_colour=True), None, ""
    unlike = any(len(of_one) > 1 for of_one in colours.values())
    if names.labels or not unlike or len(used) > max(2, len(colours)):
        return None
    order = sorted(used)
    remark = "palettes differ from mask to mask: read by colours, not by indices"
    coding = Coding(ids={colour: i for i, colour in enumerate(order)}, by_colour=True)
    return coding, tuple(map(colour_name, order)), remark


def colour_coding(found: Sequence[Values], names: Names, *, alone: bool) -> tuple[
    Coding | None, tuple[str, ...] | None, str
]:  # fmt: skip
    """Return how masks of colours are read: by a label map, or each colour as a class."""
    if names.colours:
        return Coding(ids=names.colours, by_colour=True), None, ""
    used = set().union(*(values.by_colour for values in found)) - {colour_of(BORDER)}
    if not alone or names.labels or len(used) > MOST_COLOURS or any(v.lossy for v in found):
        return None, None, ""
    order = sorted(used)
    remark = (
        f"masks hold {len(order)} colours, and no label map names them: each is a class, in the "
        "order of the colours (labelmap.txt with lines name:red,green,blue names them)"
    )
    coding = Coding(ids={colour: i for i, colour in enumerate(order)}, by_colour=True)
    return coding, tuple(map(colour_name, order)), remark


def fault_of(values: Values, decided: Decided, names: Names) -> str | None:
    """Return why a mask cannot be read in the way that was decided for all, or None."""
    coding = decided.coding_of(values)
    if coding is None or coding is decided.colours:
        if coding is None or coding.ids is None:
            return f"in mode {values.mode}, colours: a mask holds class ids (mode P or L)"
        known = {*coding.ids, colour_of(BORDER)}
        unknown = {c: n for c, n in values.by_colour.items() if c not in known}
        if sum(unknown.values()) > COMMON * sum(values.counts.values()):
            common = max(unknown, key=unknown.__getitem__)
            return f"holds {colour_name(common)}, which {names.source or 'nothing'} does not name"
        return None
    if names.ids:
        unknown = {k: n for k, n in values.counts.items() if k not in names.ids}
        unknown.pop(coding.void, None)
        if sum(unknown.values()) > COMMON * sum(values.counts.values()):
            return f"holds class id {max(unknown)}, which {names.source} does not know"
    if values.lossy and coding.threshold is None:
        return "a JPEG cannot be a mask: it blurs class ids. Use PNG"
    return None
