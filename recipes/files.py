"""Small files of text, which appear whole or not at all."""

import json
from pathlib import Path
from typing import Any

from kzoo.tflite.files import replacing


def write_text(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")
