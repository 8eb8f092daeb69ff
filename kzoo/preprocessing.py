"""Pixel scalings that pretrained weights expect, and resizing of images to the input size."""

import functools
from typing import Any, Literal

import keras
import numpy as np
from keras import layers

Tensor = Any  # a KerasTensor: (N, H, W, C), or (N, C, H, W) under "channels_first"


def channel_axis() -> int:
    """Return 1 under Keras' "channels_first" image data format, else -1."""
    return 1 if keras.config.image_data_format() == "channels_first" else -1


def channels(x: Tensor) -> int:
    """Return the number of channels of a feature map."""
    return x.shape[channel_axis()]


# PREPROCESSING has (scale, offset) from pixels in [0, 255] to what weights were trained on.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels in [0, 1]


PREPROCESSING: dict[str, tuple[Any, Any]] = {
    "tf": (1 / 127.5, -1.0),
    "torch": (
        [1 / (255 * std) for std in IMAGENET_STD],
        [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)],
    ),
}


def preprocess(image: Tensor, preprocessing: Literal["tf", "torch"]) -> Tensor:
    """Return `image`, pixels in [0, 255], rescaled by a layer called "preprocessing"."""
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
    """Return `images` unchanged: kzoo's models take pixels in [0, 255] and rescale them inside.

    It exists so that code for keras.applications, which calls a function of this name, runs with
    kzoo. Raises ValueError for NumPy arrays that are scaled already, to [0, 1] or [-1, 1].
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
    """Return the preprocessing that maps a pixel of 0 to `offset`, or "other" if none does."""
    names: tuple[Literal["tf", "torch"], ...] = ("tf", "torch")
    fits = [name for name in names if close(offset, PREPROCESSING[name][1])]
    return fits[0] if fits else "other"


def close(offset: Any, wanted: Any) -> bool:
    found, wanted = np.ravel(offset), np.ravel(wanted)
    return len(found) in (1, len(wanted)) and bool(np.allclose(found, wanted, atol=0.02))


# Of images after the model's Rescaling: the least span, and the largest absolute value.
DARKEST, BRIGHTEST = 0.05, 20.0
MARGIN = 64  # allowed distance of pixels from [0, 255], which sharpening filters exceed


def check_range(model: keras.Model, low: float, high: float, what: str = "The images") -> None:
    """Raise ValueError if images with values in [low, high] are not in the model's input range.

    The range follows from a Rescaling at the model's input: a scale of 1/127.5 is for [0, 255].
    """
    first = next((x for x in model.layers if isinstance(x, layers.Rescaling)), None)
    if first is None or first.input is not model.inputs[0]:
        return
    scale, offset = np.asarray(first.scale, np.float64), np.asarray(first.offset, np.float64)
    if np.all(np.abs(scale) == 1):  # it only subtracts a mean: the range is unknown
        return
    ends = np.stack(np.broadcast_arrays(low * scale + offset, high * scale + offset))
    span, most = np.abs(ends[1] - ends[0]).max(), np.abs(ends).max()
    centred = np.allclose(offset, -127.5 * scale, rtol=0.02)  # maps [0, 255] to [-x, x]
    if span < DARKEST or most > BRIGHTEST or (centred and (low < -MARGIN or high > 255 + MARGIN)):
        raise ValueError(
            f"{what} are in [{low:g}, {high:g}], and the model begins with "
            f"Rescaling({np.ravel(scale)[0]:.6g}), which makes [{ends.min():.3g}, "
            f"{ends.max():.3g}] of that: they are in another range than the model's. Pass images "
            "as the model takes them, [0, 255] for Rescaling(1 / 127.5)."
        )


def stretch(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return an image (H, W, C), uint8 or float, resized to (height, width), as float32.

    It computes what Pillow's resize with BILINEAR does, which the recipes train on: a triangle
    filter as wide as two pixels of the smaller image, along the width, then along the height. A
    uint8 image gives whole numbers, equal to Pillow's or at most 1 off where Pillow begins with
    the height (narrow images). Values stay within the range of the image.
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
        # One tap of the filter at a time: all at once would multiply the memory by its width.
        total = np.zeros((), found.dtype)
        for place, weight in zip(places, weights, strict=True):
            total = total + found.take(place, axis) * weight.reshape(along)
        found = total
        if whole:
            found = (found + 2 ** (BITS - 1)) >> BITS
    return found.clip(least, most).astype(np.float32)


BITS = 22  # fractional bits of Pillow's fixed-point weights: 255 times their sum fits an int32


@functools.lru_cache(maxsize=16)
def triangle_filter(have: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (indices into `have` pixels, weights), both (K, wanted); the weights sum to 1."""
    scale = have / wanted
    reach = max(scale, 1.0)
    centre = (np.arange(wanted) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(int), 0)
    places = first + np.arange(int(np.ceil(2 * reach)) + 1)[:, None]
    weights = np.maximum(1 - np.abs((places + 0.5 - centre) * (1 / reach)), 0) * (places < have)
    return np.minimum(places, have - 1), weights * (1 / weights.sum(axis=0))
