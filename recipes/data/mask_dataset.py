"""Images with masks: which files belong together, which classes there are, what cannot be used.

A mask has its image's size, and is never resampled but by nearest neighbour. It is a file of its
own (data/mask_files.py), or is drawn from the outlines of an annotation format.
"""

import dataclasses
import io
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kzoo.recipes.data.box_dataset import alike, matched, recognized
from kzoo.recipes.data.class_dataset import remarks
from kzoo.recipes.data.duplicates import same_bytes
from kzoo.recipes.data.formats import FORMATS
from kzoo.recipes.data.formats.mask_layout import mask_names, mask_pairs
from kzoo.recipes.data.formats.outlines import Size, covered, fault, scaled
from kzoo.recipes.data.formats.records import Matched
from kzoo.recipes.data.images import (
    CACHE_BYTES,
    READERS,
    TRANSPOSED,
    TURNED,
    Look,
    Source,
    look_at,
    read_image,
)
from kzoo.recipes.data.layout import Tree, look_through
from kzoo.recipes.data.mask_files import (
    BadMaskError,
    MaskFile,
    Values,
    Void,
    decide,
    fault_of,
    look_at_mask,
    without,
)
from kzoo.recipes.data.packed import Record, Records, is_packed, open_packed
from kzoo.recipes.data.splits import NAMES, counted, drawn, for_test, in_parts, require_left
from kzoo.recipes.data.text import Issue, numbers
from kzoo.recipes.progress import track
from kzoo.segmentation.masks import VOID

BACKGROUND = "background"
SAMPLED = 40  # masks that are searched for a class that looks like void
THIN, RARE = 0.5, 0.15  # shares: of its pixels at its edge, at least; of all pixels, at most
UNUSED = ("void", "unlabelled", "unlabeled", "ignore", "ignored", "__ignore__")  # names of void
BORDERING = 0.5  # share of the edges' pixels that a background has


@dataclasses.dataclass(frozen=True)
class Region:
    """What one annotation covers."""

    label: int  # of the mask; VOID for crowds and unknown classes
    area: float
    outlines: tuple[Any, ...]  # polygons [x, y, x, y, ...], run lengths {"counts":, "size":}


