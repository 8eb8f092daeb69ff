"""A person's images: which files, which labels, which of them cannot be used, and why.

Photos are read by Pillow, turned as their EXIF says and stretched to a square, which is what
MediaPipe's ImageClassifier does to them on the phone.
"""

import csv
import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from kzoo.recipes.data.packed import DamagedError, Packed, Record, is_packed, open_packed

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
SMALLEST_SIDE = 8  # px; below, a file holds no image of anything
CACHE_BYTES = 2 << 30  # decoded images kept in memory, at the most


Source = Path | Record  # where an image is read from


@dataclasses.dataclass(frozen=True)
class Issue:
    """A file or folder that was not used as it stands, and what was done about it."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def text_of(file: Path) -> str:
    """A text in UTF-8. Raises ValueError naming the file that is none."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is no text in UTF-8 (byte {error.start}: {error.reason}). Save it as UTF-8."
        ) from None


@dataclasses.dataclass(frozen=True)
class Split:
    """Images and the index of each one's label."""

    paths: Sequence[Source]
    targets: np.ndarray  # (N,) int

    def __len__(self) -> int:
        return len(self.paths)


NONE = Split((), np.zeros(0, "int64"))


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a folder or a CSV file offers to learn from."""

    labels: tuple[str, ...]
    train: Split
    val: Split
    test: Split = NONE  # measured at the end; nothing is trained on it, or chosen by it
    issues: tuple[Issue, ...] = ()

    def __str__(self) -> str:
        counts = Counter(self.train.targets.tolist())
        names = ", ".join(f"{label} {counts[i]}" for i, label in enumerate(self.labels))
        text = f"{counted(self)} ({names})"
        return text + (f"; {len(self.issues)} not used as they stand" if self.issues else "")


def counted(dataset: Any, objects: str = "") -> str:
    """How many images each split of a dataset of any task has; `objects` follows the first."""
    text = f"{len(dataset.train)} images{objects} to train on, {len(dataset.val)} to validate"
    return text + (f", {len(dataset.test)} to test" if len(dataset.test) else "")


def read_dataset(
    data: str | Path, *, val_fraction: float = 0.2, seed: int = 0, damaged: str = "refuse"
) -> Dataset:
    """The images below `data`, every one opened once to see that it is an image.

    `data` is a folder with one folder per class, a folder with `train/` and `val/` of those, or a
    CSV file with the columns file, label and, if wanted, split (train, val or test); its file names
    are relative to its own folder. Or it is what `kzoo pack` made of one of these; `damaged` says
    what to do about damaged shards of it, "refuse" or "skip".
    Where nothing is given as val, `val_fraction` of each class is drawn by `seed`.
    Raises ValueError where nothing can be learnt from what is there, saying why.
    """
    data = Path(data)
    if not data.exists():
        raise ValueError(
            f"There is no {data}. DATA is a folder with one folder per class, or a CSV."
        )
    if is_packed(data):
        return packed_dataset(data, skip=damaged == "skip")
    issues: list[Issue] = []
    found = list(read_csv(data) if data.is_file() else read_folder(data, issues))
    if only_train(split for *_, split in found):
        found = [(path, label, None if s == "train" else s) for path, label, s in found]
    rows = list(without_bad(found, issues))
    known = sorted({label for _, label, split in rows if split not in ("val", "test")})
    unknown = {label for _, label, split in rows if split == "test"} - set(known)
    for label in sorted(unknown):
        reason = f"class {label!r} has images to test, but none to train on: left out"
        issues.append(Issue(data, reason))
    rows = [row for row in rows if row[2] != "test" or row[1] not in unknown]
    for label in sorted({label for _, label, _ in rows} - set(known)):
        raise ValueError(f"{data}: class {label!r} has images to validate, but none to train on.")
    if len(known) < 2:
        left = f" ({len(issues)} files were left out, first: {issues[0]})" if issues else ""
        raise ValueError(
            f"{data} holds {f'only the class {known[0]!r}' if known else 'no images'}{left}. "
            "A classifier needs at least two classes: one folder of images per class, or a CSV "
            "with the columns file,label."
        )
    if not {"train", "val"} & {split for *_, split in rows}:
        rows = split_rows(rows, val_fraction, seed)
    index = {label: i for i, label in enumerate(known)}

    def select(wanted: str) -> Split:
        chosen = [
            (path, index[label]) for path, label, split in rows if (split or "train") == wanted
        ]
        return Split(tuple(p for p, _ in chosen), np.array([t for _, t in chosen], dtype="int64"))

    train, val, test = (select(split) for split in ("train", "val", "test"))
    dataset = Dataset(tuple(known), train, val, test, tuple(issues))
    if not len(dataset.val):
        raise ValueError(
            f"{data}: no image is left to validate on. Give some as val, or no split at "
            "all: then val_fraction is drawn from every class that has two images."
        )
    return dataset


def packed_dataset(data: Path, *, skip: bool) -> Dataset:
    packed = open_packed(data, "classify", skip=skip)
    train, val, test = (
        Split(packed.images[split], packed.said[split]["targets"])
        for split in ("train", "val", "test")
    )
    return Dataset(packed.labels, train, val, test, remarks(packed))


def remarks(packed: Packed) -> tuple[Issue, ...]:
    return tuple(Issue(Path(file), reason) for file, reason in packed.remarks)


Found = tuple[Path, str, str | None]  # file, label, split (None: not given)


def read_folder(data: Path, issues: list[Issue]) -> Iterable[Found]:
    """Every file below the class folders of `data`, in the order of their names."""
    parts = split_folders(data)
    if parts and "train" not in parts:
        given = next(iter(parts.values())).name
        raise ValueError(f"{data} holds {given}/ but no train/.")
    for other in sorted(data.iterdir()) if parts else ():
        if other.is_dir() and other not in parts.values() and not other.name.startswith("."):
            issues.append(Issue(other, "is neither train/, val/ nor test/: left out"))
    for split, part in (parts or {None: data}).items():
        for folder in sorted(part.iterdir()):
            if folder.name.startswith((".", "__")):
                continue
            if not folder.is_dir():
                if folder.suffix.lower() in SUFFIXES:
                    issues.append(Issue(folder, "stands beside the class folders: left out"))
                continue
            images = sorted(path for path in folder.rglob("*") if is_candidate(path))
            if not images:
                issues.append(Issue(folder, "holds no images: the class is left out"))
            yield from ((path, folder.name, split) for path in images)


def split_folders(data: Path) -> dict[str | None, Path]:
    """The folders within that are called train, val or test, or much like it."""
    folders = [path for path in sorted(data.iterdir()) if path.is_dir()]
    return {SPLITS[path.name.lower()]: path for path in folders if path.name.lower() in SPLITS}


def is_candidate(path: Path) -> bool:
    """Whether a file or folder claims by its name to be an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_csv(table: Path) -> Iterable[Found]:
    """The rows of a CSV file with the columns file, label and, if wanted, split."""
    allowed: dict[str, str | None] = {**SPLITS, "": None}
    with table.open(newline="", encoding="utf-8-sig") as lines:
        rows = csv.DictReader(lines)
        try:
            columns = rows.fieldnames or []
            if not {"file", "label"} <= set(columns):
                raise ValueError(
                    f"{table}: the first line must name the columns file,label and, if wanted, "
                    f"split. It says: {','.join(columns)[:80]!r}"
                )
            for row in rows:
                split, label = (
                    (row.get("split") or "").strip().lower(),
                    (row["label"] or "").strip(),
                )
                where = f"{table}, line {rows.line_num}"
                if split not in allowed:
                    raise ValueError(
                        f"{where}: split must be train, val or test. It says: {split!r}"
                    )
                if not label or not row["file"]:
                    raise ValueError(f"{where}: a row needs a file and a label. It says: {row}")
                yield table.parent / row["file"].strip(), label, allowed[split]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{table} is no CSV file in UTF-8: {error}") from error


