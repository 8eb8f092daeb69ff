"""What a task is: the parts in which classifying, detecting and segmenting differ.

A task is one `Task`, which its file makes and registers. `pipeline.run(task, config)` is the run,
and all that works on finished runs (compare, predict, pack ...) asks the run's task.
"""

import dataclasses
import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from kzoo.recipes.prediction import Predictor
from kzoo.sizes import Size, height_width, simplest

Figures = dict[str, Any]  # what is kept of a score in results.json
FLOAT, INT8 = "float", "int8"  # a run's two models, as results.json and the reports name them


def nothing(*_: Any) -> dict[str, Any]:
    """Return an empty dict: what a task adds where it has nothing to add."""
    return {}


def no_targets(split: Any) -> Iterable[bytes]:
    """Return nothing: what a task adds whose annotations are not watched."""
    return ()


def no_words(split: Any) -> str:
    """Return "": the words of a split that needs none."""
    return ""


def no_file(file: Path) -> bool:
    """Return False: no file tells that it is of the task."""
    return False


def unchanged(model: Any) -> Any:
    """Return what came."""
    return model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What a task's runs leave for people. `score` is what `Task.score` returns."""

    Results: Any  # a RunResults, which is a type
    figures: Callable[[Any, Sequence[str]], Figures]  # (score, labels) -> numbers for results.json
    cells: Callable[[Any], Mapping[str, str]]  # score -> {column: cell} of the results table
    net: str = "{model}"  # of the page's heading, with the settings' names in braces
    curves: tuple[str, ...] = ("loss",)  # keys of the history that are drawn by epoch
    note: str = ""  # below the results table
    # What float and int8 have in common on a SplitEvaluation, in a sentence for people, where the
    # comparison of outputs does not tell.
    agreement: Callable[[Any], str] = no_words
    sections: Callable[["Run", Any], Mapping[str, str]] = nothing  # {heading: HTML}
    files: Callable[["Run", Any], Any] = nothing  # writes what stands beside report.html
    image_scores: Callable[[Path, str], Mapping[str, Mapping[str, float]]] = nothing
    # ^ (run folder, split) -> how good each model's answer is, by image and by model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of model that a run trains, from reading the data to the report.

    A dataset has `labels`, `issues` and the splits `train`, `val` and `test`. Files are .keras or
    .tflite.
    """

    name: str
    Config: type  # options of a run: a dataclass that extends kzoo.recipes.configs.RunConfig
    read: Callable[..., Any]  # (data, **settings named in `read_settings`) -> a dataset
    read_settings: tuple[str, ...] = ("val_fraction", "seed", "damaged", "test")
    read_test: Callable[..., Any] | None = None  # None: `kzoo evaluate` does not know the task
    # ^ (data, labels, **those of `test_settings`) -> split, issues
    test_settings: tuple[str, ...] = ()
    sources: Callable[[Any], Sequence[Any]]  # a split -> where its images are
    targets: Callable[[Any], Iterable[bytes]] = no_targets
    # ^ a split -> what is to be learnt of each image: a run is not resumed on other annotations
    build: Callable[[Any, Any], keras.Model]  # (config, dataset) -> the float model
    stages: Callable[["Run"], Sequence[Any]]  # TrainingStages; those of the int8 model come last
    float_copy: Callable[["Run", keras.Model], keras.Model]
    # ^ (run, trained model) -> the model that is kept, computing in float32
    write_file: Callable[["Run", keras.Model, Callable[[str], None]], Path]
    # ^ (run, int8 model, progress) -> the .tflite file
    int8_file: Callable[["Run"], Any] = nothing
    # ^ run -> (int8 file, history) where another program makes it, else nothing
    infer: Callable[..., Any]  # (run, model or file, split) -> predictions
    score: Callable[[Any, Any, Sequence[str]], Any]  # (predictions, split, labels) -> a score
    compare: Callable[..., Any]  # (run, float model, split, *, layers) -> Comparison or None
    report: Report
    predict: Callable[[Path, int], Predictor]  # (file, how many things to name of an image)
    most_named: int = 3  # how many by default
    tiles: bool = False  # whether `predict` and `infer` take tiles=(rows, columns) of large photos
    recognizes: Callable[[Sequence[int]], bool]  # by the number of axes of a file's outputs
    recognizes_file: Callable[[Path], bool] = no_file  # by what a file itself says; asked first
    pack: Callable[[Any, Any], None] | None = None  # (dataset, Packer): into a packed folder
    image_quality: Callable[..., Any] | None = None  # an ImageQuality of training.int8
    before_softmax: Callable[[keras.Model], keras.Model] = unchanged  # what noise is measured on

    def read_dataset(self, data: Any, settings: Mapping[str, Any]) -> Any:
        """Return the dataset, read as `settings` say: fields of a Config, or of a config.json."""
        defaults = {field.name: field.default for field in dataclasses.fields(self.Config)}
        chosen = {name: settings.get(name, defaults[name]) for name in self.read_settings}
        return self.read(data, **chosen)


def require_tiles(task: Task, tiles: tuple[int, int] | None) -> None:
    """Raise ValueError for tiles of a task whose models take none."""
    if tiles and not task.tiles:
        raise ValueError(f"Tiles are for detectors. This is a model of the task {task.name!r}.")


def looks_of(name: str, tiles: tuple[int, int] | None) -> dict[str, dict[str, Any]]:
    """Return options of `Task.infer` by what to call the result: whole images, then `tiles`."""
    if tiles is None:
        return {name: {}}
    return {name: {}, f"{name} in {tiles[0]}x{tiles[1]} tiles": {"tiles": tiles}}


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run: begun, going on or finished."""

    task: Task
    settings: Mapping[str, Any]  # as in config.json
    dataset: Any
    folder: Path
    config: Any = None  # the Config; None where a finished run is looked at

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
        """Where the training images are."""
        return self.task.sources(self.dataset.train)

    @property
    def val(self) -> Sequence[Any]:
        """Where the validation images are."""
        return self.task.sources(self.dataset.val)

    @property
    def size(self) -> Size:
        """Size of the images that the model sees."""
        return simplest(*height_width(self.settings["size"]))


TASKS: dict[str, Task] = {}


def register_task(task: Task) -> Task:
    """Make a task known by its name, and return it."""
    if task.name in TASKS:
        raise ValueError(f"A task called {task.name!r} is registered already.")
    TASKS[task.name] = task
    return task


def list_tasks() -> tuple[str, ...]:
    """Return the names of all tasks, sorted."""
    importlib.import_module("kzoo.recipes.api")  # the files of all tasks
    return tuple(sorted(TASKS))


def get_task(name: str) -> Task:
    """Return the task of that name. Raises ValueError for any other, with the nearest one."""
    known = list_tasks()
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"task must be one of {', '.join(known)}. Received: {name!r}.{hint}")
    return TASKS[name]
