"""What a trained model says about images."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import keras

import kzoo
from kzoo.recipes.data.images import BadImageError
from kzoo.recipes.inputs import FILE, require_ended
from kzoo.recipes.programs.published_model import HEADS, image_reader, published_model
from kzoo.recipes.task import Task, get_task, list_tasks
from kzoo.recipes.training.run_folder import read_config
from kzoo.weights.readers.flatbuffer import read_tflite

UNREAD = "cannot be read"


def predict(
    model: str | Path, images: Sequence[str | Path], *, top: int = 3, alpha: float = 1.0,
    weights: str | None = None,
) -> Iterator[tuple[Path, str]]:  # fmt: skip
    """(image, what the model says of it) for each image, or why it cannot be read.

    `model` is a run folder (its int8 file is asked), a .tflite or a .keras file, or the name of a
    net with published weights (`alpha` and `weights` say which). Its task is that
    of the run it stands in, else what its outputs tell; labels.txt beside it names the classes. A
    .tflite file that takes floats is given what its metadata say, pixels in [0, 255] without them.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1. Received: {top}")
    file = Path(model)
    if not file.exists() and str(model) in (*kzoo.list_models(), *HEADS):
        file = published_model(str(model), alpha=alpha, weights=weights)
    if file.is_dir():
        require_ended(file, FILE)
        file = file / FILE
    if not file.is_file():
        raise ValueError(f"There is no {file}. Name a run folder, a .tflite or a .keras file.")
    answer = task_of(file).predict(file, top, image_reader(file))
    for path in map(Path, images):
        try:
            yield path, answer(path)
        except BadImageError as error:
            yield path, f"{UNREAD}: {error}"


def task_of(file: Path) -> Task:
    """Return the task of the run that the file is of; of any other file what its outputs tell."""
    if (file.parent / "config.json").is_file():
        config = read_config(file.parent)
        if "task" in config:
            return get_task(config["task"])
    if file.suffix == ".keras":
        outputs = keras.saving.load_model(file, compile=False).outputs
        axes = [len(output.shape) for output in outputs]
    else:
        graph = read_tflite(file).graphs[0]
        axes = [len(graph.tensors[i].shape) for i in graph.outputs]
    for task in map(get_task, list_tasks()):
        if task.recognizes(axes):
            return task
    raise ValueError(f"{file} is of no task that kzoo knows: its outputs have {axes} axes.")