def without_bad(found: Iterable[Found], issues: list[Issue]) -> Iterable[Found]:
    """The rows whose file is an image; the others are added to `issues`."""
    rows = list(found)
    with ThreadPoolExecutor(2) as pool:
        reasons = pool.map(lambda row: defect(row[0]), rows)
        shown = tqdm(reasons, "reading images", len(rows), disable=None)  # none off a terminal
        for row, reason in zip(rows, shown, strict=True):
            if reason:
                issues.append(Issue(row[0], f"{reason}: left out"))
            else:
                yield row


def defect(path: Source) -> str | None:
    """Why an image cannot be used, or None."""
    try:
        read_image(path, SMALLEST_SIDE)
    except BadImageError as error:
        return str(error)
    return None


def split_rows(rows: list[Found], val_fraction: float, seed: int) -> list[Found]:
    """Draws `val_fraction` of each class, at least one image where the class has two."""
    rng = np.random.default_rng(seed)
    chosen: set[Path] = set()
    for label in sorted({label for _, label, _ in rows}):
        own = [path for path, other, split in rows if other == label and split is None]
        count = min(max(1, round(len(own) * val_fraction)), len(own) - 1)
        chosen.update(own[i] for i in rng.permutation(len(own))[:count])
    return [
        (path, label, split or ("val" if path in chosen else "train"))
        for path, label, split in rows
    ]


