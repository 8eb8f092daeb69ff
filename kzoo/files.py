"""Files and folders that appear whole or not at all, and names for files that are theirs alone."""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file to, in the same folder; it becomes `path` if the block ends well."""
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
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
    part = path.with_name(f".part-{path.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        os.replace(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


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