@dataclasses.dataclass(frozen=True)
class DrawnMask:
    """The mask that the annotations of an image make."""

    path: Path  # of the annotation file
    size: Size  # that outlines are drawn at
    regions: tuple[Region, ...]  # larger ones first: where two overlap, the smaller is on top
    orientation: int = 1  # of the image's EXIF, where they were drawn on it as it is stored

    def read(self) -> np.ndarray:
        """Return class ids (H, W): 0 where nothing is annotated."""
        ids = np.zeros(self.size, np.int32)
        for region in self.regions:
            for outline in region.outlines:
                ids[covered(outline, self.size)] = region.label
        if self.orientation == 1:
            return ids
        whole = Image.fromarray(ids.astype("uint8")).transpose(TRANSPOSED[self.orientation])
        return np.asarray(whole).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class PackedMask:
    """The mask beside a packed image, looked at when it was packed."""

    record: Record

    @property
    def path(self) -> Path:
        return Path(self.record.name)

    def read(self) -> np.ndarray:
        """Return class ids (H, W)."""
        with Image.open(io.BytesIO(self.record.mask())) as image:
            return np.asarray(image)


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its mask."""

    image: Source
    mask: MaskFile | DrawnMask | PackedMask


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
class MaskDataset:
    """What images with masks offer to learn from."""

    labels: tuple[str, ...]
    train: Sequence[Pair]
    val: Sequence[Pair]
    test: Sequence[Pair]  # measured at the end; nothing is trained on it, or chosen by it
    pixels: np.ndarray  # (classes,) that the training masks hold
    issues: tuple[Issue, ...] = ()
    format: str = "masks"

    def __str__(self) -> str:
        shares = self.pixels / max(1, self.pixels.sum())
        names = ", ".join(f"{a} {b:.1%}" for a, b in zip(self.labels, shares, strict=True))
        text = f"{counted(self)} ({names})"
        return text + (f"; {len(self.issues)} remarks on the data" if self.issues else "")


@dataclasses.dataclass(frozen=True)
class Seen:
    """A pair that can be used."""

    pair: Pair
    counts: Counter[int]  # pixels of each class
    edge: Counter[int]  # the same, at the edge of the image
    split: str | None


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
    void: what of masks counts for nothing: a value, or names of classes with commas between; None:
        255.
    test: the images to test on, where they lie elsewhere.

    Raises ValueError where nothing can be learnt from what is there, saying why.
    """
    data = Path(data)
    if not data.exists():
        raise ValueError(f"There is no {data}. DATA is a folder with images/ and masks/.")
    nothing = Void.of(void)
    if test is not None:
        dataset = read_masks(data, val_fraction=val_fraction, seed=seed, damaged=damaged, void=void)
        return with_test(dataset, *read_test(test, dataset.labels, void=void))
    if is_packed(data):
        return packed_masks(data, skip=damaged == "skip")
    issues: list[Issue] = []
    form, labels, seen, alone = masked_images(data, issues, nothing)
    if alone:
        seen = [dataclasses.replace(s, split=None if s.split == "train" else s.split) for s in seen]
    parts = drawn(in_parts((item.split, item) for item in seen), val_fraction, seed)
    pixels: Counter[int] = Counter()
    for item in parts["train"]:
        pixels.update(item.counts)
    present = [label for i, label in enumerate(labels) if pixels[i]]
    for label in labels:
        if label not in present:
            issues.append(Issue(data, f"class {label!r} has no pixel to train on"))
    if len(present) < 2 or not parts["val"]:
        left = f" First of {len(issues)} remarks: {issues[0]}." if issues else ""
        missing = "two classes to tell apart" if parts["val"] else "image to validate on"
        raise ValueError(f"{data} holds no {missing}.{left}")
    files = [(item.pair.image, s, None) for s in NAMES for item in parts[s]]
    same_bytes([(path, s, what) for path, s, what in files if isinstance(path, Path)], issues)
    pairs = {split: tuple(item.pair for item in parts[split]) for split in NAMES}
    counts = np.array([pixels[i] for i in range(len(labels))])
    return MaskDataset(labels, **pairs, pixels=counts, issues=tuple(issues), format=form)


def packed_masks(data: Path, *, skip: bool) -> MaskDataset:
    packed = open_packed(data, "segment", skip=skip)
    train, val, test = (PackedPairs(packed.images[split]) for split in NAMES)
    pixels = np.array(packed.about["pixels"])
    return MaskDataset(packed.labels, train, val, test, pixels, remarks(packed), "packed")


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
    data = Path(data)
    if not data.exists():
        raise ValueError(f"There is no {data}. Name a folder with images/ and masks/.")
    if is_packed(data):
        packed = packed_masks(data, skip=False)
        if packed.labels != tuple(labels):
            raise ValueError(f"{data} was packed with other classes than {', '.join(labels)}.")
        return packed.test if len(packed.test) else packed.val, packed.issues
    issues: list[Issue] = []
    _, _, seen, _ = masked_images(data, issues, Void.of(void), tuple(labels))
    wanted = for_test(item.split for item in seen)
    found = tuple(item.pair for item in seen if item.split in wanted)
    if not found:
        left = f" First of {len(issues)} remarks: {issues[0]}." if issues else ""
        raise ValueError(f"{data} holds no image with a mask to test on.{left}")
    return found, tuple(issues)


def with_test(dataset: MaskDataset, test: Sequence[Pair], issues: Sequence[Issue]) -> MaskDataset:
    """Return a dataset with other test images, none of which is left in its other splits."""
    own = {item.image for item in test}
    train, val = (
        tuple(item for item in split if item.image not in own)
        if own & {item.image for item in split}
        else split
        for split in (dataset.train, dataset.val)
    )
    issues = [*dataset.issues, *issues]
    splits = (("train", train), ("val", val), ("test", test))
    files = [(item.image, name, None) for name, split in splits for item in split]
    same_bytes([(path, name, x) for path, name, x in files if isinstance(path, Path)], issues)
    found = tuple(dict.fromkeys(issues))
    require_left(train, val)
    return dataclasses.replace(dataset, train=train, val=val, test=test, issues=found)


