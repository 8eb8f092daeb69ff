"""A segmenter, from whatever file it stands in, as a function from images to masks."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from tqdm import tqdm

from kzoo.files import replacing
from kzoo.recipes.data.images import read_image, upright_size
from kzoo.recipes.data.mask_dataset import Pair
from kzoo.recipes.evaluation.overlay import overlay, write_mask
from kzoo.recipes.files import OwnNames
from kzoo.recipes.training.run_folder import labels_beside
from kzoo.segmentation.masks import mask_at
from kzoo.tflite import Runner


@dataclasses.dataclass(frozen=True)
class Masker:
    """`Masker(...)(path)`: the mask of an image at its own size, class ids (H, W) uint8."""

    output: Callable[[np.ndarray], np.ndarray]  # (1, side, side, 3) uint8 -> (1, h, w, classes)
    side: int

    def __call__(self, image: Path) -> np.ndarray:
        output = self.output(read_image(image, self.side)[None])[0]
        return mask_at(output, upright_size(image))


def masker(file: Path) -> Masker:
    """The segmenter of a .keras or a .tflite file, one that ends in its mask too."""
    if file.suffix == ".keras":
        model = keras.saving.load_model(file, compile=False)
        run = model.predict_on_batch
        return Masker(lambda images: run(images.astype("float32")), model.input_shape[1])
    runner = Runner(file)
    return Masker(runner, runner.input.shape[1])


def masks_of(file: Path, pairs: Sequence[Pair], name: str) -> list[np.ndarray]:
    """The masks that a file finds, at the images' own sizes; `name` is what progress shows."""
    find = masker(file)
    return [find(pair.image) for pair in tqdm(pairs, f"masks of {name}", disable=None)]


def shares(file: Path, top: int) -> Callable[[Path], str]:
    """image -> "label 80 %, label 20 %", and its mask and overlay in predicted/ beside `file`."""
    find, labels, own_name = masker(file), labels_beside(file), OwnNames()
    folder = file.parent / "predicted"

    def answer(image: Path) -> str:
        mask, name = find(image), own_name(image)
        folder.mkdir(exist_ok=True)
        write_mask(folder / f"{name}.png", mask)
        shown = overlay(read_image(image, find.side), mask)
        with replacing(folder / f"{name}.jpg") as part:
            Image.fromarray(shown).resize(mask.shape[::-1]).save(part, "JPEG", quality=90)
        counts = np.bincount(mask.ravel())
        best = [i for i in np.argsort(-counts)[:top] if counts[i]]
        said = ", ".join(f"{labels[i] if labels else i} {counts[i] / mask.size:.0%}" for i in best)
        return f"{said} ({folder / name}.png)"

    return answer
