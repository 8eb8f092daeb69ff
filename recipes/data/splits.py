"""What is trained on, what is validated on, what is kept for the test at the end.

A split is given by lists of images (Pascal VOC's ImageSets, the entries of a data.yaml, train.txt),
by a column or attribute of annotations, by the names of annotation files, and by folders. What is
given as test anywhere is never trained on or chosen by; of train and val, val wins.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.recipes.data.image_index import Asked, ImageIndex, sole
from kzoo.recipes.data.images import Source
from kzoo.recipes.data.layout import (
    SPLITS,
    Tree,
    folded,
    parts_of,
    split_of,
    split_of_parts,
    words_of,
)
from kzoo.recipes.data.text import Issue, numbers, read_lines, read_yaml

NAMES = ("train", "val", "test")
GUARD = {"test": 2, "val": 1, "train": 0, None: -1}  # which of two splits an image is kept for
IMAGE_SETS = ("Main", "Segmentation", "Layout")
BOTH = ("trainval", "train_val", "trainvalid")  # lists of what is trained and validated on


@dataclasses.dataclass(frozen=True)
class Lists:
    """The images that lists name, and the split of each; None: of train and val, to be drawn."""

    splits: dict[Path, str | None] = dataclasses.field(default_factory=dict)
    whole: bool = False  # whether they name what is trained on, so that the rest is left out
    files: tuple[str, ...] = ()


def read_lists(
    tree: Tree, index: ImageIndex, issues: list[Issue], *, image_set: str = "Main"
) -> Lists:
    """Return the splits that lists give: of ImageSets/, else of a data.yaml, else of train.txt."""
    found = image_sets(tree, image_set) or yaml_lists(tree, issues) or plain_lists(tree)
    splits: dict[Path, str | None] = {}
    used: list[str] = []
    given: set[str | None] = set()
    twice: list[Path] = []
    for file, split, entries in found:
        paths = set()
        for entry in entries:
            paths |= images_of(entry, file, tree, index, split)
        if not paths:
            if entries:
                reason = f"names no image that is here (as {split or 'train and val'}): passed over"
                issues.append(Issue(file, reason))
            continue
        used.append(file.name)
        given.add(split)
        for path in paths:
            if path in splits and split != splits[path] and None not in (split, splits[path]):
                twice.append(path)
            if path not in splits or GUARD[split] > GUARD[splits[path]]:
                splits[path] = split
    if twice:
        kept = splits[twice[0]]
        reason = f"is listed in two splits: kept for {kept} ({len(twice)} in all)"
        if not {"train", None} & set(splits.values()):  # ultralytics' coco8 validates on itself
            reason = f"{len(twice)} images are listed as train and as val: val is drawn from them"
            splits = {path: None if s == "val" else s for path, s in splits.items()}
        issues.append(Issue(twice[0], reason))
    whole = bool({"train", None} & given)
    return Lists(splits, whole, tuple(dict.fromkeys(used)))


Listed = list[tuple[Path, str | None, list[str]]]  # file, split, names of images, folders or lists


def image_sets(tree: Tree, preferred: str) -> Listed:
    """Return Pascal VOC's lists: those of the task that is asked for, else of another."""
    for name in (preferred, *IMAGE_SETS):
        files = [
            file for file in tree.by_suffix.get(".txt", ())
            if file.parent.name == name and file.parent.parent.name == "ImageSets"
            and (file.stem.lower() in SPLITS or file.stem.lower() in BOTH)
        ]  # fmt: skip
        if files:
            return [(file, list_split(file), read_lines(file)) for file in files]
    return []


def list_split(file: Path) -> str | None:
    return None if file.stem.lower() in BOTH else SPLITS.get(folded(file.stem), split_of(file.stem))


def plain_lists(tree: Tree) -> Listed:
    """Return the texts that are called train, val or test, and are no annotations themselves."""
    found: Listed = []
    for file in (*tree.by_suffix.get(".txt", ()), *tree.by_suffix.get(".lst", ())):
        if file.parent.parent.name == "ImageSets":
            continue
        known = {*SPLITS, "list", "images", "image", "files", "file", "names", "ids", "set"}
        words = words_of(file.stem)
        if file.stem.lower() not in BOTH and not (
            words and set(words) <= known and set(words) & set(SPLITS)
        ):
            continue
        lines = [line for line in read_lines(file) if line]
        if not any(len(numbers(line.split())) >= 5 for line in lines[:5]):
            found.append((file, list_split(file), lines))
    return found


def yaml_lists(tree: Tree, issues: list[Issue]) -> Listed:
    """Return the entries train, val and test of a data.yaml."""
    found: Listed = []
    for file in (*tree.by_suffix.get(".yaml", ()), *tree.by_suffix.get(".yml", ())):
        try:
            content = read_yaml(file, issues)
        except ValueError:  # told where the names of classes are read
            continue
        if not isinstance(content, dict) or "names" not in content:
            continue
        base = str(content.get("path") or "")
        for key, value in content.items():
            if isinstance(key, str) and key.lower() in SPLITS and value:
                entries = value if isinstance(value, list) else [value]
                own = [f"{base}/{e}" if base else str(e) for e in entries if isinstance(e, str)]
                found.append((file, SPLITS[key.lower()], own))
    return found