# Masks in files


def of_files(
    found: list[Matched], tree: Tree, data: Path, issues: list[Issue], void: Void,
    known: tuple[str, ...] | None = None,
) -> tuple[tuple[str, ...], list[Seen]]:  # fmt: skip
    """Return the classes, and the pairs of images and mask files that can be used."""
    names = mask_names(tree, issues)
    if names.labels:
        left = without(names.labels, void.among(names.labels))
        require_same(data, left, known)
        named = [label for label in left if label.casefold() in UNUSED]
        issues += [Issue(data, unused_name(label)) for label in named if void == Void()]
    elif known and not void.names:
        names = dataclasses.replace(names, labels=known)
    with ThreadPoolExecutor(READERS) as pool:
        looks = pool.map(lambda item: look_at_pair(item.path, item.record.source), found)
        shown = list(track(looks, "reading images and masks", len(found)))
    usable: list[tuple[Matched, Look, Values]] = []
    for item, result in zip(found, shown, strict=True):
        if isinstance(result, Issue):
            issues.append(result)
            continue
        look, values = result
        if look.remark:
            issues.append(Issue(item.path, look.remark))
        usable.append((item, look, values))
    decided = decide([values for *_, values in usable], names, void)
    issues += [Issue(data, remark) for remark in decided.remarks]
    labels = decided.labels
    most = len(labels) if labels else VOID
    seen = []
    for item, look, values in usable:
        source = item.record.source
        reason = fault_of(values, decided, names) or unlike(values.size, look, item.path)
        coding = decided.colours if values.colours and decided.colours else decided.coding
        if reason is None:
            counts = classes_of(values.counts, values, coding)
            void_value = f"void ({coding.void})"
            if not counts:
                reason = f"holds nothing but {void_value}"
            elif max(counts) >= most:
                reason = f"holds class id {max(counts)}, and ids go to {most - 1}"
        if reason is not None:
            issues.append(Issue(source, f"{reason}: left out"))
            continue
        turn = look.orientation if values.size != look.size else 1
        if turn != 1:
            issues.append(Issue(source, "turned with its image, as that one's EXIF says"))
        pair = Pair(item.path, MaskFile(source, coding, turn))
        edge = classes_of(values.edge, values, coding)
        seen.append(Seen(pair, counts, edge, item.split))
    if labels is None and (number := lies_between([item.pair for item in seen[:SAMPLED]])):
        reason = (
            f"class {number} lies in thin lines between all others, as void does: if it is, say "
            f"--void {number}"
        )
        issues.append(Issue(data, reason))
    return labels or numbered(seen), seen


def require_same(data: Path, labels: Sequence[str], known: tuple[str, ...] | None) -> None:
    """Raise ValueError where the classes that `data` names are not those of a model."""
    if known and tuple(labels) != known:
        raise ValueError(
            f"{data} names the classes {', '.join(labels)}, and the model's are {', '.join(known)}."
        )


def unused_name(label: str) -> str:
    return (
        f"class {label!r} is learnt as the others are: if its pixels count for nothing, say "
        f"--void {label!r}"
    )


def lies_between(pairs: Sequence[Pair]) -> int | None:
    """Return the highest id, where it borders on every other and is mostly border; else None."""
    others: set[int] = set()
    beside: set[int] = set()
    edge = area = total = 0
    masks = [pair.mask.read() for pair in pairs]
    number = max((int(ids[ids != VOID].max(initial=0)) for ids in masks), default=0)
    for ids in masks:
        own = ids == number
        others.update(np.unique(ids[~own]).tolist())
        across = own[:, 1:] != own[:, :-1]
        beside.update(ids[:, 1:][across].tolist(), ids[:, :-1][across].tolist())
        rim = np.zeros_like(own)
        rim[:, 1:] |= across
        rim[:, :-1] |= across
        down = own[1:] != own[:-1]
        rim[1:] |= down
        rim[:-1] |= down
        edge, area, total = edge + (rim & own).sum(), area + own.sum(), total + own.size
    others -= {VOID}
    thin = area and edge >= THIN * area and area <= RARE * total
    return number if len(others) >= 3 and others <= beside and thin else None


