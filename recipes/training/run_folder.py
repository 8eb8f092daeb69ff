"""A run's folder: what was asked for, what came of it, and how either is read again.

config.json, labels.txt               what was asked for
checkpoint/                           what a killed run goes on from
model.keras, model.tflite             the float model, the int8 file
history.json, results.json            epochs and figures
report.html, predictions.csv, .png    the same for people
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kzoo.recipes import distributed as distribute
from kzoo.recipes.data.images import Source
from kzoo.recipes.data.packed import index_digest, is_packed
from kzoo.recipes.files import write_json, write_text
from kzoo.tflite.convert.converter import require_tensorflow
from kzoo.tflite.inspect.verify import LEAST_AGREEMENT

R = TypeVar("R", bound=Any)  # a dataclass with the field `folder`


@dataclasses.dataclass(frozen=True)
class Results:
    """What a classification run reached on its validation images; accuracies in [0, 1]."""

    folder: Path
    float_accuracy: float
    int8_accuracy: float
    agreement: float
    sqnr_db: float

    def __str__(self) -> str:
        poor = self.agreement < LEAST_AGREEMENT
        advice = "\nThat is little: kzoo compare and kzoo sensitivity tell where it is lost."
        return (
            f"accuracy {self.float_accuracy:.3f} float, {self.int8_accuracy:.3f} int8; they agree "
            f"on {self.agreement:.1%} of the images (SQNR of the logits {self.sqnr_db:.1f} dB)"
            f"{advice if poor else ''}\n"
            f"Model:  {self.folder / 'model.tflite'}\nReport: {self.folder / 'report.html'}"
        )


def open_run(config: Any, labels: tuple[str, ...], *splits: Sequence[Source]) -> Path:
    """Makes the run's folder, or finds the same run begun there; ValueError for any other.

    `config` is a recipe's Config; its `task` says later how to ask the run's model. `splits` are
    the images to train and to validate on. ValueError too where the run could not end in its
    file.
    """
    require_tensorflow()
    folder = Path(config.out) if config.out else Path("runs") / Path(config.data).resolve().stem
    if distribute.first():
        begin_run(folder, config, labels, fingerprint(config.data, splits))
    distribute.together()
    return folder


def fingerprint(data: str | Path, splits: Sequence[Sequence[Source]]) -> str:
    """Of the images of a run, by name, size and order: what is kept of it is of these alone."""
    if is_packed(Path(data)):
        return index_digest(Path(data))
    digest = hashlib.sha256()
    for split in splits:
        for path in split:
            assert isinstance(path, Path)
            digest.update(f"{'/'.join(path.parts[-2:])} {path.stat().st_size}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def check_images(folder: Path, begun: Mapping[str, Any], found: str) -> None:
    """Raises ValueError where the images are not those of the run; older runs do not tell."""
    if begun.get("images", begun.get("pictures", found)) != found:
        raise ValueError(
            f"{folder} holds a run on other images: some of {begun['data']} came, went or "
            "changed since it was begun. Put them back as they were, or begin anew with another "
            "--out."
        )


def begin_run(folder: Path, config: Any, labels: tuple[str, ...], images: str) -> None:
    lasting = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.metadata["lasting"]
    }
    settings = json.loads(json.dumps(lasting, default=str))
    settings["data"] = os.path.abspath(settings["data"])  # the run may be looked at from elsewhere
    wanted = {"task": config.task, **settings, "labels": list(labels)}
    file = folder / "config.json"
    if file.exists():
        begun = json.loads(file.read_text(encoding="utf-8"))
        keys = [key for key in wanted if differs(key, begun.get(key), wanted[key])]
        if keys:
            changes = ", ".join(f"{key}={begun.get(key)!r}, not {wanted[key]!r}" for key in keys)
            raise ValueError(
                f"{folder} holds a run with other settings ({changes}). Give the settings of that "
                "run to go on with it, or another --out."
            )
        check_images(folder, begun, images)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is no run of kzoo. Choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, wanted | {"damaged": config.damaged, "images": images})
    write_text(folder / "labels.txt", "".join(f"{label}\n" for label in labels))


def differs(setting: str, begun: Any, wanted: Any) -> bool:
    """Whether a run with the one value is another than with the other; a run may be moved."""
    if setting == "data" and isinstance(begun, str):
        begun = os.path.abspath(begun)
    return setting != "out" and begun != wanted


def by_one(folder: Path, kind: type[R], finish: Callable[[], R]) -> R:
    """The results of a run: what `finish` returns, which one process does for all."""
    if distribute.first():
        results = finish()
        distribute.together()
        return results
    distribute.together()
    kept = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: kept[name] for name in names} | {"folder": folder})


def read_config(folder: Path) -> dict[str, Any]:
    """The settings of a run. Raises ValueError where there is no run."""
    file = folder / "config.json"
    if not file.is_file():
        raise ValueError(f"{folder} is no run folder: it holds no config.json.")
    return json.loads(file.read_text(encoding="utf-8"))


def labels_beside(file: Path) -> list[str] | None:
    """The names of the classes of a model, where labels.txt stands beside it."""
    listed = file.with_name("labels.txt")
    return read_labels(listed) if listed.exists() else None


def read_labels(file: Path) -> list[str]:
    """The names of classes, one a line."""
    return file.read_text(encoding="utf-8").splitlines()
