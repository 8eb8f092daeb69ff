"""`kzoo convert`: a .keras file to a .tflite file, calibrated on a folder of pictures."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo.recipes.data import BadPictureError, is_candidate, read_picture
from kzoo.tflite import Audit, audit, convert

MOST_PICTURES = 256


def convert_file(
    model: str | Path, out: str | Path, *, scheme: Any = "int8", io: Any = None,
    calibration: str | Path | None = None, labels: str | Path | None = None,
    size: int | None = None,
) -> Audit:  # fmt: skip
    """Converts `model` and returns what is in the file; the arguments are kzoo.tflite.convert's.

    `calibration` is a folder of pictures, of which some are taken; `labels` a file of names.
    """
    if not Path(model).is_file():
        raise ValueError(f"There is no {model}. Name a .keras file.")
    net = keras.saving.load_model(model, compile=False)
    names = Path(labels).read_text(encoding="utf-8").splitlines() if labels else None
    side = size or net.input_shape[1]
    pictures = None if calibration is None else sample(Path(calibration), side)
    file = convert(
        net, out, scheme=scheme, io=io, calibration=pictures, labels=names,
        image_size=(side, side) if size else None,
    )  # fmt: skip
    return audit(file)


def sample(folder: Path, side: int | None) -> np.ndarray:
    """Up to MOST_PICTURES readable pictures below a folder, spread evenly over its file names."""
    if side is None:
        raise ValueError("The model leaves the size of its pictures open: say --size.")
    paths = sorted(path for path in folder.rglob("*") if is_candidate(path))
    pictures = []
    for path in paths[:: max(1, len(paths) // MOST_PICTURES)][:MOST_PICTURES]:
        try:
            pictures.append(read_picture(path, side))
        except BadPictureError:
            continue
    if not pictures:
        raise ValueError(f"{folder} holds no pictures to calibrate on.")
    return np.stack(pictures)
