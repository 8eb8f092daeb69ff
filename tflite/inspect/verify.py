"""`verify`: reject a .tflite file whose outputs on images are too far from its model's.

A rejected file is kept under another name, so that it can be examined.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from kzoo.tflite.inspect.compare import USABLE_DB, Comparison, compare
from kzoo.tflite.xnnpack import divergence_of

# Sound int8 files of trained nets reached .88 to 1.0, broken ones (biases that overflowed, clipped
# ranges) .10 to .5.
LEAST_AGREEMENT = 0.8
LAYER_IMAGES = 8


class RejectedFile(ValueError):
    """Raised by `verify`. `comparison` has the figures, `path` is where the file was moved to."""

    def __init__(self, message: str, comparison: Comparison, path: Path):
        super().__init__(message)
        self.comparison = comparison
        self.path = path


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The lowest figures that every output of a file must reach; None does not check a figure.

    agreement: share of equal predictions, in [0, 1]: the argmax over the last axis, or the values
        of a mask. Not useful for boxes: use `sqnr_db`. Outputs without classes, such as a
        regressor's, must reach 6 dB instead.
    sqnr_db: signal-to-quantization-noise ratio, in dB.

    Raises ValueError for an agreement outside [0, 1].
    """

    agreement: float | None = LEAST_AGREEMENT
    sqnr_db: float | None = None

    def __post_init__(self) -> None:
        if self.agreement is not None and not 0 <= self.agreement <= 1:
            raise ValueError(f"agreement must be in [0, 1]. Received: {self.agreement}")

    def missed(self, found: Comparison) -> list[str]:
        """Return a sentence for each bound that a comparison misses; empty if it passes."""
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
    """Return the comparison of model and file; raise `RejectedFile` if it misses `bounds`.

    model, path, images, labels: as in `compare`.

    RejectedFile is a ValueError. The file is then renamed to NAME.rejected.tflite, so that it is
    not used by mistake.
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
    """Verify a draft whose final name will be `name`, which messages and a rejected file use."""
    found = compare(model, draft, images, labels, layers=LAYER_IMAGES)
    if missed := bounds.missed(found):
        aside = name.with_name(f"{name.stem}.rejected{name.suffix}")
        os.replace(draft, aside)
        before = f" The {name.name} of before stays." if name.exists() else ""
        worst = ", ".join(layer.name for layer in found.layers[:3])
        where = f" Most noise comes in at {worst}." if worst else ""
        diverged = divergence_of(aside)
        advice = f" {diverged}" if diverged else (
            f"{where} More and more varied calibration images may help, layers named in "
            "keep_float (kzoo sensitivity RUN says which), or training it quantized "
            "(kzoo.quantize, then fit)."
        )  # fmt: skip
        raise RejectedFile(
            f"{name} was not accepted: {'; '.join(missed)}. It is kept as {aside.name}.{before}"
            f"{advice}",
            found, aside,
        )  # fmt: skip
    return found
