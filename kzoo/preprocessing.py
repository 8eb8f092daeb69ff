"""Pixels as nets take them: the scalings that weights expect, and images at the input's size."""

import functools
from typing import Any, Literal

import keras
import numpy as np
from keras import layers

Tensor = Any  # a KerasTensor: (N, H, W, C), or (N, C, H, W) under "channels_first"


def channel_axis() -> int:
    """1 under Keras' "channels_first" image data format, else -1."""
    return 1 if keras.config.image_data_format() == "channels_first" else -1


def channels(x: Tensor) -> int:
    """The number of channels of a feature map."""
    return x.shape[channel_axis()]


# Scale and offset that take pixels in [0, 255] to what the weights were trained on.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels in [0, 1]


PREPROCESSING: dict[str, tuple[Any, Any]] = {
    "tf": (1 / 127.5, -1.0),
    "torch": (
        [1 / (255 * std) for std in IMAGENET_STD],
        [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)],
    ),
}


def preprocess(image: Tensor, preprocessing: Literal["tf", "torch"]) -> Tensor:
    """Pixels in [0, 255], scaled as the weights want them."""
    scale, offset = PREPROCESSING[preprocessing]
    n = image.shape[channel_axis()]
    if isinstance(scale, list):
        if n != len(scale):
            raise ValueError(
                f'preprocessing="{preprocessing}" is for {len(scale)} channels, and the input has '
                f'{n}. Use preprocessing="tf", or None and your own scaling.'
            )
        if channel_axis() == 1:  # Rescaling itself would line up the scale, and not the offset
            scale, offset = [[[[s]] for s in scale], [[[o]] for o in offset]]
    return layers.Rescaling(scale, offset, name="preprocessing")(image)


def preprocess_input(images: Any) -> Any:
    """Return images as they are: kzoo's models take pixels in [0, 255] and scale them themselves.

    It stands where code for keras.applications calls its function of this name. Raises ValueError
    for NumPy arrays that are scaled already, to [0, 1] or [-1, 1], which a model would scale again.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind == "f" and images.size:
        least, most = float(images.min()), float(images.max())
        if least < 0 or (0 < most <= 1):
            raise ValueError(
                f"images must have pixels in [0, 255]. Received: values in [{least:g}, {most:g}]. "
                "Leave their own scaling out, or build the model with preprocessing=None."
            )
    return images


def scaling(offset: Any) -> Literal["tf", "torch", "other"]:
    """Return which preprocessing takes a pixel of 0 to `offset`; "other" where none does."""
    names: tuple[Literal["tf", "torch"], ...] = ("tf", "torch")
    fits = [name for name in names if close(offset, PREPROCESSING[name][1])]
    return fits[0] if fits else "other"


def close(offset: Any, wanted: Any) -> bool:
    found, wanted = np.ravel(offset), np.ravel(wanted)
    return len(found) in (1, len(wanted)) and bool(np.allclose(found, wanted, atol=0.02))


DARKEST, BRIGHTEST = 0.05, 20.0  # of images behind a Rescaling: the least span, the largest value


def check_range(model: keras.Model, low: float, high: float, what: str = "The images") -> None:
    """Raise ValueError if values in [low, high] are none that the model's first layer takes.

    The range is told by a Rescaling at the model's front: one of 1/127.5 is for [0, 255].
    """
    first = next((x for x in model.layers if isinstance(x, layers.Rescaling)), None)
    if first is None or first.input is not model.inputs[0]:
        return
    scale, offset = np.asarray(first.scale, np.float64), np.asarray(first.offset, np.float64)
    if np.all(np.abs(scale) == 1):  # it takes a mean off, and tells no range
        return
    ends = np.stack(np.broadcast_arrays(low * scale + offset, high * scale + offset))
    span, most = np.abs(ends[1] - ends[0]).max(), np.abs(ends).max()
    if span < DARKEST or most > BRIGHTEST:
        raise ValueError(
            f"{what} are in [{low:g}, {high:g}], and the model begins with "
            f"Rescaling({np.ravel(scale)[0]:.6g}), which makes [{ends.min():.3g}, "
            f"{ends.max():.3g}] of that: they are in another range than the model's. Pass images "
            "as the model takes them, [0, 255] for Rescaling(1 / 127.5)."
        )


def stretch(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return an image (H, W, C), uint8 or float, stretched to (height, width), as float32.

    As Pillow's resize with BILINEAR does, which is what the recipes train on: a triangle filter
    as wide as two pixels of the smaller image, along the width, then along the height. Of a uint8
    image it gives whole numbers, Pillow's own or, where that begins with the height (narrow
    images), at most 1 apart. Values stay within those of the image.
    Raises ValueError for another shape.
    """
    image = np.asarray(image)
    if image.ndim != 3:
        raise ValueError(f"An image is (H, W, C). Received: shape {image.shape}")
    whole = image.dtype == np.uint8
    found: Any = image.astype(np.int32 if whole else np.float32)
    # 255.00003, by rounding of the weights, would be out of a uint8 input's range.
    least, most = found.min(), found.max()
    for axis, wanted in ((1, size[1]), (0, size[0])):
        if found.shape[axis] == wanted:
            continue
        places, weights = triangle_filter(found.shape[axis], wanted)
        weights = (weights * 2**BITS + 0.5 if whole else weights).astype(found.dtype)
        along = (-1, 1, 1) if axis == 0 else (-1, 1)
        # One place of the filter at a time: all of them together take its width in memory.
        total = np.zeros((), found.dtype)
        for place, weight in zip(places, weights, strict=True):
            total = total + found.take(place, axis) * weight.reshape(along)
        found = total
        if whole:
            found = (found + 2 ** (BITS - 1)) >> BITS
    return found.clip(least, most).astype(np.float32)


BITS = 22  # of Pillow's weights, which are whole numbers: 255 times their sum is an int32


@functools.lru_cache(maxsize=16)
def triangle_filter(have: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """(Places in a row of `have` pixels, their weights): both (K, wanted), weights sum to 1."""
    scale = have / wanted
    reach = max(scale, 1.0)
    centre = (np.arange(wanted) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(int), 0)
    places = first + np.arange(int(np.ceil(2 * reach)) + 1)[:, None]
    weights = np.maximum(1 - np.abs((places + 0.5 - centre) * (1 / reach)), 0) * (places < have)
    return np.minimum(places, have - 1), weights * (1 / weights.sum(axis=0))
