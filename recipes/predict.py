"""What a trained model says about pictures."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from kzoo.recipes.data import BadPictureError, read_picture
from kzoo.recipes.finder import objects
from kzoo.recipes.masker import shares
from kzoo.recipes.run import labels_beside, read_config
from kzoo.tflite import Runner


def predict(
    model: str | Path, images: Sequence[str | Path], *, top: int = 3
) -> Iterator[tuple[Path, str]]:
    """(picture, what the model says of it) for each picture, or why it cannot be read.

    `model` is a run folder (its int8 file is asked), a .tflite or a .keras file. What stands beside
    it tells the labels (labels.txt) and the task (config.json; without it, classification).
    """
    file = Path(model)
    if file.is_dir():
        read_config(file)
        file = file / "model.tflite"
    if not file.is_file():
        raise ValueError(f"There is no {file}. Name a run folder, a .tflite or a .keras file.")
    beside = file.parent / "config.json"
    answer = ANSWERS[read_config(file.parent)["task"] if beside.is_file() else "classify"](
        file, top
    )
    for path in map(Path, images):
        try:
            yield path, answer(path)
        except BadPictureError as error:
            yield path, f"cannot be read: {error}"


def classes(file: Path, top: int) -> Callable[[Path], str]:
    """picture -> "label 97 %, label 2 %, ...", by a classifier."""
    scores, side = scorer(file)
    labels = labels_beside(file)

    def answer(picture: Path) -> str:
        row = scores(read_picture(picture, side)[None])[0]
        best = np.argsort(-row)[:top]
        return ", ".join(f"{labels[i] if labels else i} {row[i]:.0%}" for i in best)

    return answer


ANSWERS = {"classify": classes, "detect": objects, "segment": shares}  # by the task of the run


def scorer(file: Path):
    """(pictures (N, side, side, 3) uint8 -> class probabilities (N, classes), side)."""
    if file.suffix == ".keras":
        model = keras.saving.load_model(file)
        return lambda x: model.predict(x.astype("float32"), verbose=0), model.input_shape[1]
    runner = Runner(file)
    return runner, runner.input.shape[1]
