"""A segmenter, from whatever file it stands in, as a function from pictures to masks."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from tqdm import tqdm

from kzoo.masks import mask_at
from kzoo.recipes.data import read_picture
from kzoo.recipes.files import OwnNames
from kzoo.recipes.masks import Pair, upright_size
from kzoo.recipes.overlay import overlay, write_mask
from kzoo.recipes.run import labels_beside
from kzoo.tflite import Runner
from kzoo.tflite.files import replacing


@dataclasses.dataclass(frozen=True)
class Masker:
    """`Masker(...)(path)`: the mask of a picture at its own size, class ids (H, W) uint8."""

    output: Callable[[np.ndarray], np.ndarray]  # (1, side, side, 3) uint8 -> (1, h, w, classes)
    side: int

    def __call__(self, picture: Path) -> np.ndarray:
        output = self.output(read_picture(picture, self.side)[None])[0]
        return mask_at(output, upright_size(picture))


def masker(file: Path) -> Masker:
    """The segmenter of a .keras or a .tflite file, one that ends in its mask too."""
    if file.suffix == ".keras":
        model = keras.saving.load_model(file, compile=False)
        run = model.predict_on_batch
        return Masker(lambda pictures: run(pictures.astype("float32")), model.input_shape[1])
    runner = Runner(file)
    return Masker(runner, runner.input.shape[1])


def masks_of(file: Path, pairs: Sequence[Pair], name: str) -> list[np.ndarray]:
    """The masks that a file finds, at the pictures' own sizes; `name` is what progress shows."""
    find = masker(file)
    return [find(pair.picture) for pair in tqdm(pairs, f"masks of {name}", disable=None)]


def shares(file: Path, top: int) -> Callable[[Path], str]:
    """picture -> "label 80 %, label 20 %", and its mask and overlay in predicted/ beside `file`."""
    find, labels, own_name = masker(file), labels_beside(file), OwnNames()
    folder = file.parent / "predicted"

    def answer(picture: Path) -> str:
        mask, name = find(picture), own_name(picture)
        folder.mkdir(exist_ok=True)
        write_mask(folder / f"{name}.png", mask)
        shown = overlay(read_picture(picture, find.side), mask)
        with replacing(folder / f"{name}.jpg") as part:
            Image.fromarray(shown).resize(mask.shape[::-1]).save(part, "JPEG", quality=90)
        counts = np.bincount(mask.ravel())
        best = [i for i in np.argsort(-counts)[:top] if counts[i]]
        said = ", ".join(f"{labels[i] if labels else i} {counts[i] / mask.size:.0%}" for i in best)
        return f"{said} ({folder / name}.png)"

    return answer
