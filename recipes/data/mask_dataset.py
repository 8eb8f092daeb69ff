"""Images with masks: which files belong together, which classes there are, what cannot be used.

A mask is an image of class ids: PNG in Pillow's mode P (a palette: its indices count, not its
colours) or L, also with 16 bits. 255 is void and counts for nothing. It has its image's size, and
is never resampled but by nearest neighbour. COCO files give polygons or run lengths instead.
"""

import dataclasses
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from kzoo.recipes.data.coco_masks import CocoMask, has_coco, read_coco
from kzoo.recipes.data.images import (
    CACHE_BYTES,
    Issue,
    Source,
    counted,
    defect,
    drawn,
    is_candidate,
    only_train,
    read_image,
    remarks,
    split_folders,
    text_of,
)
from kzoo.recipes.data.packed import Record, Records, is_packed, open_packed
from kzoo.segmentation.masks import VOID

# Names of the folders of images and of masks: ours, and Pascal VOC's.
FOLDERS = (("images", "masks"), ("JPEGImages", "SegmentationClass"))
LABELS = "labels.txt"
MASK_SUFFIXES = (".png", ".bmp", ".gif", ".tif", ".tiff")  # those that keep what is written
TURNED = (5, 6, 7, 8)  # EXIF orientations that lay an image on its side
ORIENTATION = 0x0112  # the EXIF tag
VOC_LABELS = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip


class BadMaskError(ValueError):
    """A file that is no usable mask; the message says why."""


