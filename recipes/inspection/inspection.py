"""`inspect_data`: statistics, issues and advice for a data set, for `kzoo inspect`."""

import dataclasses
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.recipes.configs.detect import DetectConfig
from kzoo.recipes.configs.image_labels import ClassifyConfig, MultilabelConfig
from kzoo.recipes.configs.segment import SegmentConfig
from kzoo.recipes.data.box_dataset import BoxDataset, read_boxes
from kzoo.recipes.data.class_dataset import Dataset, has_class_folders, read_dataset
from kzoo.recipes.data.duplicates import near_duplicates
from kzoo.recipes.data.formats import FORMATS
from kzoo.recipes.data.formats.mask_layout import mask_pairs
from kzoo.recipes.data.formats.tables import has_classes
from kzoo.recipes.data.formats.unread import unread_export
from kzoo.recipes.data.images import BadImageError, Source, upright_size
from kzoo.recipes.data.label_sets import LabelSets, has_label_sets, read_label_sets
from kzoo.recipes.data.layout import look_through
from kzoo.recipes.data.mask_dataset import MaskDataset, read_masks
from kzoo.recipes.data.masks.pairs import Pair
from kzoo.recipes.data.packed import is_packed, read_index
from kzoo.recipes.data.splits import NAMES
from kzoo.recipes.data.text import Issue, issue_count
from kzoo.recipes.inspection.aspect import aspect_remark
from kzoo.sizes import Size, height_width, mean_side, simplest, size_text

TASKS = ("classify", "detect", "multilabel", "segment")
SIZES = {
    config.task: config.size
    for config in (ClassifyConfig, DetectConfig, MultilabelConfig, SegmentConfig)
}
SMALLEST = 16  # px at the model's input; smaller objects are rarely detected
MANY_SMALL = 0.1  # share of objects that may be smaller without advice
UNEVEN = 10  # ratio of the most frequent to the rarest class, above which there is advice
FEW = 10  # training examples of a class, below which there is advice
BALANCE = {
    "classify": "classes are weighed for that, and images of the rare one help more",
    "detect": "add images of that one",
    "multilabel": "labels are weighed for that, and images of the rare one help more",
    "segment": "say --balance",
}
OF_A_CLASS = {  # what is counted
    "classify": "images", "detect": "objects", "multilabel": "images with it",
    "segment": "images with it",
}  # fmt: skip
ASPECT_COUNTS = ("detect",)  # tasks with a remark on distorted aspect ratios
LARGEST_SIZE = 1024  # px; larger sizes are not advised
SHOWN_ISSUES = 20
FIRST_ISSUES = 5  # number of issues that a run shows


