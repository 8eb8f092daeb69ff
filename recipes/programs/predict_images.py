"""`predict`: predictions of a trained model for images."""

import contextlib
import dataclasses
import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import kzoo
from kzoo.recipes.data.images import BadImageError
from kzoo.recipes.data.layout import images_below
from kzoo.recipes.inputs import FILE, read_config, require_ended, require_local
from kzoo.recipes.options import did_you_mean
from kzoo.recipes.prediction import DRAWN, Prediction
from kzoo.recipes.programs.published_model import HEADS, image_reader, published_model
from kzoo.recipes.task import Task, get_task, list_tasks, require_tiles
from kzoo.sizes import Tiles
from kzoo.tflite.runtime.trial import trial
from kzoo.weights.readers.flatbuffer import read_tflite
from kzoo.weights.saved_model import load_model

BATCH = 32  # images


def predict(
    model: str | Path, images: Sequence[str | Path], *, top: int | None = None, alpha: float = 1.0,
    weights: str | None = None, tiles: Tiles | None = None,
) -> Iterator[Prediction]:  # fmt: skip
    """Yield a `Prediction` for each image, which says so if the image cannot be read.

        for prediction in kzoo.recipes.predict("runs/photos", ["holiday.jpg", "more/*.jpg"]):
            print(prediction)

    model: a run folder, a .keras or .tflite file, or a published model by name, with `alpha` and
        `weights`. The task is that of its run, else recognized by its outputs. Class names are
        those in a .tflite file, else those of its run.
    images: files, folders, patterns, or "-" for a list on standard input.
    top: number of classes or objects per image; by default 3, or all labels of a multi-label model.
    tiles: (rows, columns) or "auto", for detectors: also run on tiles of each image, for small
        objects.

    Raises ValueError for a missing or unusable model, empty folders, and tiles in other tasks.
    """
    if top is not None and top < 1:
        raise ValueError(f"top must be at least 1. Received: {top}")
    file = model_file(model, alpha=alpha, weights=weights)
    paths = image_files(images, leave_out=file.parent / DRAWN)
    require_runs(file)
    task, read = task_of(file), image_reader(file)
    require_tiles(task, tiles)
    predictor = task.predict(file, top or task.most_named, **({"tiles": tiles} if tiles else {}))
    for start in range(0, len(paths), BATCH):
        some = paths[start : start + BATCH]
        arrays, remarks, problems = {}, {}, {}
        for path in some:
            try:
                arrays[path], look = read(path, predictor.size)
                remarks[path] = look.remark or ""
            except BadImageError as error:
                problems[path] = Prediction(path, problem=str(error))
        stacked = np.stack(list(arrays.values())) if arrays else None
        found = predictor.run(list(arrays), stacked) if stacked is not None else []
        told = (dataclasses.replace(one, remark=remarks[one.image]) for one in found)
        answers = {one.image: one for one in told} | problems
        yield from (answers[path] for path in some)


def require_runs(file: Path) -> None:
    """Raise ValueError if a .tflite file would crash the process that runs it.

    It is run in a separate process first, unless it is in a run folder, where that was done.
    """
    if file.suffix == ".tflite" and not (file.parent / "config.json").is_file():
        read_tflite(file)  # has a better message for other files
        trial(file)


def model_file(model: str | Path, *, alpha: float = 1.0, weights: str | None = None) -> Path:
    """Return the model's file: the int8 file of a run folder, or the file itself.

    A published model by name is created first. Raises ValueError if there is no such model.
    """
    file = Path(model)
    if not file.exists() and str(model) in (*kzoo.list_models(), *HEADS):
        return published_model(str(model), alpha=alpha, weights=weights)
    if file.is_dir():
        require_ended(file, FILE)
        file = file / FILE
    if not file.is_file():
        near = did_you_mean(str(model), (*kzoo.list_models(), *HEADS))
        raise ValueError(
            f"There is no {file}. Name a run folder, a .tflite or a .keras file{near or '.'}"
        )
    return file


def image_files(words: Sequence[str | Path], *, leave_out: Path | None = None) -> list[Path]:
    """Return the image files, each once, in the order given.

    words: files, folders (all images below them), patterns such as photos/*.jpg, or "-" for one of
        these per line of standard input.
    leave_out: a folder of drawings of earlier calls, to skip.

    Raises ValueError for a folder or pattern without images.
    """
    drawn = leave_out.resolve() if leave_out else None
    found: dict[Path, None] = {}
    for word in words:
        require_local(word)
        path = Path(word)
        if str(word) == "-":
            found |= dict.fromkeys(
                image_files(
                    [line for line in sys.stdin.read().splitlines() if line], leave_out=leave_out
                )
            )
        elif path.is_dir():
            inside = [file for file in images_below(path) if file.resolve().parent != drawn]
            if not inside:
                raise ValueError(f"The folder {path} holds no images.")
            found |= dict.fromkeys(inside)
        elif glob.has_magic(str(word)) and not path.exists():
            matching = sorted(map(Path, glob.glob(str(word), recursive=True)))
            if not matching:
                raise ValueError(f"No file matches {str(word)!r}.")
            found |= dict.fromkeys(file for file in matching if file.is_file())
        else:
            found[path] = None
    return list(found)


def task_of(file: Path) -> Task:
    """Return the task of a file's run; for other files the task recognized by its outputs."""
    with contextlib.suppress(ValueError):  # no config.json, or another program's
        return get_task(read_config(file.parent).get("task", ""))
    tasks = [get_task(name) for name in list_tasks()]
    for task in tasks:
        if task.recognizes_file(file):
            return task
    if file.suffix == ".keras":
        outputs = load_model(file).outputs
        axes = [len(output.shape) for output in outputs]
    else:
        graph = read_tflite(file).graphs[0]
        axes = [len(graph.tensors[i].shape) for i in graph.outputs]
    for task in tasks:
        if task.recognizes(axes):
            return task
    raise ValueError(f"{file} is not of a task that kzoo knows: its outputs have {axes} axes.")
