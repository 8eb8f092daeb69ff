"""A larger classifier as teacher: its logits are targets beside the labels."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo.preprocessing import check_range
from kzoo.recipes.inputs import MODEL, read_config, require_ended, require_model
from kzoo.recipes.training.run_folder import labels_of
from kzoo.sizes import Size, height_width, simplest, size_text
from kzoo.weights.saved_model import load_model

WEIGHT = 0.5  # of the teacher's loss; the labels' has 1 - WEIGHT


def load_teacher(source: str, labels: Sequence[str], size: Size) -> keras.Model:
    """Return the float model of a run of `kzoo classify`, or of a .keras file.

    Raises ValueError if it is no classifier of these classes, or takes other images.
    """
    require_model(source)
    path = Path(source)
    if path.is_dir():
        require_ended(path, MODEL)
        task = read_config(path).get("task")
        if task != "classify":
            raise ValueError(
                f"The teacher {source} is a run of `kzoo {task}`. Name one of `kzoo classify`."
            )
        path = path / MODEL
    teacher = load_model(path)
    known = labels_of(path)
    shape = one_shape(teacher.output_shape)
    if shape[1:] != (len(labels),) or (known and list(labels) != known):
        classes = ", ".join(known) if known else f"outputs of shape {shape[1:]}"
        raise ValueError(
            f"The teacher {source} has other classes: {classes}. The data have "
            f"{', '.join(labels)}. Train a teacher on the same classes."
        )
    require_images(teacher, source, size)
    require_probabilities(teacher, source, size)
    return teacher


def one_shape(shapes: Any) -> tuple[Any, ...]:
    """Return the shape of a model's only input or output; () if there are several."""
    found = list(shapes.values()) if isinstance(shapes, dict) else shapes
    found = found[0] if isinstance(found, list) and len(found) == 1 else found
    return tuple(found) if isinstance(found, tuple) else ()


def require_images(teacher: keras.Model, source: str, size: Size) -> None:
    """Raise ValueError unless the teacher takes RGB images of that size with pixels in [0, 255]."""
    shape = one_shape(teacher.input_shape)
    if len(shape) != 4 or shape[3] != 3:
        raise ValueError(
            f"The teacher {source} takes inputs of shape {shape[1:]}, and not RGB images: (height, "
            "width, 3)."
        )
    own = tuple(shape[1:3])
    sides = zip(own, height_width(size), strict=True)
    if any(side not in (None, wanted) for side, wanted in sides):
        text = f"{own[1]}x{own[0]}" if None in own else size_text(simplest(*own))
        raise ValueError(
            f"The teacher {source} takes images of {text} px, this run of {size_text(size)} px. "
            "Give both the same --size."
        )
    try:
        check_range(teacher, 0, 255, "The training images")
    except ValueError as error:
        raise ValueError(f"The teacher {source} takes pixels in another range. {error}") from None


def require_probabilities(teacher: keras.Model, source: str, size: Size) -> None:
    """Raise ValueError if the outputs for plain colours and noise are no probabilities of sum 1."""
    colours = 255 * np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], "float32")
    noise = np.random.default_rng(0).uniform(0, 255, (*height_width(size), 3)).astype("float32")
    images = np.stack([noise, *(np.broadcast_to(one, noise.shape) for one in colours)])
    found = keras.ops.convert_to_numpy(keras.ops.cast(teacher(images, training=False), "float32"))
    if not np.isfinite(found).all() or found.min() < 0 or abs(found.sum(axis=1) - 1).max() > 0.02:
        raise ValueError(
            f"The teacher {source} gives no probabilities of one class each, but such as "
            f"{np.round(found[-1][:4], 3).tolist()}, of sum {found[-1].sum():.3g}. Add a softmax "
            "to logits; a model of several labels per image is no teacher."
        )


def teacher_words(
    source: str, probabilities: np.ndarray, targets: np.ndarray, trained_on: int
) -> str:
    """Return a sentence on how good a teacher is on the validation images.

    trained_on: how many of these images the teacher may have been trained on.
    """
    right = float((probabilities.argmax(axis=1) == targets).mean())
    words = f"The teacher {source} is right on {right:.1%} of the {len(targets)} validation images"
    if right <= np.bincount(targets).max() / len(targets):
        words += (
            ", no better than one class for all of them. Does it take RGB pixels in [0, 255], and "
            "are its outputs in the order of the class names?"
        )
    if trained_on:
        words += (
            f". It may have been trained on {trained_on} of them: then accuracy on them is too "
            "high. Give this run the seed and val_fraction of the teacher's, or data with a split"
        )
    return words


def images_trained_on(source: str, data: str, val: Sequence[Any]) -> int:
    """Return how many of a run's validation images a teacher's run did not validate on.

    It is 0 for a teacher of other data, and for one whose run is not known.
    """
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    listed = folder / "predictions.csv"
    if not listed.is_file() or not (folder / "config.json").is_file():
        return 0
    if Path(read_config(folder).get("data", "")).resolve() != Path(data).resolve():
        return 0
    with listed.open(encoding="utf-8", newline="") as rows:
        unseen = {Path(row["file"]).resolve() for row in csv.DictReader(rows)}
    files = [path.resolve() for path in val if isinstance(path, Path)]
    return sum(path not in unseen for path in files)