def look_at_pair(image: Path, mask: Path) -> tuple[Look, Values] | Issue:
    look = look_at(image)
    if look.fault:
        return Issue(image, f"{look.fault}: left out")
    try:
        return look, look_at_mask(mask)
    except BadMaskError as error:
        return Issue(mask, f"{error}: left out")


def classes_of(counts, values: Values, coding) -> Counter[int]:
    """Return the pixels of each class, without void, of pixels by value."""
    keys = np.array([*counts], np.int64)
    if coding.by_colour:
        keys = np.array([values.palette.get(int(key), -1) for key in keys], np.int64)
    found: Counter[int] = Counter()
    for i, n in zip(coding(keys).tolist(), counts.values(), strict=True):
        found[i] += n
    del found[VOID]
    return found


def unlike(size: tuple[int, ...], look: Look, image: Source) -> str | None:
    """Return what differs between a mask of that size (H, W) and its image, or None."""
    height, width = look.size
    if size == (height, width) or (look.orientation in TURNED and size == (width, height)):
        return None
    return f"has {size[1]} x {size[0]} px, {image.name} has {width} x {height}"


def numbered(seen: Sequence[Seen]) -> tuple[str, ...]:
    """Return names for classes that have none; 0 is the background where it lies at the edges."""
    most = max((max(item.counts) for item in seen), default=0)
    edge: Counter[int] = Counter()
    for item in seen:
        edge.update(item.edge)
    behind = most == 1 or edge[0] >= BORDERING * edge.total()
    return (BACKGROUND if behind else "class 0", *(f"class {i}" for i in range(1, most + 1)))


# Masks drawn from outlines


def of_outlines(
    tree: Tree,
    data: Path,
    issues: list[Issue],
    void: Void,
    known: tuple[str, ...] | None = None,
) -> tuple[str, tuple[str, ...], list[Seen], bool]:
    """Return the format, the classes, the images with masks that outlines make; `only_train`."""
    try:
        form = recognized(tree, data, issues, outlines=True)
    except ValueError:
        raise ValueError(
            f"{data} holds no masks that kzoo reads: images/ and masks/ (or train/ and val/ with "
            "those), Pascal VOC's JPEGImages/ and SegmentationClass/, or outlines as "
            f"{', '.join(name for name, kind in FORMATS.items() if kind.outlines)}."
        ) from None
    names, records = FORMATS[form].read(tree, issues)
    things = tuple(name for name in names if name.casefold() != BACKGROUND)
    nothing = void.among(things)
    labels = known or (BACKGROUND, *without(things, nothing))
    index = {label: i for i, label in enumerate(labels)}
    index |= {name: 0 for name in names if name.casefold() == BACKGROUND}
    index |= {things[i]: VOID for i in nothing}
    found, alone = matched(records, tree, issues, image_set="Segmentation")
    left: Counter[tuple[Path, str]] = Counter()
    broken: dict[Path, list[str]] = {}
    with ThreadPoolExecutor(READERS) as pool:
        looks = list(track(pool.map(lambda item: look_at(item.path), found), "reading images",
                           len(found)))  # fmt: skip
    usable: list[tuple[Matched, DrawnMask]] = []
    for item, look in zip(found, looks, strict=True):
        if look.fault:
            issues.append(Issue(item.path, f"{look.fault}: left out"))
        elif reason := other_size(item, look):
            issues.append(Issue(item.record.source, f"{reason}: left out"))
        else:
            usable.append((item, mask_of(item, look, index, left, broken)))
    for file, first in broken.items():
        what = f"objects have outlines that cannot be drawn (first: {first[0]}): left out"
        issues.append(Issue(file, f"{len(first)} {what}"))
    issues += [Issue(file, f"{count} {what}") for (file, what), count in left.items()]
    seen = []
    with ThreadPoolExecutor(READERS) as pool:
        drawings = pool.map(lambda pair: pair[1].read(), usable)
        for (item, mask), ids in zip(usable, drawings, strict=True):
            values, sums = np.unique(ids, return_counts=True)
            counts = Counter(dict(zip(values.tolist(), sums.tolist(), strict=True)))
            del counts[VOID]
            if counts:
                seen.append(Seen(Pair(item.path, mask), counts, Counter(), item.split))
            else:
                issues.append(Issue(item.path, "is void all over: left out"))
    return form, labels, seen, alone


