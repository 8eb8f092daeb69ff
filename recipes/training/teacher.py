"""A larger classifier as teacher: its logits are targets beside the labels."""

from collections.abc import Sequence
from pathlib import Path

import keras

from kzoo.recipes.inputs import MODEL, require_ended, require_model
from kzoo.recipes.training.run_folder import labels_of
from kzoo.sizes import Size, simplest, size_text

WEIGHT = 0.5  # of the teacher's loss; the labels' has 1 - WEIGHT


def load_teacher(source: str, labels: Sequence[str], size: Size) -> keras.Model:
    """Return the float model of a run of `kzoo classify`, or of a .keras file.

    Raises ValueError if it is not a model or has other classes or another input size.
    """
    require_model(source)
    path = Path(source)
    if path.is_dir():
        require_ended(path, MODEL)
        path = path / MODEL
    teacher = keras.saving.load_model(path, compile=False)
    known = labels_of(path)
    if teacher.output_shape[1:] != (len(labels),) or (known and list(labels) != known):
        classes = ", ".join(known) if known else f"outputs of shape {teacher.output_shape[1:]}"
        raise ValueError(
            f"The teacher {source} has other classes: {classes}. The data have "
            f"{', '.join(labels)}. Train a teacher on the same classes."
        )
    own = simplest(*teacher.input_shape[1:3])
    if own != size:
        raise ValueError(
            f"The teacher {source} takes images of {size_text(own)} px, this run of "
            f"{size_text(size)} px. Give both the same --size."
        )
    return teacher
