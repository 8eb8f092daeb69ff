"""Images with masks: which files belong together, which classes there are, what cannot be used.

A mask has its image's size, and is never resampled but by nearest neighbour. It is a file of its
own (data/masks/files.py), or is drawn from the outlines of an annotation format.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import ClassVar

import numpy as np

from kzoo.old_names import renamed_attribute
from kzoo.recipes.data.duplicates import same_bytes, with_test
from kzoo.recipes.data.formats.mask_layout import mask_pairs
from kzoo.recipes.data.layout import look_through
from kzoo.recipes.data.masks.from_files import of_files
from kzoo.recipes.data.masks.from_outlines import of_outlines
from kzoo.recipes.data.masks.names import Void
from kzoo.recipes.data.masks.pairs import PackedPairs, Pair, Seen
from kzoo.recipes.data.packed import is_packed, open_packed, test_images
from kzoo.recipes.data.splits import NAMES, counted, drawn, for_test, in_parts
from kzoo.recipes.data.text import Issue, and_issues, first_issue
from kzoo.recipes.inputs import existing


@dataclasses.dataclass(frozen=True)
class MaskDataset:
    """What images with masks offer to learn from."""

    labels: tuple[str, ...]
    train: Sequence[Pair]
    val: Sequence[Pair]
    test: Sequence[Pair]  # measured at the end; nothing is trained on it, or chosen by it
    pixels: np.ndarray  # (classes,) that the training masks hold
    issues: tuple[Issue, ...] = ()
    format: str = "masks"
    defects: ClassVar[property] = renamed_attribute("defects", "issues")

    def __str__(self) -> str:
        shares = self.pixels / max(1, self.pixels.sum())
        names = ", ".join(f"{a} {b:.1%}" for a, b in zip(self.labels, shares, strict=True))
        text = f"{counted(self)} ({names})"
        return text + and_issues(self.issues)


def read_masks(
    data: str | Path, *, val_fraction: float = 0.2, seed: int = 0, damaged: str = "refuse",
    void: str | int | None = None, test: str | Path | None = None,
) -> MaskDataset:  # fmt: skip
    """Return the images and masks of `data`, every one opened.

    data: a folder with images/ and masks/ or much like it, where files that belong together are
        called alike, with train/, val/ and test/ of those, in Pascal VOC's layout; or with COCO,
        LabelMe, CVAT or YOLO outlines; also such a file. Or what `kzoo pack` made of one; `damaged`
        as of `read_dataset`.
        labels.txt names the classes, one a line, the first being that of id 0; labelmap.txt those
        of colours. Where nothing is given as val, `val_fraction` is drawn by `seed`.
    void: what masks ignore: a value, or class names separated by commas; None:
        255.
    test: the images to test on, where they lie elsewhere.

    Raises ValueError where nothing can be learnt from what is there, saying why.
    """
    data = existing(data, "a folder with images/ and masks/")
    nothing = Void.of(void)
    if test is not None:
        dataset = read_masks(data, val_fraction=val_fraction, seed=seed, damaged=damaged, void=void)
        found = read_test(test, dataset.labels, void=void)
        return with_test(dataset, *found, attrgetter("image"))
    if is_packed(data):
        refuse_void(data, nothing)
        return packed_masks(data, skip=damaged == "skip")
    issues: list[Issue] = []
    form, labels, seen, alone = masked_images(data, issues, nothing)
    if alone:
        seen = [dataclasses.replace(s, split=None if s.split == "train" else s.split) for s in seen]
    parts = in_parts((item.split, item) for item in seen)
    parts = drawn(parts, val_fraction, seed, attrgetter("pair.image"))
    pixels: Counter[int] = Counter()
    for item in parts["train"]:
        pixels.update(item.counts)
    present = [label for i, label in enumerate(labels) if pixels[i]]
    for label in labels:
        if label not in present:
            issues.append(Issue(data, f"class {label!r} has no pixel to train on"))
    if len(present) < 2 or not parts["val"]:
        missing = "two classes to tell apart" if parts["val"] else "image to validate on"
        raise ValueError(f"{data} holds no {missing}.{first_issue(issues)}")
    files = [(item.pair.image, s, None) for s in NAMES for item in parts[s]]
    same_bytes([(path, s, what) for path, s, what in files if isinstance(path, Path)], issues)
    pairs = {split: tuple(item.pair for item in parts[split]) for split in NAMES}
    counts = np.array([pixels[i] for i in range(len(labels))])
    return MaskDataset(labels, **pairs, pixels=counts, issues=tuple(issues), format=form)


def refuse_void(data: Path, void: Void) -> None:
    """Raise ValueError where packed masks, whose classes are settled, are to be read otherwise."""
    if void != Void():
        raise ValueError(
            f"{data} is packed: its masks are read as they were packed. Give --void to kzoo pack."
        )


def packed_masks(data: Path, *, skip: bool) -> MaskDataset:
    packed = open_packed(data, "segment", skip=skip)
    train, val, test = (PackedPairs(packed.images[split]) for split in NAMES)
    pixels = np.array(packed.about["pixels"])
    return MaskDataset(packed.labels, train, val, test, pixels, packed.issues, "packed")


def masked_images(
    data: Path, issues: list[Issue], void: Void, known: tuple[str, ...] | None = None
) -> tuple[str, tuple[str, ...], list[Seen], bool]:
    """Return (format, classes, what can be used, `only_train`); `known`: classes of a model."""
    tree = look_through(data)
    found, alone = mask_pairs(tree, issues)
    if found:
        labels, seen = of_files(found, tree, data, issues, void, known)
        return "masks", labels, seen, alone
    return of_outlines(tree, data, issues, void, known)


def read_test(
    data: str | Path, labels: Sequence[str], *, void: str | int | None = None
) -> tuple[Sequence[Pair], tuple[Issue, ...]]:
    """Return the images to test a model of these classes on, and what is wrong with them.

    They are those that `data` gives as test, or all where it gives none. Raises ValueError where
    there are none, or its classes are others.
    """
    data = existing(data, "a folder with images/ and masks/")
    nothing = Void.of(void)
    if is_packed(data):
        refuse_void(data, nothing)
        return test_images(packed_masks(data, skip=False), data, labels)
    issues: list[Issue] = []
    _, _, seen, _ = masked_images(data, issues, nothing, tuple(labels))
    wanted = for_test(item.split for item in seen)
    found = tuple(item.pair for item in seen if item.split in wanted)
    if not found:
        raise ValueError(f"{data} holds no image with a mask to test on.{first_issue(issues)}")
    return found, tuple(issues)
