"""Images in few large files: read at random, checked, of any number, in the memory of one.

`kzoo pack` writes them, and every recipe reads them as it does a folder. A packed folder holds

packed.json                    task, labels, and of each file its length and sha256
train.npz, val.npz, test.npz   labels, boxes and sizes of the images; masks are records
train-00000.array_record, ...  the images, with their names and masks

ArrayRecord (https://github.com/google/array_record) is the container of TensorFlow Datasets and of
Grain: any record is one read, and its own checksums tell a damaged one. Measured beside others by
tests/bench/input_speed.py. A shard may be a link to another disk.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.files import locked, replacing_folder, write_json
from kzoo.recipes import distributed as distribute
from kzoo.recipes.data.text import Issue

INDEX = "packed.json"
FORMAT = 1
HEADER = struct.Struct("<HI")  # of a record: bytes of its name, of its image; then both, the mask
OPEN_SHARDS = 128  # files that a process has open at once
SPLITS = ("train", "val", "test")
PER_OBJECT = ("boxes", "labels", "kinds")  # of objects: those of the first image first


class DamagedError(ValueError):
    """A packed file that is not what was written; the message names it."""


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a packed folder, as it was written."""

    name: str
    bytes: int
    sha256: str
    split: str
    records: int = 0  # 0: it holds no images

    def damage(self, folder: Path, *, whole: bool) -> str | None:
        """What is wrong with it by its length or, with `whole`, by all of its bytes; or None."""
        path = folder / self.name
        if not path.is_file():
            return "missing"
        if (size := path.stat().st_size) != self.bytes:
            return f"{size:,} bytes long, written with {self.bytes:,}"
        return "its bytes have changed" if whole and sha256(path) != self.sha256 else None


@dataclasses.dataclass(frozen=True)
class Packed:
    """An opened packed folder."""

    folder: Path
    task: str
    labels: tuple[str, ...]
    remarks: tuple[tuple[str, str], ...]  # (file, what was wrong with it), of packing and opening
    images: dict[str, "Records"]  # by split
    annotations: dict[str, dict[str, np.ndarray]]  # of them, by split
    about: dict[str, Any]  # of all of them

    @property
    def issues(self) -> tuple[Issue, ...]:
        return tuple(Issue(Path(file), reason) for file, reason in self.remarks)


@dataclasses.dataclass(frozen=True)
class Record:
    """A packed image; it is read as a file is."""

    records: "Records"
    index: int

    @property
    def name(self) -> str:
        return self.records.read(self.index)[0]

    def open(self, mode: str = "rb") -> io.BytesIO:
        return io.BytesIO(self.records.read(self.index)[1])

    def mask(self) -> bytes:
        return self.records.read(self.index)[2]

    def __str__(self) -> str:
        return self.name


