"""Images with one label each: folders of classes, or a CSV file."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

import numpy as np

from kzoo.old_names import renamed_attribute
from kzoo.recipes.data.duplicates import same_bytes
from kzoo.recipes.data.formats.class_folders import Labelled, has_class_folders, read_folder
from kzoo.recipes.data.formats.label_tables import of_labels
from kzoo.recipes.data.formats.tables import class_rows, has_classes
from kzoo.recipes.data.image_index import Asked, ImageIndex
from kzoo.recipes.data.images import Source, look_at_all
from kzoo.recipes.data.layout import (
    IMAGE_WORDS,
    MASK_WORDS,
    folded,
    look_through,
    meant,
    tell_alike,
)
from kzoo.recipes.data.packed import is_packed, open_packed, test_images
from kzoo.recipes.data.splits import (
    GUARD,
    NAMES,
    counted,
    for_test,
    require_left,
    versions,
    with_val_to_draw,
)
from kzoo.recipes.data.text import Issue, and_issues, issue_count
from kzoo.recipes.inputs import existing


@dataclasses.dataclass(frozen=True)
class Split:
    """Images and the index of each one's label, or which of the labels each one has."""

    paths: Sequence[Source]
    targets: np.ndarray  # (N,) int; of label sets (N, labels) of 0 and 1

    def __len__(self) -> int:
        return len(self.paths)

    def target_bytes(self) -> list[bytes]:
        """Return what tells the targets from others: a run is not resumed on changed ones."""
        return [np.asarray(self.targets, "<i4").tobytes()]