def other_size(item: Matched, look: Look) -> str | None:
    """Return why an annotation is not of its image's size, or None."""
    size = item.record.size
    if size is None or size == (1, 1):
        return None
    if min(size) <= 0 or not (alike(size, look.size) or alike(size, stored_size(look))):
        height, width = look.size
        return f"has {size[1]:.0f} x {size[0]:.0f} px, {item.path.name} has {width} x {height}"
    return None


def stored_size(look: Look) -> Size:
    return look.size[::-1] if look.orientation in TURNED else look.size


def mask_of(
    item: Matched,
    look: Look,
    index: dict[str, int],
    left: Counter[Any],
    broken: dict[Path, list[str]],
) -> DrawnMask:
    """Return the mask of a record; what cannot be drawn is counted in `left` and `broken`."""
    record = item.record
    size = record.size or look.size
    on_stored = size != (1, 1) and not alike(size, look.size)
    own = stored_size(look) if on_stored else look.size
    by = (own[0] / size[0], own[1] / size[1])
    regions = []
    for thing in record.objects:
        if not thing.outlines:
            left[record.source, "objects have no segmentation: left out"] += 1
            continue
        outlines = [scaled(outline, by) for outline in thing.outlines]
        faults = [fault(outline, own) for outline in outlines]
        if any(faults):
            where = f"{thing.name} of {record.image or item.path.name}".strip()
            broken.setdefault(record.source, []).append(f"{where}: {next(filter(None, faults))}")
        sound = tuple(o for o, why in zip(outlines, faults, strict=True) if not why)
        label = VOID if thing.crowd else index.get(thing.label)
        if label is None:  # something is there, and none of the classes: no ground to learn either
            label = VOID
            what = f"objects of unknown class {thing.label!r}: left out, their pixels are void"
            left[record.source, what] += 1
        regions.append(Region(label, area_of(thing.area, sound), sound))
    regions.sort(key=lambda region: -region.area)
    turn = look.orientation if on_stored else 1
    return DrawnMask(record.source, own, tuple(regions), turn)


def area_of(given: float | None, outlines: Sequence[Any]) -> float:
    """Return the area that is given, or that of the polygons."""
    if given is not None:
        return given
    total = 0.0
    for outline in outlines:
        if isinstance(outline, list):
            x, y = np.array(numbers(outline)).reshape(-1, 2).T
            total += abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
        else:
            total += sum(outline["counts"][1::2]) if isinstance(outline["counts"], list) else 0
    return total


# Both


class Masked(Sequence[Any]):
    """Pairs as (image (side, side, 3), mask (side, side)), uint8, in memory as far as it goes.

    Images are stretched to a square bilinearly, masks by nearest neighbour.
    """

    def __init__(self, pairs: Sequence[Pair], side: int):
        self.pairs, self.side = pairs, side
        self.kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: Any) -> Any:
        if i not in self.kept:
            pair = self.pairs[i]
            mask = Image.fromarray(full_mask(pair))
            mask = mask.resize((self.side, self.side), Image.Resampling.NEAREST)
            both = read_image(pair.image, self.side), np.asarray(mask)
            many = (len(self.kept) + 1) * sum(a.nbytes for a in both) > CACHE_BYTES
            if many or isinstance(pair.mask, PackedMask):  # as `Images`
                return both
            self.kept[i] = both
        return self.kept[i]


def full_mask(pair: Pair) -> np.ndarray:
    """Return the mask of a pair at its image's own size, uint8."""
    return pair.mask.read().astype("uint8")
