"""A segmenter, from whatever file it is in, as a function from images to masks."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kzoo.files import UniqueNames, replacing
from kzoo.recipes.data.images import Source, read_image, upright_size
from kzoo.recipes.data.masks.pairs import Pair
from kzoo.recipes.evaluation.drawings import clear_class, overlay, write_mask
from kzoo.recipes.prediction import DRAWN, Found, Prediction, Predictor, label_of
from kzoo.recipes.progress import track
from kzoo.recipes.training.run_folder import labels_of
from kzoo.segmentation.masks import mask_at
from kzoo.sizes import Size, simplest
from kzoo.tflite import Runner
from kzoo.weights.saved_model import load_model


@dataclasses.dataclass(frozen=True)
class LoadedSegmenter:
    """`segmenter(path)`: the mask of an image at its own size, class ids (H, W) uint8."""

    run: Callable[[np.ndarray], np.ndarray]  # (1, H, W, 3) uint8 -> (1, h, w, classes)
    size: Size

    def __call__(self, image: Source) -> np.ndarray:
        output = self.run(read_image(image, self.size)[None])[0]
        return mask_at(output, upright_size(image))


def load_segmenter(model: keras.Model | Path) -> LoadedSegmenter:
    """Return the segmenter of a model, or of a .keras or .tflite file, with or without argmax."""
    if isinstance(model, Path) and model.suffix == ".keras":
        model = load_model(model)
    if isinstance(model, keras.Model):
        run, size = model.predict_on_batch, model.input_shape[1:3]
        return LoadedSegmenter(lambda images: run(images.astype("float32")), size)
    runner = Runner(model)
    return LoadedSegmenter(runner.on_pixels, simplest(*runner.input.shape[1:3]))


def predict_masks(model: keras.Model | Path, pairs: Sequence[Pair]) -> list[np.ndarray]:
    """Return the masks that a model finds, at the images' own sizes."""
    segmenter = load_segmenter(model)
    return [segmenter(pair.image) for pair in track(pairs, "finding masks")]


def mask_predictor(file: Path, top: int) -> Predictor:
    """Return what names the `top` classes by their share of images, by the segmenter of a file.

    It writes the mask and an overlay too, into the folder predicted/ beside `file`.
    """
    segmenter, labels, unique_name = load_segmenter(file), labels_of(file), UniqueNames()
    folder, clear = file.parent / DRAWN, clear_class(labels) if labels else 0

    def describe(path: Path, image: np.ndarray) -> Prediction:
        mask = mask_at(segmenter.run(image[None])[0], upright_size(path))
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