@dataclasses.dataclass(frozen=True)
class Item:
    """One example."""

    source: Source
    split: str
    size: tuple[int, int]  # (H, W) in px, upright
    labels: tuple[int, ...]  # its classes; in detection one for each object
    boxes: np.ndarray | None = None  # (n, 4) float32 y_min, x_min, y_max, x_max in [0, 1]
    pair: Pair | None = None  # the image with its mask


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The result of `inspect_data`. `str` of it is a summary."""

    data: Path
    task: str
    format: str
    labels: tuple[str, ...]
    issues: tuple[Issue, ...]
    items: Sequence[Item]
    size: Size  # of the model's input
    object_sizes: np.ndarray  # square root of each object's area, in px at the model's input
    advice: tuple[str, ...]
    with_items: bool = False
    page: Path | None = None

    @property
    def splits(self) -> dict[str, int]:
        """The number of images of each split."""
        counts = Counter(item.split for item in self.items)
        return {split: counts[split] for split in NAMES}

    def counts(self, split: str) -> Counter[int]:
        """Return the frequency of each class in a split: images, objects, or images with it."""
        return Counter(k for item in self.items if item.split == split for k in item.labels)

    def as_json(self) -> dict[str, Any]:
        """Return task, format, labels, splits and issues; every example too if asked for."""
        found: dict[str, Any] = {
            "task": self.task, "format": self.format, "labels": list(self.labels),
            "splits": self.splits,
            "issues": [{"path": str(issue.path), "reason": issue.reason} for issue in self.issues],
        }  # fmt: skip
        if self.with_items:
            found["items"] = [self.item_as_json(item) for item in self.items]
        return found

    def item_as_json(self, item: Item) -> dict[str, Any]:
        base = {"path": str(item.source), "split": item.split}
        if item.boxes is not None:
            height, width = item.size
            pixels = item.boxes.astype(float) * [height, width, height, width]
            boxes = [
                [*(round(float(box[i]), 3) for i in (1, 0, 3, 2)), self.labels[label]]
                for box, label in zip(pixels, item.labels, strict=True)
            ]
            return base | {"boxes": boxes}
        if item.pair is not None:
            return base | {"mask": str(item.pair.mask.path)}
        if self.task == "multilabel":
            return base | {"labels": [self.labels[i] for i in item.labels]}
        return base | {"label": self.labels[item.labels[0]]}

    def __str__(self) -> str:
        lines = [
            f"{self.data}: {self.task}, read as {self.format}",
            *(f"  {name:6} {count:>7,} images" for name, count in self.splits.items()),
            *self.table(),
            *self.sizes(),
        ]
        if self.issues:
            lines.append(f"{issue_count(self.issues)}:")
            lines += [f"  {issue}" for issue in self.issues[:SHOWN_ISSUES]]
            if more := len(self.issues) - SHOWN_ISSUES:
                lines += [f"  and {more} more"] if more > 0 else []
        lines += [f"To do: {advice}" for advice in self.advice]
        return "\n".join([*lines, *([f"Page: {self.page}"] if self.page else [])])

    def table(self) -> list[str]:
        """Return a table, as lines, of the frequency of each class in each split."""
        what = OF_A_CLASS[self.task]
        counts = [self.counts(split) for split in NAMES]
        width = max([5, *map(len, self.labels)])
        lines = [f"{'class':{width}} {'train':>8} {'val':>8} {'test':>8}   {what}"]
        for i, label in enumerate(self.labels):
            lines.append(f"{label:{width}} " + " ".join(f"{count[i]:>8,}" for count in counts))
        return lines

    def sizes(self) -> list[str]:
        lines = []
        if self.items:
            sides = np.array([item.size for item in self.items])
            low, middle, high = np.percentile(sides.min(axis=1), [0, 50, 100]).astype(int)
            lines.append(f"shorter sides of images: {low} to {high} px, half of them <= {middle}")
        if len(self.object_sizes):
            low, middle, high = np.percentile(self.object_sizes, [5, 50, 95])
            lines.append(
                f"objects at {size_text(self.size)} px: half of them <= {middle:.0f} px, from "
                f"{low:.0f} (5 %) to {high:.0f} (95 %)"
            )
        return lines


def inspect_data(
    data: str | Path, *, task: str | None = None, format: str | None = None,
    size: Size | None = None, void: str | int | None = None, val_fraction: float = 0.2,
    seed: int = 0, items: bool = False, near: bool = True,
) -> Inspection:  # fmt: skip
    """Return statistics and issues of `data` as the recipes would read it.

    task: classify, detect, multilabel or segment; None to recognize it.
    format, void, val_fraction, seed: as in `kzoo.recipes.detect` and the other recipes.
    size: of the model's input, at which objects are measured: a side or (height, width) in px;
        None: the task's default.
    items: whether `as_json` lists every example.
    near: whether to look for near-duplicates, which decodes all images once more.

    Raises ValueError if the data cannot be used for training, with the reason.
    """
    data = Path(data)
    if not data.exists():
        raise ValueError(f"There is no {data}. Name a folder with images, a CSV or a json file.")
    task = task or task_of(data)
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}. Received: {task!r}")
    size = size or SIZES[task]
    options: dict[str, Any] = {"val_fraction": val_fraction, "seed": seed}
    if task == "detect":
        options["format"] = format
    if task == "segment":
        options["void"] = void
    dataset = READERS[task](data, **options)
    return inspect_dataset(dataset, data, task, size, items=items, near=near)


def inspect_dataset(
    dataset: Any, data: Path, task: str, size: Size, *, items: bool = False, near: bool = False
) -> Inspection:
    """Return the same for a data set that has been read already."""
    found = list(ITEMS[task](dataset))
    issues = list(dataset.issues)
    if near:
        # Without labels (boxes, masks) near-duplicates are reported only across splits.
        has_labels = task in ("classify", "multilabel")
        files = [
            (item.source, item.split, item.labels if has_labels else None) for item in found
            if isinstance(item.source, Path)
        ]  # fmt: skip
        near_duplicates(files, issues)
    sizes = object_sizes(found, size)
    inspection = Inspection(
        data, task, dataset.format, dataset.labels, tuple(issues), found, size, sizes, (), items
    )
    return dataclasses.replace(inspection, advice=tuple(advice(inspection)))


def task_of(data: Path) -> str:
    """Return the task that a data set is for; raise ValueError if it cannot be recognized."""
    if is_packed(data):
        return str(read_index(data)["task"])
    tree = look_through(data)
    if any(kind.fits(tree) for kind in FORMATS.values()):
        return "detect"
    if mask_pairs(tree, [])[0]:
        return "segment"
    if has_class_folders(data):
        return "classify"
    if advice := unread_export(tree):
        raise ValueError(advice)
    if has_label_sets(tree):
        return "multilabel"
    if data.is_file() or has_classes(tree):
        return "classify"
    raise ValueError(
        f"{data} holds nothing that kzoo can learn from: neither one folder of images per class "
        "(classify), nor a CSV of labels (classify, multilabel), nor images with boxes (detect: "
        "COCO, VOC, YOLO, CSV, CVAT, LabelMe, CreateML) "
        "nor with masks (segment: images/ and masks/). --task says which is meant, and why not."
    )


READERS: Mapping[str, Callable[..., Any]] = {
    "classify": read_dataset, "detect": read_boxes, "multilabel": read_label_sets,
    "segment": read_masks,
}  # fmt: skip


def class_items(dataset: Dataset) -> Iterator[Item]:
    for split in NAMES:
        part = getattr(dataset, split)
        for source, target in zip(part.paths, part.targets.tolist(), strict=True):
            yield Item(source, split, size_of(source), (target,))


def label_set_items(dataset: LabelSets) -> Iterator[Item]:
    for split in NAMES:
        part = getattr(dataset, split)
        for source, target in zip(part.paths, part.targets, strict=True):
            yield Item(source, split, size_of(source), tuple(np.flatnonzero(target).tolist()))


def box_items(dataset: BoxDataset) -> Iterator[Item]:
    for split in NAMES:
        for example in getattr(dataset, split):
            labels = tuple(int(k) for k in example.labels)
            yield Item(example.path, split, example.size, labels, example.boxes)


def mask_items(dataset: MaskDataset) -> Iterator[Item]:
    for split in NAMES:
        for pair in getattr(dataset, split):
            ids = pair.mask.read()
            labels = tuple(i for i in np.unique(ids).tolist() if i < len(dataset.labels))
            yield Item(pair.image, split, ids.shape[:2], labels, pair=pair)


ITEMS: Mapping[str, Callable[..., Iterator[Item]]] = {
    "classify": class_items, "detect": box_items, "multilabel": label_set_items,
    "segment": mask_items,
}  # fmt: skip


def size_of(source: Source) -> tuple[int, int]:
    """Return (H, W) from an image's header; (0, 0) if it cannot be read any more."""
    try:
        return upright_size(source)
    except BadImageError:
        return 0, 0


