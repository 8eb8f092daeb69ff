"""Images with boxes around objects, in any of the formats that are read.

Every box is held against its image: what lies outside is cut off, what has no area, no image or
no known class is left out, and all of it is counted. Boxes are as the image is seen upright.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kzoo.old_names import renamed_attribute
from kzoo.recipes.data.duplicates import same_bytes, with_test
from kzoo.recipes.data.formats import FORMATS
from kzoo.recipes.data.formats.frames import SHARES, Frame, alike, frames_of, unlike
from kzoo.recipes.data.formats.matching import matched, recognized
from kzoo.recipes.data.formats.records import Matched, Object, Record
from kzoo.recipes.data.images import Look, Source, look_at_all
from kzoo.recipes.data.layout import look_through, meant, tell_alike
from kzoo.recipes.data.packed import Records, is_packed, open_packed, test_images
from kzoo.recipes.data.splits import (
    NAMES,
    counted,
    drawn,
    for_test,
    in_parts,
)
from kzoo.recipes.data.text import Issue, and_issues, first_issue
from kzoo.recipes.inputs import existing

OUTSIDE = 0.02  # share of a side that a box may reach outside by rounding
MANY = 0.2  # share of boxes outside from which their numbers seem to be others
LEAST_SIDE = 1.0  # px; below, a box holds nothing


Boxes = tuple[np.ndarray, np.ndarray]  # (n, 4) yxyx in [0, 1] float32, labels (n,) int
NO_BOXES: Boxes = (np.zeros((0, 4), "float32"), np.zeros(0, int))
DIFFICULT, CROWD = 1, 2  # kinds of objects, 0 being all others


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """An image and what is on it."""

    path: Source
    boxes: np.ndarray  # (n, 4) float32 y_min, x_min, y_max, x_max in [0, 1]
    labels: np.ndarray  # (n,) int
    size: tuple[int, int]  # (H, W) in px, upright
    # What official evaluators ignore: what is found there is neither right nor false.
    hard: np.ndarray | None = None  # (n,) bool, of VOC's difficult objects; None: there are none
    crowds: Boxes = NO_BOXES  # COCO's crowds and Open Images' groups, which are not trained on

    @property
    def counted(self) -> np.ndarray:
        """Which objects count when a detector is measured, (n,) bool."""
        return np.ones(len(self.labels), bool) if self.hard is None else ~self.hard


def example_of(
    path: Source, boxes: np.ndarray, labels: np.ndarray, size: tuple[int, int], kinds: np.ndarray
) -> Example:
    """Return an image with objects of these kinds: 0, DIFFICULT or CROWD."""
    if not kinds.any():
        return Example(path, boxes, labels, size)
    crowd, plain = kinds == CROWD, kinds != CROWD
    hard = kinds[plain] == DIFFICULT
    return Example(path, boxes[plain], labels[plain], size, hard, (boxes[crowd], labels[crowd]))


@dataclasses.dataclass(frozen=True, eq=False)
class BoxDataset:
    """What annotated images offer to learn from."""

    format: str
    labels: tuple[str, ...]
    train: Sequence[Example]
    val: Sequence[Example]
    test: Sequence[Example] = ()  # measured at the end; nothing is trained on it, or chosen by it
    issues: tuple[Issue, ...] = ()
    defects: ClassVar[property] = renamed_attribute("defects", "issues")

    def __str__(self) -> str:
        counts = Counter(int(k) for example in self.train for k in example.labels)
        names = ", ".join(f"{label} {counts[i]}" for i, label in enumerate(self.labels))
        text = f"{counted(self, f' with {counts.total()} objects')} ({names})"
        return text + and_issues(self.issues)


def read_boxes(
    data: str | Path, *, format: str | None = None, val_fraction: float = 0.2, seed: int = 0,
    damaged: str = "refuse", test: str | Path | None = None,
) -> BoxDataset:  # fmt: skip
    """Return the annotated images of `data`, every one opened.

    data: a folder (for formats of one file also the file). Where a folder or a file of many images
        is called train, val or test, or a list or column says so, that is the split; where nothing
        is given as val, `val_fraction` is drawn by `seed`.
    format: one of `FORMATS`; None to go by what is there.
    damaged: as of `read_dataset`, where data is what `kzoo pack` made.
    test: the images to test on, where they lie elsewhere.

    Raises ValueError where nothing can be learnt from what is there, saying why.
    """
    data = existing(data, "a folder of images and annotations")
    if test is not None:
        dataset = read_boxes(
            data, format=format, val_fraction=val_fraction, seed=seed, damaged=damaged
        )
        return with_test(dataset, *read_test(test, dataset.labels), attrgetter("path"))
    if is_packed(data):
        return packed_boxes(data, skip=damaged == "skip", format=format)
    issues: list[Issue] = []
    name, labels, examples, alone = annotated(data, format, issues)
    parts = in_parts((None if alone and s == "train" else s, e) for s, e in examples)
    parts = drawn(parts, val_fraction, seed, attrgetter("path"))
    present = {int(k) for example in parts["train"] for k in example.labels}
    for i, label in enumerate(labels):
        if i not in present:
            issues.append(Issue(data, f"class {label!r} has no object to train on"))
    if not present or not parts["val"]:
        missing = "image to validate on" if present else "object to train on"
        raise ValueError(f"{data}, read as {name}, holds no {missing}.{first_issue(issues)}")
    tell_alike(labels, data, issues)
    same_bytes([(e.path, s, None) for s in NAMES for e in parts[s]], issues)
    splits = {split: tuple(parts[split]) for split in NAMES}
    return BoxDataset(name, labels, **splits, issues=tuple(issues))


def annotated(
    data: Path, format: str | None, issues: list[Issue], labels: tuple[str, ...] | None = None
) -> tuple[str, tuple[str, ...], list[tuple[str | None, Example]], bool]:
    """Return (format, classes, (split, example) of every image, `only_train`).

    labels: the classes to know, where they are not those of the annotations.
    """
    tree = look_through(data)
    name = format or recognized(tree, data, issues)
    if name not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}. Received: {name!r}")
    own, records = FORMATS[name].read(tree, issues)
    found, alone = matched(records, tree, issues)
    return name, own, settled_all(found, labels or own, issues), alone


def packed_boxes(data: Path, *, skip: bool, format: str | None) -> BoxDataset:
    packed = open_packed(data, "detect", skip=skip)
    own = f"is packed, and read so: format {format} was for kzoo pack"
    issues = (*packed.issues, *([Issue(data, own)] if format else []))
    splits = {
        split: PackedExamples(packed.images[split], **packed.annotations[split]) for split in NAMES
    }
    return BoxDataset("packed", packed.labels, **splits, issues=issues)


def read_test(
    data: str | Path, labels: Sequence[str], *, format: str | None = None
) -> tuple[Sequence[Example], tuple[Issue, ...]]:
    """Return the images to test a model of these classes on, and what is wrong with them.

    They are those that `data` gives as test, or all where it gives none. Objects of other classes
    are left out. Raises ValueError where no object is of a known class.
    """
    data = existing(data, "a folder of images and annotations")
    if is_packed(data):
        return test_images(packed_boxes(data, skip=False, format=format), data, labels)
    issues: list[Issue] = []
    _, _, examples, _ = annotated(data, format, issues, tuple(labels))
    wanted = for_test(split for split, _ in examples)
    found = tuple(example for split, example in examples if split in wanted)
    if not any(len(example.labels) for example in found):
        raise ValueError(f"{data} holds no object of {', '.join(labels)} to test on.")
    return found, tuple(issues)


class PackedExamples(Sequence[Example]):
    """The images of a packed split with their objects: those of the first image first."""

    def __init__(
        self, records: Records, *, counts: np.ndarray, sizes: np.ndarray, boxes: np.ndarray,
        labels: np.ndarray, kinds: np.ndarray | None = None,
    ):  # fmt: skip
        self.records = records
        self.kinds: np.ndarray = np.zeros(len(labels), "int8") if kinds is None else kinds
        self.sizes = sizes
        self.boxes = boxes
        self.labels = labels
        self.ends: np.ndarray = np.cumsum(counts)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        record = self.records[i]
        own = slice(self.ends[record.index - 1] if record.index else 0, self.ends[record.index])
        size = tuple(self.sizes[record.index].tolist())
        return example_of(record, self.boxes[own], self.labels[own], size, self.kinds[own])


def settled_all(
    found: list[Matched], labels: tuple[str, ...], issues: list[Issue]
) -> list[tuple[str | None, Example]]:
    """Return (split, example) of every record that holds; the rest goes to `issues`."""
    index = {label: i for i, label in enumerate(labels)}
    examples = []
    looks = look_at_all(item.path for item in found)
    crowds: Counter[Path] = Counter()
    hard: Counter[Path] = Counter()
    boxless: dict[Path, list[str]] = {}
    frames = frames_of(found, looks, issues)
    tell_outside(found, frames, issues)
    for item, look, frame in zip(found, looks, frames, strict=True):
        if look.fault:
            issues.append(Issue(item.path, f"{look.fault}: left out"))
            continue
        if frame is None:
            continue
        if look.remark:
            issues.append(Issue(item.path, look.remark))
        objects = []
        for thing in item.record.objects:
            crowds[item.record.source] += thing.crowd
            hard[item.record.source] += thing.difficult
            if thing.crowd and (thing.extent is None or len(thing.extent) != 4):
                continue
            if thing.extent is None or len(thing.extent) != 4:
                boxless.setdefault(item.record.source, []).append(thing.name)
            else:
                objects.append(dataclasses.replace(thing, label=meant(thing.label, index)))
        record = dataclasses.replace(item.record, objects=tuple(objects))
        examples.append((item.split, settled(record, item.path, look, frame, index, issues)))
    ignored = "neither right nor false when measured"
    for file, count in (+crowds).items():
        issues.append(Issue(file, f"{count} crowds: not trained on, {ignored}"))
    if hard.total():
        issues.append(Issue(next(iter(+hard)), f"{hard.total()} objects are difficult: {ignored}"))
    for file, names in boxless.items():
        what = f"objects have no box of four numbers (first: {names[0]}): left out"
        issues.append(Issue(file, f"{len(names)} {what}"))
    return examples


def tell_outside(
    found: Sequence[Matched], frames: Sequence[Frame | None], issues: list[Issue]
) -> None:
    """Add an issue where so many boxes reach outside that their numbers may be others.

    Raises ValueError where they are read as a corner, width and height, and fit as two corners.
    """
    pairs = [
        (item, np.array(item.extent) / [*frame.size, *frame.size])
        for record, frame in zip(found, frames, strict=True) if frame
        for item in record.record.objects if item.extent and len(item.extent) == 4
    ]  # fmt: skip
    outside = sum(not is_inside(box) for _, box in pairs)
    if outside < max(3, MANY * len(pairs)):
        return
    source, count = found[0].record.source, f"{outside} of {len(pairs)} boxes"
    corners = [np.r_[box[:2], box[2:] - box[:2]] for item, box in pairs if item.of_sides]
    if sum(is_inside(box) and (box[2:] > box[:2]).all() for box in corners) == len(pairs):
        raise ValueError(
            f"{source}: read as a corner, width and height, {count} reach outside their images; "
            "as two corners all are inside. Give two corners in columns called xmin, ymin, xmax "
            "and ymax; or correct the numbers."
        )
    reason = (
        f"{count} reach outside their images. Check what their four "
        "numbers are: two corners, a corner with width and height, or a centre with these"
    )
    issues.append(Issue(source, reason))


def is_inside(box: np.ndarray) -> bool:
    """Return whether a box (4,), in shares of its image, is inside but for rounding."""
    return bool((box >= -OUTSIDE).all() and (box <= 1 + OUTSIDE).all())


# Where EXIF orientations put a point of the stored image, as shares (y, x) of its sides.
UPRIGHT: dict[int, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    2: lambda y, x: (y, 1 - x),
    3: lambda y, x: (1 - y, 1 - x),
    4: lambda y, x: (1 - y, x),
    5: lambda y, x: (x, y),
    6: lambda y, x: (x, 1 - y),
    7: lambda y, x: (1 - x, 1 - y),
    8: lambda y, x: (1 - x, y),
}


def settled(
    record: Record, path: Path, look: Look, frame: Frame, index: dict[str, int],
    issues: list[Issue],
) -> Example:  # fmt: skip
    """Return a record's boxes on its image as it is seen, in [0, 1]."""
    upright, size = look.size, frame.size
    counts: Counter[str] = Counter()
    known = [item for item in record.objects if item.label in index]
    if unknown := {item.label for item in record.objects} - set(index):
        count = len(record.objects) - len(known)
        counts[f"objects of unknown class {sorted(unknown)[0]!r}: left out"] = count
    boxes = np.array([extent_of(item) for item in known], "float64").reshape(-1, 4)
    labels = np.array([index[item.label] for item in known], int)
    kinds = np.array([CROWD if item.crowd else DIFFICULT * item.difficult for item in known], int)

    boxes = boxes / [*size, *size]
    if frame.turn in UPRIGHT:  # drawn on the image as it is stored: turned as EXIF turns the image
        corners = [UPRIGHT[frame.turn](boxes[:, i], boxes[:, j]) for i, j in ((0, 1), (2, 3))]
        y, x = (np.stack(values, axis=-1) for values in zip(*corners, strict=True))
        boxes = np.stack([y.min(-1), x.min(-1), y.max(-1), x.max(-1)], axis=-1)
        counts["boxes turned with the image, as its EXIF says"] = 1
    elif size != SHARES and not alike(size, upright):
        counts[f"{unlike(record, look)}: boxes scaled"] = 1

    inside = np.clip(boxes, 0, 1)
    margin = 1.5 / np.array([*upright, *upright])  # rounding puts boxes a pixel outside
    counts["boxes reach outside the image: cut off"] = int(
        (np.abs(inside - boxes) > margin).any(axis=-1).sum()
    )
    sides = (inside[:, 2:] - inside[:, :2]) * upright
    keep = (sides >= LEAST_SIDE).all(axis=-1)
    counts["boxes without an area: left out"] = int((~keep).sum())
    rows = np.column_stack([labels, np.round(inside, 6)])
    _, first = np.unique(rows, axis=0, return_index=True)
    fresh = np.isin(np.arange(len(rows)), first)
    counts["objects twice: left out"] = int((keep & ~fresh).sum())
    keep &= fresh
    for reason, count in counts.items():
        if count:
            number = f"{count} " if count > 1 or reason.startswith(("boxes", "objects")) else ""
            issues.append(Issue(path, f"{number}{reason}"))
    boxes = inside[keep].astype("float32")
    return example_of(path, boxes, labels[keep], upright, kinds[keep])


def extent_of(item: Object) -> tuple[float, float, float, float]:
    assert item.extent is not None  # the others are left out before
    return item.extent