D = TypeVar("D", bound="Dataset")
R = TypeVar("R", bound="HasPath")
NONE = Split((), np.zeros(0, "int64"))


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a folder or a CSV file offers to learn from."""

    labels: tuple[str, ...]
    train: Split
    val: Split
    test: Split = NONE  # measured at the end; nothing is trained on it, or chosen by it
    issues: tuple[Issue, ...] = ()
    format: str = "folders"
    defects: ClassVar[property] = renamed_attribute("defects", "issues")

    def __str__(self) -> str:
        counts = Counter(self.train.targets.tolist())
        names = ", ".join(f"{label} {counts[i]}" for i, label in enumerate(self.labels))
        text = f"{counted(self)} ({names})"
        return text + and_issues(self.issues)


class HasPath(Protocol):
    """What stands for an image."""

    @property
    def path(self) -> Path: ...


def read_dataset(
    data: str | Path, *, val_fraction: float = 0.2, seed: int = 0, damaged: str = "refuse",
    test: str | Path | None = None,
) -> Dataset:  # fmt: skip
    """Return the images below `data`, every one opened to see that it is an image.

    `data` is a folder with one folder per class, a folder with `train/`, `val/` and `test/` of
    those, or a CSV file with a column of files, one of labels and, if wanted, one of splits; its
    file names are relative to its own folder. Or it is what `kzoo pack` made of one of these;
    `damaged` says what to do about damaged shards of it, "refuse" or "skip".
    Where nothing is given as val, `val_fraction` of each class is drawn by `seed`. `test` holds
    the images to test on, where they lie elsewhere.
    Raises ValueError where nothing can be learnt from what is there, saying why.
    """
    data = existing(data, "a folder with one folder per class, or a CSV")
    if test is not None:
        dataset = read_dataset(data, val_fraction=val_fraction, seed=seed, damaged=damaged)
        return with_test(dataset, *read_test(test, dataset.labels))
    if is_packed(data):
        return packed_dataset(data, skip=damaged == "skip")
    issues: list[Issue] = []
    form, found = labelled(data, issues)
    rows = usable(with_val_to_draw(found), issues)
    rows = of_known_classes(rows, data, issues)
    known = sorted({row.label for row in rows})
    require_classes(known, data)
    if len(known) < 2:
        left = f" ({issue_count(issues)}, first: {issues[0]})" if issues else ""
        raise ValueError(
            f"{data} holds {f'only the class {known[0]!r}' if known else 'no images'}{left}. "
            "A classifier needs at least two classes: one folder of images per class, or a CSV "
            "with the columns file,label."
        )
    if not {"train", "val"} & {row.split for row in rows}:
        rows = drawn_by_class(rows, val_fraction, seed)
    rows = [dataclasses.replace(row, split=row.split or "train") for row in rows]
    same_bytes([(row.path, row.split, row.label) for row in rows], issues)
    tell_alike(known, data, issues)
    if joined := [label for label in known if of_labels(label, known)]:
        reason = f"{joined[0]!r} is read as one class. For several in an image take kzoo multilabel"
        issues.append(Issue(data, reason))
    index = {label: i for i, label in enumerate(known)}

    def select(split: str) -> Split:
        own = [row for row in rows if row.split == split]
        targets = np.array([index[row.label] for row in own], dtype="int64")
        return Split(tuple(row.path for row in own), targets)

    splits = {split: select(split) for split in NAMES}
    if not len(splits["val"]):
        raise ValueError(
            f"{data}: no image is left to validate on. Give some as val, or no split at "
            "all: then val_fraction is drawn from every class that has two images."
        )
    return Dataset(tuple(known), **splits, issues=tuple(issues), format=form)


def require_classes(known: Sequence[str], data: Path) -> None:
    """Raise ValueError where folders are called images and masks or labels: they are no classes."""
    names = set(map(folded, known))
    of_images, of_masks = names & IMAGE_WORDS, names & MASK_WORDS
    if len(of_images) == 1 and len(of_masks) < 2 and names == of_images | of_masks:
        raise ValueError(
            f"{data} holds images in {' and '.join(f'{name}/' for name in known)}, not "
            "one folder per class. Use kzoo segment if it has masks, kzoo detect if it has boxes: "
            "kzoo inspect shows what it is read as."
        )


def labelled(data: Path, issues: list[Issue], *, train: bool = True) -> tuple[str, list[Labelled]]:
    """Return the format of what is there, and its images; `train`: some of them to train on."""
    if data.is_file() or (not has_class_folders(data) and has_classes(look_through(data))):
        return "csv", from_table(data, issues)
    return "folders", list(read_folder(data, issues, train=train))


def read_test(data: str | Path, labels: Sequence[str]) -> tuple[Split, tuple[Issue, ...]]:
    """Return the images to test a model of these classes on, and what is wrong with them.

    They are those that `data` gives as test, or all where it gives none. Raises ValueError where
    none is of a known class.
    """
    data = existing(data, "a folder with one folder per class, or a CSV")
    if is_packed(data):
        return test_images(packed_dataset(data, skip=False), data, labels)
    issues: list[Issue] = []
    found = [
        dataclasses.replace(row, label=meant(row.label, labels))
        for row in labelled(data, issues, train=False)[1]
    ]
    wanted = for_test(row.split for row in found)
    index = {label: i for i, label in enumerate(labels)}
    for label in sorted({row.label for row in found} - set(labels)):
        issues.append(Issue(data, f"class {label!r} is none of the model's: left out"))
    rows = usable([r for r in found if r.split in wanted and r.label in index], issues)
    if not rows:
        raise ValueError(f"{data} holds no image of {', '.join(labels)} to test on.")
    targets = np.array([index[row.label] for row in rows], dtype="int64")
    return Split(tuple(row.path for row in rows), targets), tuple(issues)


def with_test(dataset: D, test: Split, issues: Sequence[Issue]) -> D:
    """Return a dataset with other test images, none of which is left in its other splits."""
    own = set(test.paths)

    def without(split: Split) -> Split:
        keep = [i for i, path in enumerate(split.paths) if path not in own]
        return Split(tuple(split.paths[i] for i in keep), split.targets[keep])

    train, val = (without(split) if own & {*split.paths} else split for split in (
        dataset.train, dataset.val))  # fmt: skip
    found = [*dataset.issues, *issues]
    items = [
        (path, name, tuple(np.atleast_1d(target)))
        for name, split in (("train", train), ("val", val), ("test", test))
        for path, target in zip(split.paths, split.targets.tolist(), strict=True)
        if isinstance(path, Path)
    ]
    same_bytes(items, found)
    require_left(train, val)
    return dataclasses.replace(
        dataset, train=train, val=val, test=test, issues=tuple(dict.fromkeys(found))
    )


def packed_dataset(data: Path, *, skip: bool) -> Dataset:
    packed = open_packed(data, "classify", skip=skip)
    train, val, test = (
        Split(packed.images[split], packed.annotations[split]["targets"]) for split in NAMES
    )
    return Dataset(packed.labels, train, val, test, packed.issues, "packed")


def of_known_classes(rows: list[Labelled], data: Path, issues: list[Issue]) -> list[Labelled]:
    """Return the rows whose class can be learnt. Raises ValueError for one to validate alone."""
    known = {row.label for row in rows if row.split not in ("val", "test")}
    rows = [dataclasses.replace(row, label=meant(row.label, known)) for row in rows]
    for label in sorted({row.label for row in rows if row.split == "val"} - known):
        raise ValueError(f"{data}: class {label!r} has validation images but no training images.")
    for label in sorted({row.label for row in rows} - known):
        reason = f"class {label!r} has images to test, but none to train on: left out"
        issues.append(Issue(data, reason))
    return [row for row in rows if row.label in known]


def from_table(data: Path, issues: list[Issue]) -> list[Labelled]:
    """Return the rows of a CSV file, or of those in a folder, with their images."""
    tree = look_through(data)
    rows = class_rows(tree, issues)
    index = ImageIndex(tree)
    asked = [Asked(row.source, row.image, split=row.split) for row in rows]
    lost: list[Issue] = []
    paths = index.find(asked, lost)
    for issue in lost:  # by the file that is missing, as of folders
        issues.append(issue)
    found: dict[Path, Labelled] = {}
    contradictory: set[Path] = set()
    for row, path in zip(rows, paths, strict=True):
        if path is None:
            continue
        own = Labelled(path, row.label, row.split)
        other = found.get(path, own)
        if other.label != own.label:
            contradictory.add(path)
            reason = f"is {other.label!r} and {own.label!r} in {row.source.name}: left out"
            issues.append(Issue(path, reason))
        elif path in found and other.split != own.split:
            split = max(own.split, other.split, key=GUARD.__getitem__)
            issues.append(Issue(path, f"is given as of two splits: kept for {split}"))
            own = dataclasses.replace(own, split=split)
        found[path] = own
    issues += tree.unread()
    return [row for path, row in found.items() if path not in contradictory]


def usable(found: list[R], issues: list[Issue]) -> list[R]:
    """Return the rows whose file is an image; the others are added to `issues`."""
    rows = []
    for row, look in zip(found, look_at_all(row.path for row in found), strict=True):
        if look.fault:
            issues.append(Issue(row.path, f"{look.fault}: left out"))
            continue
        if look.remark:
            issues.append(Issue(row.path, look.remark))
        rows.append(row)
    return rows


def drawn_by_class(rows: list[Labelled], val_fraction: float, seed: int) -> list[Labelled]:
    """Return the rows with `val_fraction` of each class drawn as val, of two images one."""
    rng = np.random.default_rng(seed)
    chosen: set[Path] = set()
    for label in sorted({row.label for row in rows}):
        own = [row.path for row in rows if row.label == label and row.split is None]
        groups = versions(own)
        count = min(max(1, round(len(groups) * val_fraction)), len(groups) - 1)
        for group in rng.permutation(len(groups))[: max(0, count)]:
            chosen.update(own[i] for i in groups[group])
    return [dataclasses.replace(row, split="val") if row.path in chosen else row for row in rows]