def object_sizes(items: Sequence[Item], size: Size) -> np.ndarray:
    """Return the square root of each object's area, in px at the model's input."""
    boxes = [item.boxes for item in items if item.boxes is not None and len(item.boxes)]
    if not boxes:
        return np.zeros(0)
    every = np.concatenate(boxes)
    return mean_side(size) * np.sqrt(np.prod(every[:, 2:] - every[:, :2], axis=1))


def summary(dataset: Any, data: str | Path, task: str, size: Size) -> str:
    """Return what a run shows about its data: counts, first issues, objects that are too small."""
    lines = [str(dataset)]
    if dataset.issues:
        command = f"kzoo inspect {shlex.quote(str(data))} --task {task}"
        lines += [f"{issue_count(dataset.issues)} ({command} shows all), first:"]
        lines += [f"  {issue}" for issue in dataset.issues[:FIRST_ISSUES]]
    if task == "detect":
        found = inspect_dataset(dataset, Path(data), task, size)
        lines += [line for line in found.sizes() if line.startswith("objects")]
        told = ("smaller than", "squashes")
        lines += [f"To do: {line}" for line in found.advice if any(x in line for x in told)]
    return "\n".join(lines)


def advice(found: Inspection) -> Iterator[str]:
    """Yield a sentence of advice for each problem of the data."""
    small = found.object_sizes < SMALLEST
    if len(small) and small.mean() > MANY_SMALL:
        tenth = max(1.0, float(np.quantile(found.object_sizes, MANY_SMALL)))
        factor = SMALLEST / tenth / 32
        wanted = [32 * math.ceil(side * factor - 0.05) for side in height_width(found.size)]
        larger = f"--size {size_text(simplest(*wanted))}"
        way = larger if max(wanted) <= LARGEST_SIZE else "cutting images into tiles"
        yield (
            f"{small.mean():.0%} of the objects are smaller than {SMALLEST} px at "
            f"{size_text(found.size)} px, and will rarely be found: {way} would help."
        )
    counts = found.counts("train")
    first = 1 if found.task == "segment" else 0  # background is in nearly every image
    present = {i: counts[i] for i in range(first, len(found.labels)) if counts[i]}
    for i in range(first, len(found.labels)):
        if not counts[i]:
            yield f"{found.labels[i]!r} has no training examples: add some, or remove the class."
    checked = found.counts("val")
    for i, label in enumerate(found.labels):
        if counts[i] and not checked[i]:
            yield f"{label!r} has no validation examples: its figures will mean nothing."
    few = [found.labels[i] for i, count in present.items() if count < FEW]
    if few:
        names = ", ".join(map(repr, few[:5])) + (" and others" if len(few) > 5 else "")
        yield f"There are fewer than {FEW} training examples of {names}: add some."
    order = sorted(present, key=present.__getitem__)
    if order and present[order[-1]] > UNEVEN * present[order[0]]:
        rare, frequent = order[0], order[-1]
        yield (
            f"{found.labels[frequent]!r} is {present[frequent] / present[rare]:.0f} times as "
            f"frequent as {found.labels[rare]!r}: {BALANCE[found.task]}."
        )
    sides = [min(item.size) for item in found.items]
    if sides and np.median(sides) < min(height_width(found.size)) / 2:
        yield (
            f"Half of the images have sides of {np.median(sides):.0f} px or less: a --size of "
            f"{size_text(found.size)} only enlarges them, a smaller one is faster."
        )
    remark = aspect_remark([item.size for item in found.items], found.size)
    if remark and found.task in ASPECT_COUNTS:
        yield remark
    if not found.splits["test"]:
        yield (
            "There is no test split (a folder test/, a column or a list): the final figures of a "
            "run are then from the validation images, which also chose the best epoch."
        )
