"""Files and folders that appear whole or not at all, and names for files that are theirs alone."""

import contextlib
import csv
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: no process waits for another
    fcntl = None  # type: ignore[assignment]

PART = ".part-"  # what the names of unfinished files and folders begin with
KEPT_NAME = 200  # bytes of a file's name that its unfinished one keeps: file systems allow 255


def part_of(path: Path, mark: str = "") -> Path:
    """Return the name of `path` while it is unfinished."""
    return path.with_name(PART + mark + os.fsdecode(os.fsencode(path.name)[-KEPT_NAME:]))


def remove_parts(folder: Path) -> None:
    """Remove what killed processes have left unfinished in a folder; nobody may write there."""
    for part in folder.glob(f"{PART}*"):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(lock: Path, *, busy: str | None = None) -> Iterator[None]:
    """Hold a lock file against other processes; it is gone after the block.

    While another process holds it this one waits or, with `busy`, raises ValueError with that
    message. A process that was killed holds nothing. Where the system has no locks, as on Windows
    and some network disks, the block runs all the same.
    """
    while fcntl is not None:
        with lock.open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            except BlockingIOError:
                raise ValueError(busy) from None
            except OSError:  # a disk without locks
                break
            try:
                current = os.fstat(stream.fileno()).st_ino == lock.stat().st_ino
            except FileNotFoundError:
                current = False  # removed by the process that was waited for
            if not current:
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return
    yield


def require_suffix(path: str | Path, suffix: str) -> None:
    """Raise ValueError for a file to write that is not named so: it may be another kind of file."""
    if Path(path).suffix != suffix:
        raise ValueError(
            f"The file to write must be named NAME{suffix}. Received: {os.fspath(path)!r}"
        )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file to, in the same folder; it becomes `path` if the block ends well."""
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder: name a file in it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"There is no folder {str(path.parent)!r} to write {path.name} into."
        )
    part = part_of(path, f"{os.getpid()}-")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, beside `path`; it becomes `path` if the block ends well.

    `path` must not exist, or be an empty folder. What a killed process left half done is removed.
    """
    part = part_of(path)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8, whole or not at all.

    Bytes of file names that are no UTF-8 become escapes, which JSON reads back as what they were.
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, whole or not at all; names that are no UTF-8 with backslashes."""
    with (
        replacing(path) as part,
        part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as out,
    ):
        csv.writer(out).writerows(rows)


def finite(value: Any) -> Any:
    """Return a value of JSON's types with None for numbers that are not finite.

    JSON has no NaN: JavaScript, jq and others refuse a file that holds it.
    """
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    if hasattr(value, "tolist"):  # NumPy's
        return finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON; what JSON cannot hold, such as a path, is written as its `str`."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def save_model(model: Any, path: Path) -> None:
    """Write a Keras model as a .keras file, whole or not at all."""
    with replacing(path) as part:
        model.save(part)


class UniqueNames:
    """`names(file)`: a name for what is made of a file, unlike that of any other file.

    It is the file's stem, numbered where another file has the same: a, a-2, a-3.
    """

    def __init__(self) -> None:
        self.owners: dict[str, Path] = {}

    def __call__(self, file: Path) -> str:
        names = itertools.chain([file.stem], (f"{file.stem}-{n}" for n in itertools.count(2)))
        return next(name for name in names if self.owners.setdefault(name, file) == file)