class Records(Sequence[Record]):
    """The images of a split, in the order in which they were packed."""

    def __init__(self, folder: Path, shards: Sequence[File]):
        self.folder = folder
        self.shards: tuple[File, ...] = tuple(shards)
        self.ends: np.ndarray = np.cumsum([shard.records for shard in shards], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        return Record(self, int(i) % len(self))

    def read(self, i: int) -> tuple[str, bytes, bytes]:
        """(Name, image, mask) of a record. Raises DamagedError."""
        k = int(np.searchsorted(self.ends, i, side="right"))
        path = self.folder / self.shards[k].name
        try:
            (record,) = reader(path).read([int(i - (self.ends[k] - self.shards[k].records))])
        except (RuntimeError, ValueError, IndexError) as error:
            raise DamagedError(damaged(path, str(error).splitlines()[0][:120])) from error
        return unpacked(record)


def test_images(packed: Any, data: Path, labels: Sequence[str]) -> tuple[Any, tuple[Issue, ...]]:
    """Return (test images, issues) of a packed dataset; its val where it has no test.

    Raises ValueError where it was packed with other labels than a model's.
    """
    if packed.labels != tuple(labels):
        raise ValueError(f"{data} was packed with other labels than {', '.join(labels)}.")
    return packed.test if len(packed.test) else packed.val, packed.issues


def damaged(path: Path, reason: str) -> str:
    return (
        f"{path} is damaged: {reason}. Bring it back from a copy, pack again, or leave the whole "
        "shard out by damaged=skip."
    )


def packed_record(name: str, image: bytes, mask: bytes = b"") -> bytes:
    head = name.encode(errors="backslashreplace")
    return HEADER.pack(len(head), len(image)) + head + image + mask


def unpacked(record: bytes) -> tuple[str, bytes, bytes]:
    name, image = HEADER.unpack_from(record)
    first, second = HEADER.size + name, HEADER.size + name + image
    return record[HEADER.size : first].decode(), record[first:second], record[second:]


@functools.lru_cache(maxsize=OPEN_SHARDS)
def reader(path: Path) -> Any:
    """An opened shard; it may be read from several threads."""
    # No reading ahead and no threads of its own: records are asked for in any order.
    return array_record().ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")


def array_record() -> Any:
    try:
        from array_record.python import array_record_module
    except ImportError:
        raise ValueError(
            "Packed folders need the library array_record: pip install 'kzoo[large]'."
        ) from None
    return array_record_module


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_packed(data: Path) -> bool:
    return (data / INDEX).is_file()


def open_packed(data: Path, task: str, *, skip: bool = False) -> Packed:
    """A packed folder, its files there and of their lengths.

    What a shard holds is checked when it is read. With `skip` all of it is read once now, and
    damaged shards are left out and remarked on. Raises DamagedError, and ValueError for a folder
    of another task.
    """
    index = read_index(data)
    if index["task"] != task:
        raise ValueError(
            f"{data} was packed for `kzoo {index['task']}`. Pack the images with --task {task}."
        )
    files = [File(**file) for file in index["files"]]
    remarks = [(str(path), reason) for path, reason in index["remarks"]]
    sound: list[File] = []
    annotations: dict[str, dict[str, np.ndarray]] = {}
    for file in files:
        # One process looks for all, so that all leave the same out.
        looks = not skip or distribute.first()
        reason = file.damage(data, whole=skip or not file.records) if looks else None
        if skip and distribute.agreed(reason is not None):
            reason = reason or "damaged"
        if reason is None:
            sound.append(file)
        elif not (skip and file.records):
            raise DamagedError(damaged(data / file.name, reason))
        else:
            text = f"damaged ({reason}): its {file.records} images are left out"
            remarks.append((file.name, text))
    for split in SPLITS:
        own = [file for file in files if file.split == split and file.records]
        keep = np.repeat([file in sound for file in own], [file.records for file in own])
        # Folders that older versions packed have no test split: that of train, without its rows.
        arrays = data / f"{split}.npz"
        with np.load(arrays if arrays.is_file() else data / "train.npz") as found:
            annotations[split] = of_kept(
                dict(found) if arrays.is_file() else {name: a[:0] for name, a in found.items()},
                keep,
            )
    images = {
        split: Records(data, [f for f in sound if f.split == split and f.records])
        for split in SPLITS
    }
    labels = tuple(index["labels"])
    return Packed(data, task, labels, tuple(remarks), images, annotations, index["about"])


def of_kept(annotations: dict[str, np.ndarray], keep: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays of the images that are kept; `counts` has the objects of each."""
    if keep.all():
        return annotations
    objects = np.repeat(keep, annotations["counts"]) if "counts" in annotations else keep
    return {name: a[objects if name in PER_OBJECT else keep] for name, a in annotations.items()}


def index_digest(data: Path) -> str:
    """Of what a packed folder says of itself: of every byte in it, since it holds their sha256."""
    return sha256(data / INDEX)[:16]


def read_index(data: Path) -> dict[str, Any]:
    try:
        index = json.loads((data / INDEX).read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise ValueError(f"is of format {index['format']}, and this kzoo reads {FORMAT}")
        return index
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{data / INDEX} {error}. Pack the images again.") from error


@dataclasses.dataclass(frozen=True)
class Check:
    """What reading a packed folder back has shown."""

    folder: Path
    files: int
    records: int
    bytes: int
    damage: tuple[tuple[str, str], ...]  # (file, reason)

    def __str__(self) -> str:
        size = f"{self.records:,} images in {self.files} files, {self.bytes / 1e9:.3f} GB"
        if not self.damage:
            return f"{self.folder}: {size}, all as they were written"
        lines = "".join(f"\n{name}: {reason}" for name, reason in self.damage)
        return f"{self.folder}: {size}; {len(self.damage)} of the files are damaged:{lines}"


def check(folder: Path) -> Check:
    """Reads a packed folder back, every byte of it."""
    files = [File(**file) for file in read_index(folder)["files"]]
    damage = ((file.name, file.damage(folder, whole=True)) for file in files)
    return Check(
        folder,
        len(files),
        sum(file.records for file in files),
        sum(file.bytes for file in files),
        tuple((name, reason) for name, reason in damage if reason),
    )


class Writer:
    """Writes a packed folder, which gets its name when it is whole and was read back."""

    def __init__(self, folder: Path, shard_bytes: int):
        self.folder = folder
        self.shard_bytes = shard_bytes
        self.open: contextlib.ExitStack = contextlib.ExitStack()  # until `finish`
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name[:100]}.lock")
        self.open.enter_context(
            locked(lock, busy=f"Another process is writing {folder}: wait until it has ended.")
        )
        self.part: Path = self.open.enter_context(replacing_folder(folder))
        self.files: list[File] = []

    def split(self, name: str, records: Any, annotations: dict[str, np.ndarray]) -> None:
        """Write a split: its records (bytes) in shards, and its annotations."""
        shard: Any = None
        size = count = 0
        for record in records:
            if shard is None:
                path = self.part / f"{name}-{len(self.files):05d}.array_record"
                shard = array_record().ArrayRecordWriter(str(path), "group_size:1,uncompressed")
                digest, size, count = hashlib.sha256(), 0, 0
            with self.disk_errors():
                shard.write(record)
            digest.update(record)
            size, count = size + len(record), count + 1
            if size >= self.shard_bytes:
                self.close(shard, path, name, count, digest.hexdigest())
                shard = None
        if shard is not None:
            self.close(shard, path, name, count, digest.hexdigest())
        path = self.part / f"{name}.npz"
        np.savez(path, **annotations)  # type: ignore[arg-type]  # numbers, by the names of Packed
        self.files.append(File(path.name, path.stat().st_size, sha256(path), name))

    @contextlib.contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Turn ArrayRecord's RuntimeError of a full or broken disk into an OSError."""
        try:
            yield
        except RuntimeError as error:
            reason = str(error).partition(";")[0]
            raise OSError(f"{self.folder} cannot be written: {reason}") from error

    def close(self, shard: Any, path: Path, split: str, count: int, written: str) -> None:
        """Ends a shard, and reads it back."""
        with self.disk_errors():
            shard.close()
        shard = array_record().ArrayRecordReader(str(path), "")
        digest = hashlib.sha256()
        for i in range(shard.num_records()):
            digest.update(shard.read([i])[0])
        shard.close()
        if digest.hexdigest() != written:
            raise OSError(f"{path} could not be written correctly: is the disk full or faulty?")
        self.files.append(File(path.name, path.stat().st_size, sha256(path), split, count))

    def finish(
        self, task: str, labels: Sequence[str], remarks: Sequence[tuple[str, str]],
        about: dict[str, Any],
    ) -> None:  # fmt: skip
        index = {"format": FORMAT, "task": task, "labels": labels, "about": about}
        files = [dataclasses.asdict(file) for file in self.files]
        write_json(self.part / INDEX, index | {"remarks": remarks, "files": files})
        self.open.close()