def only_train(splits: Iterable[str | None]) -> bool:
    """Whether all but tests is given as train: then what to validate on is drawn from that.

    To be asked of what is given, not of what can be used: a val/ of broken files is no lack of one.
    """
    return set(splits) - {"test"} == {"train"}


Part = dict[str | None, list[Any]]  # what is of train, val, test, and of None: not given


def drawn(parts: Part, val_fraction: float, seed: int) -> Part:
    """The same with what has no split in train or val, and test as it is.

    It is drawn from, unless other things are given as val: then it is trained on.
    """
    rest = parts[None]
    count = 0 if parts["val"] or not rest else max(1, round(len(rest) * val_fraction))
    order = np.random.default_rng(seed).permutation(len(rest))
    val, train = ([rest[i] for i in sorted(chosen)] for chosen in (order[:count], order[count:]))
    return {"train": parts["train"] + train, "val": parts["val"] + val, "test": parts["test"]}


class BadImageError(ValueError):
    """A file that is not a usable image; the message says why."""


def read_image(path: str | Source, side: int) -> np.ndarray:
    """The image as uint8 (side, side, 3), RGB, upright, stretched to a square.

    Of an animation the first frame is read; transparent pixels become white; 16 bits become 8.
    Raises BadImageError for what is no image, or one of under 8 pixels a side.
    """
    path = Path(path) if isinstance(path, str) else path
    if isinstance(path, Path):
        if path.is_dir():
            raise BadImageError("a folder, not an image")
        if not path.exists():
            raise BadImageError("missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd but readable files
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with path.open("rb") as file, Image.open(file) as image:
                if min(image.size) < SMALLEST_SIDE:
                    raise BadImageError(f"only {image.width} x {image.height} px")
                image.draft(
                    "RGB", (2 * side, 2 * side)
                )  # lets JPEG decode at a fraction of its size
                upright = ImageOps.exif_transpose(image)
                return np.asarray(to_rgb(upright).resize((side, side), Image.Resampling.BILINEAR))
    except (BadImageError, DamagedError):
        raise
    except UnidentifiedImageError:
        empty = isinstance(path, Path) and path.stat().st_size == 0
        raise BadImageError("empty" if empty else "not an image that Pillow can read") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise BadImageError("too many pixels (a decompression bomb?)") from None
    except PermissionError:
        raise BadImageError("no permission to read it") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        raise BadImageError(f"damaged ({error})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes as RGB."""
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow's own conversion saturates at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype("uint8")).convert(
            "RGB"
        )
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


class Images(Sequence):
    """Files as uint8 images (side, side, 3), kept in memory as far as `CACHE_BYTES` goes.

    Packed images are decoded again each time: there may be any number of them.
    """

    def __init__(self, paths: Sequence[Source], side: int):
        self.paths, self.side = paths, side
        self.kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return np.stack([self[j] for j in range(*i.indices(len(self)))])
        if i in self.kept:
            return self.kept[i]
        path = self.paths[i]
        image = read_image(path, self.side)
        if isinstance(path, Path) and (len(self.kept) + 1) * image.nbytes <= CACHE_BYTES:
            self.kept[i] = image
        return image