@dataclasses.dataclass(frozen=True)
class MaskFile:
    """A mask in a file of its own. `binary`: 255 stands for class 1, not for void."""

    path: Path
    binary: bool = False

    def read(self) -> np.ndarray:
        """Class ids (H, W). Raises BadMaskError."""
        if self.path.suffix.lower() not in MASK_SUFFIXES:
            raise BadMaskError(f"a {self.path.suffix} is no mask: it blurs class ids. Use PNG")
        try:
            with Image.open(self.path) as image:
                if image.mode not in ("P", "L", "1") and not image.mode.startswith("I"):
                    raise BadMaskError(
                        f"in mode {image.mode}, colours: a mask holds class ids (mode P or L)"
                    )
                ids = np.asarray(image).astype(np.int32)
        except BadMaskError:
            raise
        except Exception as error:  # of Pillow's readers, which raise all kinds
            raise BadMaskError(f"damaged ({error})") from None
        return np.where(ids == VOID, 1, ids) if self.binary else ids


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its mask."""

    image: Source
    mask: "MaskFile | CocoMask | PackedMask"


@dataclasses.dataclass(frozen=True)
class PackedMask:
    """The mask beside a packed image, looked at when it was packed."""

    record: Record

    @property
    def path(self) -> Path:
        return Path(self.record.name)

    def read(self) -> np.ndarray:
        """Class ids (H, W)."""
        with Image.open(io.BytesIO(self.record.mask())) as image:
            return np.asarray(image)


class PackedPairs(Sequence[Pair]):
    """The images of a packed split with their masks."""

    def __init__(self, records: Records):
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i):
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

    def __str__(self) -> str:
        shares = self.pixels / max(1, self.pixels.sum())
        names = ", ".join(f"{a} {b:.1%}" for a, b in zip(self.labels, shares, strict=True))
        text = f"{counted(self)} ({names})"
        return text + (f"; {len(self.issues)} remarks on the data" if self.issues else "")


Found = tuple[str | None, Pair]  # train, val, test or None: not given


def read_masks(
    data: str | Path, *, val_fraction: float = 0.2, seed: int = 0, damaged: str = "refuse"
) -> MaskDataset:
    """The images and masks of `data`, every one opened once.

    data: a folder with images/ and masks/, where files that belong together are called alike, with
        train/, val/ and test/ of those, in Pascal VOC's layout, or with COCO json files; also such
        a file. Or what `kzoo pack` made of one; `damaged` as of `read_dataset`.
        labels.txt names the classes, one a line, the first being that of id 0. Where nothing is
        given as val, `val_fraction` is drawn by `seed`.

    Raises ValueError where nothing can be learnt from what is there, saying why.
    """
    data = Path(data)
    if not data.exists():
        raise ValueError(f"There is no {data}. DATA is a folder with images/ and masks/.")
    if is_packed(data):
        return packed_masks(data, skip=damaged == "skip")
    issues: list[Issue] = []
    labels: tuple[str, ...] | None
    found: list[Found]
    if folders := mask_folders(data):
        labels, found = read_labels(data), list(read_folders(folders, data, issues))
    elif has_coco(data):
        labels, coco = read_coco(data, issues)
        found = [(split, Pair(image, mask)) for split, image, mask in coco]
    else:
        raise ValueError(
            f"{data} holds no masks that kzoo reads: images/ and masks/ (or train/ and val/ with "
            "those), Pascal VOC's JPEGImages/ and SegmentationClass/, or COCO json files."
        )
    if only_train(split for split, _ in found):
        found = [(None if split == "train" else split, pair) for split, pair in found]
    looks = [(split, look) for split, look in look_at(found, labels, issues)]
    looks = as_binary(looks, labels, data, issues)
    if labels is None:
        labels = numbered(look for _, look in looks)
    splits = ("train", "val", "test", None)
    parts = {key: [look for split, look in looks if split == key] for key in splits}
    parts = drawn(parts, val_fraction, seed)
    pixels = sum((look.counts for look in parts["train"]), Counter[int]())
    present = [label for i, label in enumerate(labels) if pixels[i]]
    for label in labels:
        if label not in present:
            issues.append(Issue(data, f"class {label!r} has no pixel to train on"))
    if len(present) < 2 or not parts["val"]:
        left = f" First of {len(issues)} remarks: {issues[0]}." if issues else ""
        missing = "two classes to tell apart" if parts["val"] else "image to validate on"
        raise ValueError(f"{data} holds no {missing}.{left}")
    train, val, test = (tuple(look.pair for look in parts[key]) for key in splits[:3])
    counts = np.array([pixels[i] for i in range(len(labels))])
    return MaskDataset(labels, train, val, test, counts, tuple(issues))


def packed_masks(data: Path, *, skip: bool) -> MaskDataset:
    packed = open_packed(data, "segment", skip=skip)
    train, val, test = (PackedPairs(packed.images[split]) for split in ("train", "val", "test"))
    pixels = np.array(packed.about["pixels"])
    return MaskDataset(packed.labels, train, val, test, pixels, remarks(packed))


def mask_folders(data: Path) -> list[tuple[str | None, Path, Path]]:
    """(split, folder of images, folder of masks), as many as there are."""
    return [
        (split, root / images, root / masks)
        for split, root in [*split_folders(data).items(), (None, data)]
        for images, masks in FOLDERS
        if (root / images).is_dir() and (root / masks).is_dir()
    ]


def read_labels(data: Path) -> tuple[str, ...] | None:
    """The names of the classes, where they are given."""
    file = data / LABELS
    if file.is_file():
        labels = tuple(line.strip() for line in text_of(file).splitlines())
        if not all(labels) or len(set(labels)) < len(labels) or not 1 < len(labels) < VOID:
            raise ValueError(
                f"{file} must name from 2 to {VOID - 1} classes, one a line, none of them twice."
            )
        return labels
    return VOC_LABELS if (data / "SegmentationClass").is_dir() else None


def read_folders(
    folders: Iterable[tuple[str | None, Path, Path]], data: Path, issues: list[Issue]
) -> Iterator[Found]:
    lists = {
        line.strip(): split
        for split in ("train", "val", "test")
        for file in data.glob(f"ImageSets/Segmentation/{split}.txt")
        for line in text_of(file).splitlines()
    }
    for split, images, masks in folders:
        by_stem = {path.stem: path for path in sorted(masks.rglob("*")) if is_candidate(path)}
        for path in sorted(path for path in images.rglob("*") if is_candidate(path)):
            mask = by_stem.pop(path.stem, None)
            if mask:
                yield split or lists.get(path.stem), Pair(path, MaskFile(mask))
            elif not lists:  # VOC has more images than masks
                issues.append(Issue(path, f"has no mask {masks.name}/{path.stem}.png: left out"))
        for mask in by_stem.values():
            issues.append(Issue(mask, f"has no image {images.name}/{mask.stem}: left out"))


@dataclasses.dataclass(frozen=True)
class Look:
    """What opening a pair has shown."""

    pair: Pair
    counts: Counter[int]  # pixels of each class
    void: bool  # whether there is any


def look_at(
    found: list[Found], labels: tuple[str, ...] | None, issues: list[Issue]
) -> Iterator[tuple[str | None, Look]]:
    """Every pair opened once; those that cannot be used go to `issues`."""
    with ThreadPoolExecutor(2) as pool:
        looks = pool.map(lambda pair: look(pair, labels), [pair for _, pair in found])
        shown = tqdm(looks, "reading images and masks", len(found), disable=None)
        for (split, _), result in zip(found, shown, strict=True):
            if isinstance(result, Issue):
                issues.append(result)
            else:
                yield split, result


def look(pair: Pair, labels: tuple[str, ...] | None) -> Look | Issue:
    if reason := defect(pair.image):
        return Issue(Path(str(pair.image)), f"{reason}: left out")
    source = pair.mask.path
    try:
        if isinstance(pair.mask, CocoMask):  # its size is only a claim, and may be of any number
            hold_size(pair.mask.size, pair.image)
        ids = pair.mask.read()
        hold_size(ids.shape, pair.image)
    except BadMaskError as error:
        return Issue(source, f"{error}: left out")
    values, numbers = np.unique(ids, return_counts=True)
    counts = Counter({int(k): int(n) for k, n in zip(values, numbers, strict=True) if k != VOID})
    if not counts:
        return Issue(source, "holds nothing but void (255): left out")
    most = len(labels) if labels else VOID
    if max(counts) >= most:
        return Issue(source, f"holds class id {max(counts)}, and ids go to {most - 1}: left out")
    return Look(pair, counts, VOID in values)


def hold_size(size: tuple[int, ...], image: Source) -> None:
    """Raises BadMaskError for a mask of another size (H, W) than its image's."""
    height, width = upright_size(image)
    if size != (height, width):
        raise BadMaskError(f"has {size[1]} x {size[0]} px, {image.name} has {width} x {height}")