def images_of(
    entry: str, file: Path, tree: Tree, index: ImageIndex, split: str | None
) -> set[Path]:
    """Return the images that a line of a list means: one, those of a folder, of another list.

    A path may begin elsewhere, on another machine; but train/images is not images/, which may hold
    more than `split`.
    """
    if not entry:
        return set()
    if path := sole(index.best(Asked(file, entry), entry)):
        return {path}
    parts = parts_of(entry)
    for start in range(len(parts)):
        own = [split_of_parts(part) for part in (parts[:start], parts[start:])]
        if split and own == [split, None]:
            continue
        for base in (file.parent, tree.root):
            place = base.joinpath(*parts[start:])
            if place.is_dir():
                return {path for path in index.images if place in path.parents}
            if place.suffix in (".txt", ".lst") and place.is_file() and place != file:
                lines = read_lines(place)
                return set().union(*(images_of(line, place, tree, index, split) for line in lines))
    for separator in (None, ",", "\t"):  # "image mask", "image label"
        first = entry.split(separator)[0]
        if first != entry and (path := sole(index.best(Asked(file, first), first))):
            return {path}
    return set()


@dataclasses.dataclass(frozen=True)
class Given:
    """The split that lists, columns or folders give one image."""

    image: Path
    source: Path  # the annotation file
    own: str | None = None  # the one its annotation names, by a column or an attribute
    many: bool = False  # the annotation file is of many images: its name may say a split


LEFT_OUT = "left out"


def assigned(
    items: Sequence[Given], tree: Tree, lists: Lists, issues: list[Issue]
) -> list[str | None]:
    """Return the split of each image; None where none is given, LEFT_OUT where lists leave it."""
    found: list[str | None] = []
    unlisted: list[Path] = []
    disagree: list[tuple[Path, str]] = []
    for item in items:
        if item.image in lists.splits:
            found.append(lists.splits[item.image])
            continue
        if lists.whole:
            unlisted.append(item.image)
            found.append(LEFT_OUT)
            continue
        given = {item.own, source_split(tree, item.source, many=item.many)}
        given |= {split_of_parts(tree.inside(item.image).parent.parts)}
        split = max(given, key=GUARD.__getitem__)
        if len(given - {None}) > 1:
            disagree.append((item.image, str(split)))
        found.append(split)
    if unlisted:
        by = ", ".join(lists.files)
        issues.append(Issue(unlisted[0], f"is in none of {by}: left out ({len(unlisted)} in all)"))
    if disagree:
        path, split = disagree[0]
        reason = f"is given as of two splits: kept for {split} ({len(disagree)} in all)"
        issues.append(Issue(path, reason))
    return found


def source_split(tree: Tree, source: Path, *, many: bool) -> str | None:
    """Return the split that the name of an annotation file says, or its folders."""
    inside = tree.inside(source)
    return (split_of(inside.stem) if many else None) or split_of_parts(inside.parent.parts)


def only_train(splits: Iterable[str | None]) -> bool:
    """Whether all but tests is given as train: then what to validate on is drawn from that.

    To be asked of what is given, not of what can be used: a val/ of broken files is no lack of one.
    """
    return set(splits) - {"test", LEFT_OUT} == {"train"}


def with_val_to_draw(rows: Sequence[Any]) -> list[Any]:
    """Return dataclasses that have a `split`, those of train open where `only_train` holds."""
    if not only_train(row.split for row in rows):
        return list(rows)
    return [dataclasses.replace(row, split=None) if row.split == "train" else row for row in rows]


Part = dict[str | None, list[Any]]  # what is of train, val, test, and of None: not given


def in_parts(items: Iterable[tuple[str | None, Any]]) -> Part:
    """Return what is of each split."""
    parts: Part = {split: [] for split in (*NAMES, None)}
    for split, item in items:
        if split != LEFT_OUT:
            parts[split].append(item)
    return parts


def drawn(parts: Part, val_fraction: float, seed: int, image: Callable[[Any], Source]) -> Part:
    """Return the same with what has no split in train or val, and test as it is.

    It is drawn from, unless other things are given as val: then it is trained on. `image` returns
    the file of an item. Versions of one photo are drawn together.
    """
    rest = parts[None]
    groups = versions([image(item) for item in rest])
    count = 0 if parts["val"] or not rest else max(1, round(len(groups) * val_fraction))
    order = np.random.default_rng(seed).permutation(len(groups))
    val, train = (
        [rest[i] for i in sorted(i for group in chosen for i in groups[group])]
        for chosen in (order[:count], order[count:])
    )
    return {"train": parts["train"] + train, "val": parts["val"] + val, "test": parts["test"]}


ROBOFLOW = re.compile(r"(.+)\.rf\.[^.]+")  # the stem of a version that Roboflow has exported


def versions(images: Sequence[Source]) -> list[list[int]]:
    """Return the places of images, those of one photo together, by Roboflow's names.

    Roboflow exports a photo several times, each time augmented otherwise: IMG_1_jpg.rf.5ad0.jpg.
    """
    groups: dict[Any, list[int]] = {}
    for i, image in enumerate(images):
        found = ROBOFLOW.fullmatch(image.stem) if isinstance(image, Path) else None
        groups.setdefault(found[1] if found else image, []).append(i)
    return list(groups.values())


def for_test(splits: Iterable[str | None]) -> set[str | None]:
    """Return the splits to test on of data that are named for it: test, or all where none is."""
    given = set(splits) - {LEFT_OUT}
    return {"test"} if "test" in given else given


def require_left(*splits: Sized) -> None:
    """Raise ValueError where a test set is all that there was to train or to validate on."""
    if not all(map(len, splits)):
        raise ValueError("test holds all training and validation images. Use other images.")


def counted(dataset: Any, objects: str = "") -> str:
    """Return how many images each split of a dataset has; `objects` follows the first."""
    text = f"{len(dataset.train)} images{objects} to train on, {len(dataset.val)} to validate"
    return text + (f", {len(dataset.test)} to test" if len(dataset.test) else "")
