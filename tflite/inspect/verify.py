"""The gate that a file has to pass: it says what the model says, on images.

A file that does not pass is no model for an app, but may tell why: it is kept under another name.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from kzoo.tflite.inspect.compare import USABLE_DB, Comparison, compare

# Sound int8 files of trained nets reached .88 to 1.0, broken ones (biases that overflowed, ranges
# that were cut) .10 to .5.
LEAST_AGREEMENT = 0.8
LAYER_IMAGES = 8


class RejectedFile(ValueError):
    """A file that is too far from its model: `comparison` has the figures, `path` the file."""

    def __init__(self, message: str, comparison: Comparison, path: Path):
        super().__init__(message)
        self.comparison = comparison
        self.path = path


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What every output of a file has to reach; None leaves a figure out.

    agreement: how often its largest value along the last axis is where the model's is, in [0, 1];
        of a mask, how often its value is the model's. It says nothing of boxes: take `sqnr_db` for
        those. Of one number per image there are no classes: it has to reach 6 dB then.
    sqnr_db: signal to quantization noise.
    """

    agreement: float | None = LEAST_AGREEMENT
    sqnr_db: float | None = None

    def __post_init__(self) -> None:
        if self.agreement is not None and not 0 <= self.agreement <= 1:
            raise ValueError(f"agreement must be in [0, 1]. Received: {self.agreement}")

    def missed(self, found: Comparison) -> list[str]:
        """What a comparison falls short of, in words."""
        words = []
        for output in found.outputs:
            if self.agreement is not None and output.agreement < self.agreement:
                words.append(
                    f"{output.name} agrees on {output.agreement:.1%} of the images, of which "
                    f"{self.agreement:.1%} are asked for"
                )
            least_db = self.sqnr_db
            if least_db is None and self.agreement is not None and not output.has_classes:
                least_db = USABLE_DB
            if least_db is not None and output.sqnr_db < least_db:
                words.append(
                    f"{output.name} has a signal to noise of {output.sqnr_db:.1f} dB, and "
                    f"{least_db:.1f} dB are asked for"
                )
            if self.agreement is not None and output.distinct[1] == 1 < output.distinct[0]:
                words.append(f"{output.name} is of one class on every image")
        return words


def verify(
    model: keras.Model | str | os.PathLike[str],
    path: str | os.PathLike[str],
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    *,
    bounds: Bounds = Bounds(),
) -> Comparison:
    """`compare`, and RejectedFile (a ValueError) where the file falls short of `bounds`.

    The file is then called NAME.rejected.tflite, so that nothing takes it for a good one.
    """
    return verify_draft(model, path, Path(path), images, labels, bounds=bounds)


def verify_draft(
    model: keras.Model | str | os.PathLike[str],
    draft: str | os.PathLike[str],
    name: Path,
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    *,
    bounds: Bounds,
) -> Comparison:
    """`verify` of a file that is to be called `name`: told and put aside under that."""
    found = compare(model, draft, images, labels, layers=LAYER_IMAGES)
    if missed := bounds.missed(found):
        aside = name.with_name(f"{name.stem}.rejected{name.suffix}")
        os.replace(draft, aside)
        before = f" The {name.name} of before stays." if name.exists() else ""
        worst = ", ".join(layer.name for layer in found.layers[:3])
        where = f" Most noise comes in at {worst}." if worst else ""
        raise RejectedFile(
            f"{name} was not accepted: {'; '.join(missed)}. It is kept as {aside.name}.{before}"
            f"{where} More and more varied calibration images may help, layers named in "
            "keep_float (kzoo sensitivity RUN says which), or training it quantized "
            "(kzoo.quantize, then fit).",
            found, aside,
        )  # fmt: skip
    return found
