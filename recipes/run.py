"""A run's folder: what was asked for, what came of it, and how either is read again.

config.json, labels.txt               what was asked for
checkpoint/                           what a killed run goes on from
model.keras, model.tflite             the float model, the int8 file
history.json, results.json            epochs and figures
report.html, predictions.csv, .png    the same for people
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kzoo.recipes import distribute
from kzoo.recipes.files import write_json, write_text
from kzoo.tflite.convert import require_tensorflow

R = TypeVar("R", bound=Any)  # a dataclass with the field `folder`


@dataclasses.dataclass(frozen=True)
class Results:
    """What a classification run reached on its validation pictures; accuracies in [0, 1]."""

    folder: Path
    float_accuracy: float
    int8_accuracy: float
    agreement: float
    sqnr_db: float

    def __str__(self) -> str:
        return (
            f"accuracy {self.float_accuracy:.3f} float, {self.int8_accuracy:.3f} int8; they agree "
            f"on {self.agreement:.1%} of the pictures (SQNR of the logits {self.sqnr_db:.1f} dB)\n"
            f"Model:  {self.folder / 'model.tflite'}\nReport: {self.folder / 'report.html'}"
        )


def open_run(config: Any, labels: tuple[str, ...]) -> Path:
    """Makes the run's folder, or finds the same run begun there; ValueError for any other.

    `config` is a recipe's Config; its `task` says later how to ask the run's model. ValueError too
    where the run could not end in its file.
    """
    require_tensorflow()
    folder = Path(config.out) if config.out else Path("runs") / Path(config.data).resolve().stem
    if distribute.first():
        begin_run(folder, config, labels)
    distribute.together()
    return folder


def begin_run(folder: Path, config: Any, labels: tuple[str, ...]) -> None:
    lasting = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.metadata["lasting"]
    }
    settings = json.loads(json.dumps(lasting, default=str))
    wanted = {"task": config.task, **settings, "labels": list(labels)}
    file = folder / "config.json"
    if file.exists():
        begun = json.loads(file.read_text(encoding="utf-8"))
        keys = [key for key in wanted if begun.get(key) != wanted[key]]
        if keys:
            changes = ", ".join(f"{key}={begun.get(key)!r}, not {wanted[key]!r}" for key in keys)
            raise ValueError(
                f"{folder} holds a run with other settings ({changes}). Give the settings of that "
                "run to go on with it, or another --out."
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is no run of kzoo. Choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, wanted)
    write_text(folder / "labels.txt", "".join(f"{label}\n" for label in labels))


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
