"""`evaluate_on`: metrics of any model on labelled images, for `kzoo evaluate`."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kzoo.recipes.data.images import Source
from kzoo.recipes.data.text import Issue, issue_count
from kzoo.recipes.inputs import FILE, MODEL, read_config, require_model
from kzoo.recipes.programs.predict_images import require_runs, task_of
from kzoo.recipes.task import Run, Task, looks_of, require_tiles
from kzoo.recipes.training.run_folder import labels_of
from kzoo.sizes import Tiles
from kzoo.tflite import Runner
from kzoo.weights.saved_model import load_model

SHOWN_ISSUES = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """Metrics of models on a data set."""

    data: Path
    task: Task
    labels: tuple[str, ...]
    images: int
    issues: tuple[Issue, ...]
    scores: Mapping[str, Any]  # by file
    trained_on: int = 0  # number of these images that the model's run was trained on

    def as_json(self) -> dict[str, Any]:
        """Return task, data, numbers of images, issues, and the figures of each file."""
        return {
            "task": self.task.name,
            "data": self.data,
            "images": self.images,
            "trained_on": self.trained_on,
            "issues": [{"path": str(x.path), "reason": x.reason} for x in self.issues],
            "figures": {
                name: self.task.report.figures(score, self.labels)
                for name, score in self.scores.items()
            },
        }

    def __str__(self) -> str:
        lines = [f"{self.images} images of {self.data} ({self.task.name}):"]
        for name, score in self.scores.items():
            cells = self.task.report.cells(score).items()
            lines.append(f"{name}: {', '.join(f'{what} {value}' for what, value in cells)}")
        if self.trained_on:
            lines.append(
                f"The run was trained on {self.trained_on} of these images: measure other images "
                "to learn what it reaches on new ones."
            )
        if self.issues:
            lines.append(f"{issue_count(self.issues)}, first:")
            lines += [f"  {issue}" for issue in self.issues[:SHOWN_ISSUES]]
        return "\n".join(lines)


def evaluate_on(
    model: str | Path, data: str | Path, *, format: str | None = None,
    void: str | int | None = None, tiles: Tiles | None = None,
) -> Measured:  # fmt: skip
    """Return the metrics of a model on labelled images: the test split if there is one, else all.

    model: a run folder, whose float model and int8 file are both measured, or a .keras or .tflite
        file. Class names are those in its metadata, else of labels.txt beside it.
    data, format, void: as in the command that trains such a model.
    tiles: (rows, columns) or "auto", for detectors: also measure with tiles, under names such as
        "model.tflite in 2x2 tiles".

    Raises ValueError for a model without class names, and for data with other classes.
    """
    path, data = Path(model), Path(data)
    files = [path]
    if path.is_dir():
        require_model(path, (".keras", ".tflite"))
        files = [file for name in (MODEL, FILE) if (file := path / name).is_file()]
    if not files or not files[0].is_file():
        raise ValueError(f"There is no model {path}. Name a run folder, a .keras or .tflite file.")
    require_runs(files[-1])
    task, labels = task_of(files[-1]), classes_of(files[-1])
    given = {"format": format, "void": void}
    chosen = {name: given[name] for name in task.test_settings if given[name] is not None}
    if task.read_test is None:
        raise ValueError(f"kzoo evaluate does not know how to read data of the task {task.name!r}.")
    require_tiles(task, tiles)
    split, issues = task.read_test(data, labels, **chosen)
    scores = {}
    for file in files:
        source: Any = file
        if file.suffix == ".keras":
            source = load_model(file)
            size = source.input_shape[1:3]
        else:
            size = Runner(file).input.shape[1:3]
        run = Run(task, {"size": size}, None, file.parent)
        for name, looks in looks_of(file.name, tiles).items():
            scores[name] = task.score(task.infer(run, source, split, **looks), split, labels)
    sources = task.sources(split)
    known = trained_on(task, files[-1].parent, data, sources)
    return Measured(data, task, labels, len(sources), tuple(issues), scores, known)


def trained_on(task: Task, folder: Path, data: Path, sources: Sequence[Source]) -> int:
    """Return how many of the images a run was trained on; 0 unless it is a run on `data`."""
    with contextlib.suppress(ValueError):  # no config.json, or data that became unusable
        config = read_config(folder)
        if Path(config.get("data") or "").resolve() == data.resolve():
            train = set(task.sources(task.read_dataset(data, config).train))
            return sum(source in train for source in sources)
    return 0


def classes_of(file: Path) -> tuple[str, ...]:
    """Return the class names of a model; raise ValueError if there are none."""
    labels = labels_of(file)
    if not labels:
        raise ValueError(
            f"{file} names no classes: write them into {file.with_name('labels.txt')}, one per "
            "line "
            "in the model's order."
        )
    return tuple(labels)
