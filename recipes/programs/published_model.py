"""Published models by name, as folders for `kzoo predict` and `kzoo convert`.

runs/NAME holds model.keras, labels.txt and weights.json, which says what was loaded and how images
are to be resized.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

import kzoo
from kzoo.arguments import is_whole
from kzoo.files import save_model, write_json, write_text
from kzoo.recipes.data.images import Look, decode, open_upright
from kzoo.sizes import Size, height_width, size_text
from kzoo.weights.labels import labels_of
from kzoo.weights.named import published, published_head
from kzoo.weights.published import PublishedWeights

ROW_FILE = "weights.json"  # beside model.keras


def on_large(size: int, weights: str, **options: Any) -> keras.Model:
    return kzoo.MobileNetV3Large(
        input_shape=(size, size, 3), include_top=False, weights=weights, **options
    )


# name: (head, weights, builder). Layers are those of torchvision's nets of the name and "_mobilenet
# _v3_large".
HEADS: dict[str, tuple[str, str, Callable[[int, str], keras.Model]]] = {
    "ssdlite320": ("ssdlite", "coco", lambda size, weights: kzoo.SSDLite(
        on_large(size, weights, reduced_tail=True), 90, weights=weights)),
    "lraspp": ("lraspp", "voc", lambda size, weights: kzoo.LRASPP(
        on_large(size, weights, output_stride=16), 21, weights=weights)),
    "deeplabv3": ("deeplabv3", "voc", lambda size, weights: kzoo.DeepLabV3(
        on_large(size, weights, output_stride=16), 21, aspp_rates=(12, 24, 36), refine=True,
        weights=weights)),
}  # fmt: skip


def published_model(
    name: str, *, alpha: float = 1.0, weights: str | None = None, size: Size | None = None
) -> Path:
    """Return the model.keras of a published model, which is created in runs/ if missing.

    name: of `kzoo.list_models()`, or ssdlite320, lraspp or deeplabv3.
    weights: "imagenet" and the like; None for the usual ones. size: of the square image, in px;
        None for that of the weights.

    Raises ValueError and ConnectionError as `weights=` does, and ValueError for another shape than
    a square.
    """
    if not (size is None or is_whole(size)):
        raise ValueError(
            f"{name} is published for square images: give one side, such as --size 224. Received: "
            f"--size {size_text(size)}"
        )
    if name in HEADS:
        head, usual, build = HEADS[name]
        row = published_head(weights or usual, head)
        side = size or row.resolution
        make = lambda: build(side, row.name)  # noqa: E731
    else:
        row = published(weights or "imagenet", name, alpha, sides=(size, size))
        side = size or row.resolution
        make = lambda: kzoo.create_model(  # noqa: E731
            name, alpha=alpha, input_shape=(side, side, 3), weights=row.name
        )
    folder = Path("runs") / f"{name}_{alpha:g}_{row.name.replace(':', '-')}_{side}"
    file = folder / "model.keras"
    if not file.exists():
        model = make()
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "labels.txt", "\n".join(labels_of(row)) + "\n")
        write_json(folder / ROW_FILE, dataclasses.asdict(row))
        save_model(model, file)
    return file


def image_reader(file: Path) -> Callable[[Path, Size], tuple[np.ndarray, Look]]:
    """Return a function that reads an image for a model's file, opening it once.

    It returns (height, width, 3) uint8 and what opening has shown. Images are resized as the
    weights were measured, where weights.json beside the file says so, else stretched to the size.
    """
    row_file = file.with_name(ROW_FILE)
    if not row_file.is_file():
        return decode
    row = PublishedWeights(**json.loads(row_file.read_text(encoding="utf-8")))
    if row.crop_pct is None:
        return decode

    def read(path: Path, size: Size) -> tuple[np.ndarray, Look]:
        image, look = open_upright(path)
        return cropped(image, height_width(size)[0], row), look  # published nets take squares

    return read


def cropped(image: Image.Image, side: int, row: PublishedWeights) -> np.ndarray:
    """Return the centre crop of an image, (side, side, 3) uint8, as torchvision and timm do.

    The shorter side becomes `side / crop_pct`, cut to a whole number.
    """
    shorter = int(side / (row.crop_pct or 1) + 1e-6)
    width, height = (shorter * length // min(image.size) for length in image.size)
    resampling = Image.Resampling[(row.interpolation or "bilinear").upper()]
    left, top = (round((length - side) / 2) for length in (width, height))
    resized = image.resize((width, height), resampling)
    return np.asarray(resized.crop((left, top, left + side, top + side)))
