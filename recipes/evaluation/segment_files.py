"""Masks of images by segmenters from Keras models, .keras and .tflite files."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kzoo.files import UniqueNames, replacing
from kzoo.recipes.data.images import Source, read_image, upright_size
from kzoo.recipes.data.masks.pairs import Pair
from kzoo.recipes.evaluation.drawings import clear_class, overlay, write_mask
from kzoo.recipes.prediction import (
    DRAWN,
    Found,
    PixelModel,
    Prediction,
    Predictor,
    label_of,
    open_model,
)
from kzoo.recipes.progress import track
from kzoo.recipes.training.run_folder import labels_of
from kzoo.segmentation.masks import mask_at


def find_mask(model: PixelModel, image: Source) -> np.ndarray:
    """Return the mask of an image at its original size, class ids (H, W) uint8."""
    return mask_at(model(read_image(image, model.size)[None])[0], upright_size(image))


def predict_masks(model: keras.Model | Path, pairs: Sequence[Pair]) -> list[np.ndarray]:
    """Return a model's masks of images at their original sizes."""
    segmenter = open_model(model)
    return [find_mask(segmenter, pair.image) for pair in track(pairs, "finding masks")]


def mask_predictor(file: Path, top: int) -> Predictor:
    """Return a predictor of the `top` classes by their share of pixels, by the segmenter in a file.

    It also writes masks and overlays into the folder predicted/ beside `file`.
    """
    segmenter, labels, unique_name = open_model(file), labels_of(file), UniqueNames()
    folder, clear = file.parent / DRAWN, clear_class(labels) if labels else 0

    def describe(path: Path, image: np.ndarray) -> Prediction:
        mask = mask_at(segmenter(image[None])[0], upright_size(path))
        name = unique_name(path)
        folder.mkdir(exist_ok=True)
        write_mask(folder / f"{name}.png", mask)
        with replacing(folder / f"{name}.jpg") as part:
            shown = Image.fromarray(overlay(image, mask, clear=clear))
            shown.resize(mask.shape[::-1]).save(part, "JPEG", quality=90)
        counts = np.bincount(mask.ravel())
        best = [i for i in np.argsort(-counts)[:top] if counts[i]]
        shares = (Found(label_of(labels, i), float(counts[i] / mask.size)) for i in best)
        return Prediction(path, tuple(shares), folder / f"{name}.png")

    def run(paths: Sequence[Path], images: np.ndarray) -> list[Prediction]:
        return list(map(describe, paths, images))

    return Predictor(segmenter.size, run)
