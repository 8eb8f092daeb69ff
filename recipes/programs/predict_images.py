"""What a trained model says about images."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

import kzoo
from kzoo.recipes.data.images import BadImageError
from kzoo.recipes.evaluation.detect_files import objects
from kzoo.recipes.evaluation.segment_files import shares
from kzoo.recipes.programs.published_model import HEADS, image_reader, published_model
from kzoo.recipes.training.run_folder import labels_beside, read_config
from kzoo.tflite import Runner
from kzoo.tflite.metadata.reading import read_metadata
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
        read_config(file)
        file = file / "model.tflite"
    if not file.is_file():
        raise ValueError(f"There is no {file}. Name a run folder, a .tflite or a .keras file.")
    answer = ANSWERS[task_of(file)](file, top)
    for path in map(Path, images):
        try:
            yield path, answer(path)
        except BadImageError as error:
            yield path, f"{UNREAD}: {error}"


def task_of(file: Path) -> str:
    """The run's that the file is of; of any other file what the axes of its outputs tell."""
    if (file.parent / "config.json").is_file():
        config = read_config(file.parent)
        if "task" in config:
            return config["task"]
    if file.suffix == ".keras":
        outputs = keras.saving.load_model(file, compile=False).outputs
        axes = [len(output.shape) for output in outputs]
    else:
        graph = read_tflite(file).graphs[0]
        axes = [len(graph.tensors[i].shape) for i in graph.outputs]
    if len(axes) > 1:
        return "detect"
    return "classify" if axes == [2] else "segment"


def classes(file: Path, top: int) -> Callable[[Path], str]:
    """image -> "label 97 %, label 2 %, ...", by a classifier."""
    scores, side = scorer(file)
    labels, read = dict(enumerate(labels_beside(file) or ())), image_reader(file)

    def answer(image: Path) -> str:
        row = scores(read(image, side)[None])[0]
        best = np.argsort(-row)[:top]
        return ", ".join(f"{labels.get(i, i)} {row[i]:.0%}" for i in best)

    return answer


ANSWERS = {"classify": classes, "detect": objects, "segment": shares}  # by the task of the run


def scorer(file: Path) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """(images (N, side, side, 3) uint8 -> class probabilities (N, classes), side)."""
    if file.suffix == ".keras":
        model = keras.saving.load_model(file)
        return lambda x: model.predict(x.astype("float32"), verbose=0), model.input_shape[1]
    runner, metadata = Runner(file), read_metadata(file)
    if metadata is None or runner.input.dtype != "float32":
        return runner, runner.input.shape[1]
    mean, std = metadata.normalization
    return lambda x: runner((x.astype("float32") - mean) / std), runner.input.shape[1]
