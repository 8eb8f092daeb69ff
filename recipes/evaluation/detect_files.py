"""A detector, from whatever file it stands in, as a function from images to what is on them."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kzoo.detection.detections import Detections, detections
from kzoo.detection.detector import Detector
from kzoo.files import replacing
from kzoo.recipes.data.images import read_image
from kzoo.recipes.evaluation.drawings import draw_boxes, read_upright
from kzoo.recipes.files import OwnNames
from kzoo.recipes.training.run_folder import labels_beside
from kzoo.tflite import Runner
from kzoo.tflite.runtime.find_objects import finding


@dataclasses.dataclass(frozen=True)
class Find:
    """`find(images)`: what is on each, boxes in [0, 1]."""

    run: Callable[[np.ndarray], list[Detections]]  # (N, side, side, 3) uint8
    side: int

    def __call__(self, images: np.ndarray) -> list[Detections]:
        return self.run(images)


def finder(file: Path, **options) -> Find:
    """The detector of a .keras or .tflite file. `options` are those of `kzoo.detections`.

    A .tflite file tells its anchors in its metadata, or has TFLite_Detection_PostProcess within.
    Raises ValueError for one that does neither.
    """
    if file.suffix == ".keras":
        model = keras.saving.load_model(file, compile=False)
        if not isinstance(model, Detector):
            raise ValueError(f"{file} holds a {type(model).__name__}, not a detector.")
        return Find(
            lambda images: detections(
                model.predict(images.astype("float32"), verbose=0), model.anchor_boxes,
                activation=model.activation, **options,
            ),
            model.input_shape[1],
        )  # fmt: skip
    runner = Runner(file)
    return Find(partial(finding(runner), **options), runner.input.shape[1])


SHOWN = 0.4  # the least score that is told and drawn
DRAWN = "predicted"  # the folder beside the file that drawings go to


def objects(file: Path, top: int) -> Callable[[Path], str]:
    """image -> "label 97 % at y, x to y, x px; ...", by a detector; the drawing is kept."""
    find = finder(file, score_threshold=SHOWN)
    labels, name = labels_beside(file), OwnNames()

    def answer(image: Path) -> str:
        (found,) = find(read_image(image, find.side)[None])
        upright = read_upright(image)
        out = file.parent / DRAWN / f"{name(image)}.jpg"
        out.parent.mkdir(exist_ok=True)
        with replacing(out) as part:
            Image.fromarray(draw_boxes(upright, found, labels)).save(part, "JPEG", quality=90)
        said = [
            f"{labels[label] if labels else f'class {label}'} {score:.0%} at "
            "{:.0f}, {:.0f} to {:.0f}, {:.0f} px".format(*box)
            for box, label, score in list(found.scaled(upright.height, upright.width))[:top]
        ]
        return f"{'; '.join(said) or 'nothing found'} (drawn in {out})"

    return answer
