"""Detectors from Keras models, .keras and .tflite files, as functions from images to detections."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kzoo.detection.detections import Detections, detections
from kzoo.detection.detector import Detector, at_own_size
from kzoo.files import UniqueNames, replacing
from kzoo.recipes.data.images import Source
from kzoo.recipes.evaluation.drawings import draw_boxes, read_upright
from kzoo.recipes.prediction import DRAWN, Found, Prediction, Predictor, label_of
from kzoo.recipes.training.run_folder import labels_of
from kzoo.sizes import Size, Tiles, height_width, simplest
from kzoo.tflite import Runner
from kzoo.tflite.runtime.find_objects import finding
from kzoo.weights.saved_model import load_model


@dataclasses.dataclass(frozen=True)
class LoadedDetector:
    """`detector(images)` returns the detections in (N, H, W, 3) uint8 images, boxes in [0, 1]."""

    run: Callable[[np.ndarray], list[Detections]]
    size: Size

    def __call__(self, images: np.ndarray) -> list[Detections]:
        return self.run(images)

    def in_tiles(self, source: Source, tiles: Tiles) -> Detections:
        """Return the detections in an image and its tiles, boxes in [0, 1]."""
        photo = np.asarray(read_upright(source))
        (found,) = at_own_size(self.run, [photo], height_width(self.size), tiles, {})
        return found.scaled(1 / photo.shape[0], 1 / photo.shape[1])


def load_detector(model: keras.Model | Path, **options) -> LoadedDetector:
    """Return the detector of a Keras model, or of a .keras or .tflite file.

    `options` are those of `kzoo.detections`. A .tflite file must have anchors in its metadata, or
    TFLite_Detection_PostProcess. Raises ValueError for files that are not detectors.
    """
    if isinstance(model, Path) and model.suffix == ".keras":
        file, model = model, load_model(model)
        if not isinstance(model, Detector):
            raise ValueError(f"{file} holds a {type(model).__name__}, not a detector.")
    if isinstance(model, Detector):
        detector = model
        return LoadedDetector(
            lambda images: detections(
                detector.predict(images.astype("float32"), verbose=0), detector.anchor_boxes,
                activation=detector.activation, **options,
            ),
            detector.input_shape[1:3],
        )  # fmt: skip
    runner = Runner(model)
    size = simplest(*runner.input.shape[1:3])
    return LoadedDetector(partial(finding(runner), **options), size)


SHOWN = 0.4  # lowest score of detections to report and draw


def object_predictor(file: Path, top: int, *, tiles: Tiles | None = None) -> Predictor:
    """Return a predictor of the `top` objects in images, by the detector in a file.

    It also draws them into a folder beside `file`. With `tiles` it runs on tiles
    of each image in full resolution, too.
    """
    detector = load_detector(file, score_threshold=SHOWN)
    labels, unique_name = labels_of(file), UniqueNames()

    def describe(path: Path, found: Detections) -> Prediction:
        upright = read_upright(path)
        out = file.parent / DRAWN / f"{unique_name(path)}.jpg"
        out.parent.mkdir(exist_ok=True)
        with replacing(out) as part:
            Image.fromarray(draw_boxes(upright, found, labels)).save(part, "JPEG", quality=90)
        best = list(found.scaled(upright.height, upright.width))[:top]
        objects = (
            Found(label_of(labels, label), float(score), (float(a), float(b), float(c), float(d)))
            for (a, b, c, d), label, score in best
        )
        return Prediction(path, tuple(objects), out)

    def run(paths: Sequence[Path], images: np.ndarray) -> list[Prediction]:
        if tiles is None:
            return list(map(describe, paths, detector(images)))
        return [describe(path, detector.in_tiles(path, tiles)) for path in paths]

    return Predictor(detector.size, run)
