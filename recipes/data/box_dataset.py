"""Images with boxes around objects, as COCO, Pascal VOC, YOLO and CSV files have them.

Every box is held against its image: what lies outside is cut off, what has no area, no image or
no known class is left out, and all of it is counted. Boxes are as the image is seen upright.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from kzoo.recipes.data.box_formats import FORMATS
from kzoo.recipes.data.coco_boxes import Raw
from kzoo.recipes.data.images import (
    Issue,
    Source,
    counted,
    defect,
    drawn,
    is_candidate,
    only_train,
    remarks,
)
from kzoo.recipes.data.packed import Records, is_packed, open_packed

LEAST_SIDE = 1.0  # px; below, a box holds nothing
ORIENTATION = 0x0112  # the EXIF tag


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """An image and what is on it."""

    path: Source
    boxes: np.ndarray  # (n, 4) float32 y_min, x_min, y_max, x_max in [0, 1]
    labels: np.ndarray  # (n,) int
    size: tuple[int, int]  # (H, W) in px, upright


@dataclasses.dataclass(frozen=True, eq=False)
class BoxDataset:
    """What annotated images offer to learn from."""

    format: str
    labels: tuple[str, ...]
    train: Sequence[Example]
    val: Sequence[Example]
    test: Sequence[Example] = ()  # measured at the end; nothing is trained on it, or chosen by it
    issues: tuple[Issue, ...] = ()

    def __str__(self) -> str:
        counts = Counter(int(k) for example in self.train for k in example.labels)
        names = ", ".join(f"{label} {counts[i]}" for i, label in enumerate(self.labels))
        text = f"{counted(self, f' with {counts.total()} objects')} ({names})"
        return text + (f"; {len(self.issues)} remarks on the data" if self.issues else "")


def read_boxes(
    data: str | Path, *, format: str | None = None, val_fraction: float = 0.2, seed: int = 0,
    damaged: str = "refuse",
) -> BoxDataset:  # fmt: skip
    """The annotated images of `data`, every one opened once.

    data: a folder (for CSV and COCO also the file). Where a folder or a COCO or CSV file is called
        train, val or test, or a list or column says so, that is the split; where nothing
        is given as val, `val_fraction` is drawn by `seed`.
    format: one of `FORMATS`; None to go by what is there.
    damaged: as of `read_dataset`, where data is what `kzoo pack` made.

    Raises ValueError where nothing can be learnt from what is there, saying why.
    """
    data = Path(data)
    if not data.exists():
        raise ValueError(f"There is no {data}. DATA is a folder of images and annotations.")
    if is_packed(data):
        packed = open_packed(data, "detect", skip=damaged == "skip")
        packed_splits = {
            split: PackedExamples(packed.images[split], **packed.said[split])
            for split in ("train", "val", "test")
        }
        return BoxDataset("packed", packed.labels, **packed_splits, issues=remarks(packed))
    name = format or recognized(data)
    if name not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}. Received: {name!r}")
    issues: list[Issue] = []
    labels, records = FORMATS[name].read(data, issues)
    if only_train(record.split for record in records):
        given = {"train": None, "test": "test"}
        records = [dataclasses.replace(r, split=given[str(r.split)]) for r in records]
    found = list(examples(records, labels, data, issues))
    splits = ("train", "val", "test", None)
    parts = {split: [e for s, e in found if s == split] for split in splits}
    parts = drawn(parts, val_fraction, seed)
    present = {int(k) for example in parts["train"] for k in example.labels}
    for i, label in enumerate(labels):
        if i not in present:
            issues.append(Issue(data, f"class {label!r} has no object to train on"))
    if not present or not parts["val"]:
        left = f" First of {len(issues)} remarks: {issues[0]}." if issues else ""
        missing = "image to validate on" if present else "object to train on"
        raise ValueError(f"{data}, read as {name}, holds no {missing}.{left}")
    train, val, test = (tuple(parts[split]) for split in ("train", "val", "test"))
    return BoxDataset(name, labels, train, val, test, tuple(issues))


class PackedExamples(Sequence[Example]):
    """The images of a packed split with their objects: those of the first image first."""

    def __init__(
        self, records: Records, *, counts: np.ndarray, sizes: np.ndarray, boxes: np.ndarray,
        labels: np.ndarray,
    ):  # fmt: skip
        self.records, self.sizes, self.boxes, self.labels = records, sizes, boxes, labels
        self.ends = np.cumsum(counts)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        record = self.records[i]
        own = slice(self.ends[record.index - 1] if record.index else 0, self.ends[record.index])
        size = tuple(self.sizes[record.index].tolist())
        return Example(record, self.boxes[own], self.labels[own], size)


def recognized(data: Path) -> str:
    """The format of what is there. Raises ValueError for none."""
    for name, kind in FORMATS.items():
        if kind.fits(data):
            return name
    known = "; ".join(f"{name}: {kind.about}" for name, kind in FORMATS.items())
    raise ValueError(f"{data} holds no annotations that kzoo reads ({known}).")


def examples(
    records: Iterable[Raw], labels: tuple[str, ...], data: Path, issues: list[Issue]
) -> Iterator[tuple[str | None, Example]]:
    """(split, example) of every record that holds; the rest goes to `issues`."""
    records = list(records)
    root = data if data.is_dir() else data.parent
    images = Finder(root)
    index = {label: i for i, label in enumerate(labels)}
    paths = [images(record) for record in records]
    seen: dict[Path, Path] = {}
    with ThreadPoolExecutor(2) as pool:
        reasons = pool.map(lambda path: defect(path) if path else "missing", paths)
        shown = tqdm(reasons, "reading images", len(records), disable=None)
        for record, path, reason in zip(records, paths, shown, strict=True):
            if path is None:
                issues.append(
                    Issue(record.source, f"its image {record.image!r} is missing: left out")
                )
            elif reason:
                issues.append(Issue(path, f"{reason}: left out"))
            elif path in seen:
                issues.append(
                    Issue(record.source, f"{path.name} is annotated by {seen[path].name}: left out")
                )
            else:
                seen[path] = record.source
                yield record.split, settled(record, path, index, issues)
    annotated = set(paths)
    for path in images.all:
        if path not in annotated:
            issues.append(Issue(path, "has no annotation: left out"))


class Finder:
    """Images by the names that annotations give them."""

    def __init__(self, root: Path):
        self.root = root
        self.all = sorted(path for path in root.rglob("*") if is_candidate(path))
        self.by_name: dict[str, list[Path]] = {}
        self.by_stem: dict[str, list[Path]] = {}
        for path in self.all:
            self.by_name.setdefault(path.name, []).append(path)
            self.by_stem.setdefault(path.stem, []).append(path)

    def __call__(self, record: Raw) -> Path | None:
        """The image of a record: where its name says, else the only one that is called so."""
        name = record.image.replace("\\", "/")
        for place in (record.source.parent, self.root):
            if (place / name).is_file():
                return place / name
        found = self.by_name.get(Path(name).name) or self.by_stem.get(Path(name).stem, [])
        if len(found) > 1:  # several: that in the same part of the data set
            own = set(record.source.relative_to(self.root).parts)
            best = max(len(own & set(path.parts)) for path in found)
            found = [path for path in found if len(own & set(path.parts)) == best]
        return found[0] if len(found) == 1 else None


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


def settled(record: Raw, path: Path, index: dict[str, int], issues: list[Issue]) -> Example:
    """A record's boxes on its image as it is seen, in [0, 1]."""
    with Image.open(path) as image:
        stored, turn = (image.height, image.width), image.getexif().get(ORIENTATION, 1)
    upright = stored[::-1] if turn in (5, 6, 7, 8) else stored
    counts: Counter[str] = Counter()
    known = [item for item in record.objects if item.label in index]
    if unknown := {item.label for item in record.objects} - set(index):
        count = len(record.objects) - len(known)
        counts[f"objects of unknown class {sorted(unknown)[0]!r}: left out"] = count
    boxes = np.array([item.box for item in known], "float64").reshape(-1, 4)
    labels = np.array([index[item.label] for item in known], int)

    size = record.size or upright
    boxes = boxes / [*size, *size]
    if record.size and turn in UPRIGHT and stored != upright and alike(size, stored):
        # Drawn on the image as it is stored: turned as EXIF turns the image.
        corners = [UPRIGHT[turn](boxes[:, i], boxes[:, j]) for i, j in ((0, 1), (2, 3))]
        y, x = (np.stack(values, axis=-1) for values in zip(*corners, strict=True))
        boxes = np.stack([y.min(-1), x.min(-1), y.max(-1), x.max(-1)], axis=-1)
        counts["boxes turned with the image, as its EXIF says"] = 1
    elif record.size and record.size != (1, 1) and not alike(size, upright):
        counts[
            f"its annotation is of {size[1]:g} x {size[0]:g} px, the image has "
            f"{upright[1]} x {upright[0]}: boxes scaled"
        ] = 1

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
    return Example(path, inside[keep].astype("float32"), labels[keep], upright)


def alike(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether two sizes have the same shape, to 2 %."""
    return abs(a[0] * b[1] - a[1] * b[0]) <= 0.02 * a[0] * b[1]
