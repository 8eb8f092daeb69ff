"""What a trained model says about pictures, and how its int8 file compares with it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from kzoo.qat import Sensitivity, sensitivity
from kzoo.recipes.data import BadPictureError, Pictures, read_dataset, read_picture
from kzoo.recipes.run import read_config
from kzoo.tflite import Comparison, Runner
from kzoo.tflite import compare as compare_files


def predict(
    model: str | Path, images: Sequence[str | Path], *, top: int = 3
) -> Iterator[tuple[Path, str]]:
    """(picture, "label 97 %, label 2 %, ...") for each picture, or why it cannot be read.

    `model` is a run folder (its int8 file is asked), a .tflite or a .keras file; the labels are
    read from labels.txt beside it.
    """
    file = Path(model)
    if file.is_dir():
        read_config(file)
        file = file / "model.tflite"
    if not file.is_file():
        raise ValueError(f"There is no {file}. Name a run folder, a .tflite or a .keras file.")
    scores, side = scorer(file)
    listed = file.parent / "labels.txt"
    labels = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else None
    for path in map(Path, images):
        try:
            row = scores(read_picture(path, side)[None])[0]
        except BadPictureError as error:
            yield path, f"cannot be read: {error}"
            continue
        best = np.argsort(-row)[:top]
        yield path, ", ".join(f"{labels[i] if labels else i} {row[i]:.0%}" for i in best)


def scorer(file: Path):
    """(pictures (N, side, side, 3) uint8 -> class probabilities (N, classes), side)."""
    if file.suffix == ".keras":
        model = keras.saving.load_model(file)
        return lambda x: model.predict(x.astype("float32"), verbose=0), model.input_shape[1]
    runner = Runner(file)
    return runner, runner.input.shape[1]


def compare_run(folder: Path) -> Comparison:
    """A run's float model and its int8 file on the validation pictures."""
    config = read_config(folder)
    dataset = read_dataset(config["data"], val_fraction=config["val_fraction"], seed=config["seed"])
    pictures = Pictures(dataset.val.paths, config["size"])[:]
    model = keras.saving.load_model(folder / "model.keras")
    return compare_files(model, folder / "model.tflite", pictures, labels=dataset.val.targets)


def run_sensitivity(folder: Path) -> Sensitivity:
    """What each layer of a run's float model costs in int8, the worst first."""
    config = read_config(folder)
    dataset = read_dataset(config["data"], val_fraction=config["val_fraction"], seed=config["seed"])
    model = keras.saving.load_model(folder / "model.keras")
    logits = keras.Model(model.input, model.get_layer("predictions").input)
    calibration = Pictures(dataset.train.paths, config["size"])
    return sensitivity(
        logits,
        calibration=calibration[:: max(1, len(calibration) // 128)],
        pictures=Pictures(dataset.val.paths, config["size"])[:32],
    )
