"""A detector, from whatever file it is in, as a function from images to what is on them."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kzoo.detection.detections import Detections, detections
from kzoo.detection.detector import Detector
from kzoo.files import UniqueNames, replacing
from kzoo.recipes.data.images import read_image
from kzoo.recipes.evaluation.drawings import draw_boxes, read_upright
from kzoo.recipes.task import Read
from kzoo.recipes.training.run_folder import labels_beside
from kzoo.tflite import Runner
from kzoo.tflite.runtime.find_objects import finding


@dataclasses.dataclass(frozen=True)
class LoadedDetector:
    """`detector(images)`: what is on each of (N, size, size, 3) uint8 images, boxes in [0, 1]."""

    run: Callable[[np.ndarray], list[Detections]]
    size: int

    def __call__(self, images: np.ndarray) -> list[Detections]:
        return self.run(images)


def load_detector(model: keras.Model | Path, **options) -> LoadedDetector:
    """Return the detector of a model, or of a .keras or .tflite file.

    `options` are those of `kzoo.detections`. A .tflite file tells its anchors in its metadata, or
    has TFLite_Detection_PostProcess within. Raises ValueError for one that does neither.
    """
    if isinstance(model, Path) and model.suffix == ".keras":
        file, model = model, keras.saving.load_model(model, compile=False)
        if not isinstance(model, Detector):
            raise ValueError(f"{file} holds a {type(model).__name__}, not a detector.")
    if isinstance(model, Detector):
        detector = model
        return LoadedDetector(
            lambda images: detections(
                detector.predict(images.astype("float32"), verbose=0), detector.anchor_boxes,
                activation=detector.activation, **options,
            ),
            detector.input_shape[1],
        )  # fmt: skip
    runner = Runner(model)
    return LoadedDetector(partial(finding(runner), **options), runner.input.shape[1])


SHOWN = 0.4  # the least score that is named and drawn
DRAWN = "predicted"  # the folder beside the file that drawings go to


def describe_objects(file: Path, top: int, read: Read = read_image) -> Callable[[Path], str]:
    """Return a function from an image to "label 97 % at y, x to y, x px; ...".

    It draws them too, into a folder beside `file`.
    """
    detector = load_detector(file, score_threshold=SHOWN)
    labels, name = labels_beside(file), UniqueNames()

    def describe(image: Path) -> str:
        (found,) = detector(read(image, detector.size)[None])
        upright = read_upright(image)
        out = file.parent / DRAWN / f"{name(image)}.jpg"
        out.parent.mkdir(exist_ok=True)
        with replacing(out) as part:
            Image.fromarray(draw_boxes(upright, found, labels)).save(part, "JPEG", quality=90)
        objects = [
            f"{labels[label] if labels else f'class {label}'} {score:.0%} at "
            "{:.0f}, {:.0f} to {:.0f}, {:.0f} px".format(*box)
            for box, label, score in list(found.scaled(upright.height, upright.width))[:top]
        ]
        return f"{'; '.join(objects) or 'nothing found'} (drawn in {out})"

    return describe
