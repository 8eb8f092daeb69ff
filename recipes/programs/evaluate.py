"""What a model reaches on labelled images that it was not trained on, whatever made it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kzoo.recipes.data.text import Issue
from kzoo.recipes.programs.predict_images import require_runs, task_of
from kzoo.recipes.task import Run, Task, looks_of, require_tiles
from kzoo.recipes.training.run_folder import labels_of, read_config
from kzoo.tflite import Runner
from kzoo.weights.saved_model import load_model

SHOWN_ISSUES = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What models reach on a data set."""

    data: Path
    task: Task
    labels: tuple[str, ...]
    images: int
    issues: tuple[Issue, ...]
    scores: Mapping[str, Any]  # by file

    def as_json(self) -> dict[str, Any]:
        """Return task, data, images, issues, and the figures of each file."""
        return {
            "task": self.task.name,
            "data": self.data,
            "images": self.images,
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
        if self.issues:
            lines.append(f"{len(self.issues)} issues, first:")
            lines += [f"  {issue}" for issue in self.issues[:SHOWN_ISSUES]]
        return "\n".join(lines)


def evaluate_on(
    model: str | Path, data: str | Path, *, format: str | None = None,
    void: str | int | None = None, tiles: tuple[int, int] | None = None,
) -> Measured:  # fmt: skip
    """Return what a model reaches on labelled images: on those given as test, else on all.

    model: a run folder, whose float model and int8 file are both measured, or a .keras or .tflite
        file. Its classes are those of labels.txt beside it, else of its metadata.
    data, format, void: as of the command that trains such a model.
    tiles: (rows, columns) that a detector is measured with besides; its scores have them in the
        file's name, such as "model.tflite in 2x2 tiles".

    Raises ValueError for a model without names of classes, and for data without labels of these.
    """
    path, data = Path(model), Path(data)
    files = [path]
    if path.is_dir():
        read_config(path)
        files = [path / name for name in ("model.keras", "model.tflite")]
        files = [file for file in files if file.is_file()]
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
    return Measured(data, task, labels, len(task.sources(split)), tuple(issues), scores)


def classes_of(file: Path) -> tuple[str, ...]:
    """Return the names of a model's classes. Raises ValueError where nothing gives them."""
    labels = labels_of(file)
    if not labels:
        raise ValueError(
            f"{file} names no classes: write them into {file.with_name('labels.txt')}, one per "
            "line "
            "in the model's order."
        )
    return tuple(labels)
