"""Files, folders and packages that a command needs, checked before anything heavy is imported."""

import importlib.util
import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from kzoo.arguments import is_whole
from kzoo.recipes.options import did_you_mean
from kzoo.sizes import Size, Tiles, simplest

MODEL, FILE = "model.keras", "model.tflite"  # of a run
STAGES = "stages.json"  # in checkpoint/ of a run: the names of its stages
CHECKPOINT = re.compile(r"(.+?)-(\d{4})(?:-(\d{6}))?")  # whole-0002, whole-0003-000120
LEAST_SIDE = 32  # px of a model's input
NO_IMAGES = "Name a folder with images, a CSV file, or a packed folder."


def require_local(name: str | Path) -> None:
    """Raise ValueError if the name of a file or folder is a URL."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(name)):
        raise ValueError(f"{name} is a URL: download it, then name the file or folder.")


def require_data(data: str | Path) -> None:
    """Raise ValueError if data do not exist or are an empty folder."""
    require_local(data)
    path = Path(data)
    if not path.exists():
        raise ValueError(f"There is no {data}. {NO_IMAGES}")
    if path.is_dir() and not any(files for *_, files in os.walk(path, followlinks=True)):
        raise ValueError(f"{data} holds no images: it is an empty folder. {NO_IMAGES}")


def existing(data: str | Path, wanted: str) -> Path:
    """Return the path of data; raise ValueError, which says what is `wanted`, if missing."""
    path = Path(data)
    if not path.exists():
        raise ValueError(f"There is no {data}. Name {wanted}.")
    return path


def tiles_given(text: str | None) -> Tiles | None:
    """Return "auto" or (rows, columns) of --tiles ROWSxCOLUMNS; raise ValueError for other text."""
    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise ValueError(f"--tiles must be auto or ROWSxCOLUMNS, such as 2x2. Received: {text!r}")
    rows, columns = map(int, text.split("x"))
    return rows, columns


def size_given(size: Any, least: int = LEAST_SIDE) -> Size:
    """Return a model's input size: a side, (height, width), or --size SIDE or WIDTHxHEIGHT as text.

    Raises ValueError for anything else, and for a side below `least` px.
    """
    sides = size if isinstance(size, tuple | list) else (size, size)
    if isinstance(size, str):
        found = re.fullmatch(r"(\d+)(?:x(\d+))?", size.strip())
        width, height = found.groups() if found else ("0", "0")
        sides = (int(height or width), int(width))
    if len(sides) == 2 and all(is_whole(side) and side >= least for side in sides):
        height, width = sides
        return simplest(int(height), int(width))
    raise ValueError(
        f"size must be one side, or a width and a height, in px and at least {least} each: "
        "--size 320 or --size 320x240 (WIDTHxHEIGHT), in Python 320 or (240, 320), the height "
        f"first. Received: {size!r}"
    )


def require_file(file: str | Path) -> None:
    """Raise ValueError if a file does not exist or is a folder."""
    if Path(file).is_dir():
        run = f", such as {Path(file) / FILE}" if (Path(file) / FILE).is_file() else ""
        raise ValueError(f"{file} is a folder: name a file in it{run}.")
    if not Path(file).is_file():
        raise ValueError(f"There is no file {str(file)!r}.")


def require_run(folder: str | Path) -> None:
    """Raise ValueError if a folder is not a kzoo run folder."""
    path = Path(folder)
    if not path.exists():
        raise ValueError(f"There is no folder {str(folder)!r}: name the folder of a kzoo run.")
    if not path.is_dir():
        raise ValueError(f"{folder} is a file: name the folder of a kzoo run.")
    if not (path / "config.json").is_file():
        raise ValueError(f"{folder} is not a kzoo run folder: it has no config.json.")


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return the settings of a run; raise ValueError if there is no run."""
    require_run(folder)
    file = Path(folder) / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): restore it from a backup.") from error
    if not isinstance(config, dict):
        raise ValueError(
            f"{folder} is not a kzoo run folder: its config.json was not written by kzoo."
        )
    return config


def data_root(folder: str | Path) -> Path:
    """Return the folder that the names of a run's images are relative to."""
    data = Path(read_config(folder).get("data", ""))
    return data.parent if data.suffix.lower() in (".csv", ".tsv") else data