def upright_size(path: Source) -> tuple[int, int]:
    """(H, W) of an image as it is seen."""
    with path.open("rb") as file, Image.open(file) as image:
        size = image.height, image.width
        return size[::-1] if image.getexif().get(ORIENTATION, 1) in TURNED else size


def as_binary(
    looks: list[tuple[str | None, Look]], labels: tuple[str, ...] | None, data: Path,
    issues: list[Issue],
) -> list[tuple[str | None, Look]]:  # fmt: skip
    """Where masks hold nothing but 0 and 255, 255 is class 1: else there was nothing to learn."""
    found = [look for _, look in looks]
    files = all(isinstance(look.pair.mask, MaskFile) for look in found)
    classes = {key for look in found for key in look.counts}
    if not files or classes != {0} or not any(look.void for look in found):
        return looks
    issues.append(Issue(data, "masks hold nothing but 0 and 255: 255 is read as class 1"))
    again = []
    for split, old in looks:
        pair = old.pair
        new = look(Pair(pair.image, MaskFile(pair.mask.path, binary=True)), labels)
        if isinstance(new, Look):
            again.append((split, new))
    return again


def numbered(looks: Iterable[Look]) -> tuple[str, ...]:
    """Names for classes that have none."""
    most = max((max(look.counts) for look in looks), default=0)
    return ("background", *(f"class {i}" for i in range(1, most + 1)))


class Masked(Sequence):
    """Pairs as (image (side, side, 3), mask (side, side)), uint8, in memory as far as it goes.

    Images are stretched to a square bilinearly, masks by nearest neighbour.
    """

    def __init__(self, pairs: Sequence[Pair], side: int):
        self.pairs, self.side = pairs, side
        self.kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i):
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
    """The mask of a pair at its image's own size, uint8."""
    return pair.mask.read().astype("uint8")
