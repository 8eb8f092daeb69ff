"""`Task`: the functions in which classification, detection and segmentation differ.

Each task is one `Task` object, which its module creates and registers. `pipeline.run(task, config)`
trains it, and everything for finished runs (compare, predict, pack ...) calls the run's task.
"""

import dataclasses
import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from kzoo.recipes.prediction import Predictor
from kzoo.sizes import Size, Tiles, height_width, simplest, tiles_text

Figures = dict[str, Any]  # the part of a score that results.json has
FLOAT, INT8 = "float", "int8"  # names of a run's two models in results.json and reports


def nothing(*_: Any) -> dict[Any, Any]:
    """Return an empty dict, the default of optional parts of a task."""
    return {}


def no_targets(split: Any) -> Iterable[bytes]:
    """Return no annotations: the default, with which changes of them are not noticed."""
    return ()


def no_words(split: Any) -> str:
    """Return "", the default of `Report.agreement`."""
    return ""


def no_file(file: Path) -> bool:
    """Return False: files of the task are recognized only by their outputs."""
    return False


def unchanged(model: Any) -> Any:
    """Return the model."""
    return model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """The task-specific parts of results and report page. A score is a result of `Task.score`."""

    Results: Any  # a subclass of RunResults
    figures: Callable[[Any, Sequence[str]], Figures]  # (score, labels) -> numbers for results.json
    cells: Callable[[Any], Mapping[str, str]]  # score -> {column: cell} of the results table
    net: str = "{model}"  # of the page's heading, with the settings' names in braces
    curves: tuple[str, ...] = ("loss",)  # keys of the history to plot by epoch
    note: str = ""  # below the results table
    # SplitEvaluation -> a sentence on the agreement of float and int8, for tasks where the
    # comparison of outputs does not show it.
    agreement: Callable[[Any], str] = no_words
    sections: Callable[["Run", Any], Mapping[str, str]] = nothing  # {heading: HTML}
    files: Callable[["Run", Any], Any] = nothing  # writes further files beside report.html
    image_scores: Callable[[Path, str], Mapping[tuple[str, str], Mapping[str, float]]] = nothing
    # ^ (run folder, split) -> {(image, its label): {model: score of its prediction}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of model that a run trains, from reading the data to the report.

    A dataset has `labels`, `issues` and the splits `train`, `val` and `test`. Files are .keras or
    .tflite.
    """

    name: str
    Config: type  # options of a run: a dataclass that extends RunConfig of kzoo.recipes.configs
    read: Callable[..., Any]  # (data, **settings named in `read_settings`) -> a dataset
    read_settings: tuple[str, ...] = ("val_fraction", "seed", "damaged", "test")
    read_test: Callable[..., Any] | None = None  # None: `kzoo evaluate` does not support the task
    # ^ (data, labels, **those of `test_settings`) -> split, issues
    test_settings: tuple[str, ...] = ()
    sources: Callable[[Any], Sequence[Any]]  # a split -> paths or other sources of its images
    targets: Callable[[Any], Iterable[bytes]] = no_targets
    # ^ a split -> bytes of each image's annotations, by which a resumed run notices changes
    build: Callable[[Any, Any], keras.Model]  # (config, dataset) -> the float model
    stages: Callable[["Run"], Sequence[Any]]  # TrainingStages; those of the int8 model come last
    float_copy: Callable[["Run", keras.Model], keras.Model]
    # ^ (run, trained model) -> the model to save, computing in float32
    write_file: Callable[["Run", keras.Model, Callable[[str], None]], Path]
    # ^ (run, int8 model, progress) -> the .tflite file
    int8_file: Callable[["Run"], Any] = nothing
    # ^ run -> (int8 file, history) if another library quantizes, else {}
    infer: Callable[..., Any]  # (run, model or file, split) -> predictions
    score: Callable[[Any, Any, Sequence[str]], Any]  # (predictions, split, labels) -> a score
    compare: Callable[..., Any]  # (run, float model, split, *, layers) -> Comparison or None
    report: Report
    predict: Callable[[Path, int], Predictor]  # (file, largest number of results per image)
    most_named: int = 3  # default of that number
    tiles: bool = False  # whether `predict` and `infer` take tiles= of large photos
    recognizes: Callable[[Sequence[int]], bool]  # numbers of axes of a file's outputs -> is it one?
    recognizes_file: Callable[[Path], bool] = no_file  # by a file's content; asked first
    pack: Callable[[Any, Any], None] | None = None  # (dataset, Packer): write a packed folder
    image_quality: Callable[..., Any] | None = None  # an ImageQuality of training.int8
    before_softmax: Callable[[keras.Model], keras.Model] = unchanged  # for the sensitivity analysis

    def read_dataset(self, data: Any, settings: Mapping[str, Any]) -> Any:
        """Return the dataset, read with `settings`: fields of a Config or of a config.json."""
        defaults = {field.name: field.default for field in dataclasses.fields(self.Config)}
        chosen = {name: settings.get(name, defaults[name]) for name in self.read_settings}
        return self.read(data, **chosen)


def require_tiles(task: Task, tiles: Tiles | None) -> None:
    """Raise ValueError for tiles in a task that does not support them."""
    if tiles and not task.tiles:
        raise ValueError(f"Tiles are for detectors. This is a model of the task {task.name!r}.")


def looks_of(name: str, tiles: Tiles | None) -> dict[str, dict[str, Any]]:
    """Return {name of the result: options of `Task.infer`}: whole images, then also `tiles`."""
    if tiles is None:
        return {name: {}}
    return {name: {}, f"{name} in {tiles_text(tiles)} tiles": {"tiles": tiles}}


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run, whether in progress or finished."""

    task: Task
    settings: Mapping[str, Any]  # as in config.json
    dataset: Any
    folder: Path
    config: Any = None  # the Config; None for a finished run that was opened again

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def model(self) -> Path:
        """The float model."""
        return self.folder / "model.keras"

    @property
    def int8(self) -> Path:
        return self.folder / "model.tflite"

    @property
    def files(self) -> dict[str, Path]:
        return {FLOAT: self.model, INT8: self.int8}

    @property
    def train(self) -> Sequence[Any]:
        """Sources of the training images."""
        return self.task.sources(self.dataset.train)

    @property
    def val(self) -> Sequence[Any]:
        """Sources of the validation images."""
        return self.task.sources(self.dataset.val)

    @property
    def size(self) -> Size:
        """Input size of the model in px."""
        return simplest(*height_width(self.settings["size"]))


TASKS: dict[str, Task] = {}


def register_task(task: Task) -> Task:
    """Register a task under its name, and return it."""
    if task.name in TASKS:
        raise ValueError(f"A task called {task.name!r} is registered already.")
    TASKS[task.name] = task
    return task


def list_tasks() -> tuple[str, ...]:
    """Return the names of all tasks, sorted."""
    importlib.import_module("kzoo.recipes.api")  # the files of all tasks
    return tuple(sorted(TASKS))


def get_task(name: str) -> Task:
    """Return the task of that name; raise ValueError with the nearest name for an unknown one."""
    known = list_tasks()
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"task must be one of {', '.join(known)}. Received: {name!r}.{hint}")
    return TASKS[name]
