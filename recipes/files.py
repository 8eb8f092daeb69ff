"""Files that appear whole or not at all, under names that are theirs alone."""

import itertools
import json
from pathlib import Path
from typing import Any

from kzoo.files import replacing


class OwnNames:
    """A name for what is made of each file: its stem, numbered where another file has it too."""

    def __init__(self) -> None:
        self.owners: dict[str, Path] = {}

    def __call__(self, file: Path) -> str:
        names = itertools.chain([file.stem], (f"{file.stem}-{n}" for n in itertools.count(2)))
        name = next(n for n in names if self.owners.setdefault(n, file) == file)
        return name


def write_text(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")