def require_same_task(first: str | Path, second: str | Path) -> None:
    """Raise ValueError if two runs are of different tasks."""
    tasks = [read_config(folder).get("task") for folder in (first, second)]
    if tasks[0] != tasks[1]:
        raise ValueError(
            f"{first} is a run of `kzoo {tasks[0]}` and {second} one of `kzoo {tasks[1]}`: only "
            "runs of the same task can be compared."
        )


def require_ended(folder: str | Path, *files: str) -> None:
    """Raise ValueError if there is no run, or `files` of it (by default both models) are missing.

    The message says where the run stopped.
    """
    require_run(folder)
    if all((Path(folder) / name).is_file() for name in files or (MODEL, FILE)):
        return
    raise ValueError(
        f"{folder} has no model yet: it {stopped(Path(folder) / 'checkpoint')}; run the same "
        "command to resume it."
    )


def stopped(checkpoints: Path) -> str:
    """Return where a run stopped, from its checkpoints: "stopped in stage 2 (whole), epoch 3"."""
    listed = checkpoints / STAGES
    stages = json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else []
    kept = [path for path in checkpoints.glob("*") if CHECKPOINT.fullmatch(path.name)]
    if not kept:
        return "stopped before its first checkpoint"
    last = max(kept, key=lambda path: path.stat().st_mtime)
    name, epoch, steps = CHECKPOINT.fullmatch(last.name).groups()  # type: ignore[union-attr]
    known = {stage: f"stage {i} ({stage})" for i, stage in enumerate(stages, 1)}
    stage = known.get(name, f"stage {name}")
    if any(checkpoints.glob(f"[0-9]-{name}.keras")):
        return f"stopped after {stage}"
    # The name counts epochs from 0; without steps that epoch was finished.
    return f"stopped in {stage}, epoch {int(epoch) + (1 if steps else 2)}"


def require_model(
    model: str | Path, suffixes: tuple[str, ...] = (".keras",), names: Collection[str] = ()
) -> None:
    """Raise ValueError unless `model` is a finished run or a file with one of the suffixes.

    names: other allowed values, from which the message suggests the nearest one.
    """
    path, kinds = Path(model), " or ".join(suffixes)
    if str(model) in names:
        return
    require_local(model)
    if path.is_dir():
        files = [Path(MODEL).with_suffix(suffix).name for suffix in suffixes]
        if not any((path / name).is_file() for name in files):
            require_ended(path, *files)
    elif not path.is_file():
        near = did_you_mean(str(model), names)
        raise ValueError(f"There is no {model}. Name a run folder or a {kinds} file{near or '.'}")
    elif path.suffix not in suffixes:
        raise ValueError(f"{model} is not a {kinds} file. Name one, or a run folder.")


def require_tfmot() -> None:
    """Raise ValueError if tfmot is not installed, before training begins."""
    if importlib.util.find_spec("tensorflow_model_optimization") is None:
        raise ValueError(
            "qat_engine='tfmot' needs tensorflow-model-optimization: pip install 'kzoo[tfmot]'. "
            "Or use qat_engine='kzoo', which needs no other package."
        )


def require_tensorboard(folder: str) -> None:
    """Raise ValueError if event files cannot be written to `folder`, or without tensorboard."""
    path = Path(folder)
    above = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not folder or not above.is_dir() or not os.access(above, os.W_OK):
        what = f"{above} is a file" if not above.is_dir() else f"{above} cannot be written to"
        raise ValueError(
            f"tensorboard must be a folder to write to. Received: {str(folder)!r}"
            f"{f', and {what}' if folder else ''}"
        )
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "tensorboard=... needs TensorBoard: pip install 'kzoo[tensorboard]'. history.json in "
            "the run folder has the same figures."
        )


def require_keras_cv() -> None:
    """Raise ValueError if keras-cv is not installed, before training begins."""
    if importlib.util.find_spec("keras_cv") is None:
        raise ValueError(
            "keras_cv_metrics needs keras-cv: pip install 'kzoo[keras-cv]'. kzoo's own mAP is "
            "COCO's too and needs no other package."
        )
