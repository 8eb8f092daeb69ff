"""Calibration images: batching, checks against the model's input, and remarks on their variety."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from kzoo.preprocessing import check_range
from kzoo.quantization.ranges import pixel_range

BATCH = 16
EMPTY = "The calibration set is empty: quantize() needs about 100 images."
# Random draws of 100 photos gave V3-Small logits whose SQNR differed by .4 dB at most.
ENOUGH = 100  # images
MOST_COPIES = 0.1  # largest share of duplicates without a remark
LEAST_SPREAD = 0.03  # standard deviation of the images' means, as a share of the pixel range


def check_calibration(model: keras.Model, batches: Iterator[np.ndarray]) -> None:
    """Raise ValueError for calibration images of one value, or of another shape or range."""
    low, high = np.inf, -np.inf
    for batch in batches:
        check_shape(model, batch)
        if batch.size:
            low, high = min(low, float(batch.min())), max(high, float(batch.max()))
    if low > high:
        return  # empty: `first` and `observe` raise
    if low == high:
        raise ValueError(
            f"The calibration images contain only the value {low:g}, so activations have no "
            "range. Pass about 100 images like those that the model will see."
        )
    check_range(model, low, high, "The calibration images")


def check_shape(model: keras.Model, batch: np.ndarray) -> None:
    """Raise ValueError for a batch of another shape than the model's input."""
    inputs: list[Any] = getattr(model, "inputs", None) or []
    if len(inputs) != 1:  # several, or a subclassed model: `check_inputs` and `read` raise
        return
    shape = inputs[0].shape[1:]
    if batch.ndim == len(shape) + 1 and all(
        n in (None, m) for n, m in zip(shape, batch.shape[1:], strict=True)
    ):
        return
    hint = ""
    if batch.ndim == len(shape):
        hint = " Of single images make batches: np.stack(images), or dataset.batch(16)."
    raise ValueError(
        f"The model takes images of shape (N, {', '.join(map(str, shape))}). Received: a "
        f"calibration batch of shape {batch.shape}.{hint}"
    )


def batched(calibration: Any) -> Iterator[np.ndarray]:
    """Yield the images of a calibration set in float32 batches; labels are dropped."""
    if isinstance(calibration, np.ndarray):
        for i in range(0, len(calibration), BATCH):
            yield calibration[i : i + BATCH].astype(np.float32)
        return
    if not isinstance(calibration, Iterable) or isinstance(calibration, str | dict):
        raise ValueError(
            f"calibration must be an array (N, H, W, C) or an iterable of batches. Received: "
            f"{type(calibration).__name__}. For a folder of images see "
            "keras.utils.image_dataset_from_directory."
        )
    for batch in calibration:
        images = batch[0] if isinstance(batch, tuple | list) else batch
        if isinstance(images, dict):
            raise ValueError(
                "A calibration batch is an array of images. Received: a dict of "
                f"{', '.join(map(str, images))}. "
                'Take the images out: dataset.map(lambda batch: batch["image"]).'
            )
        yield keras.ops.convert_to_numpy(images).astype(np.float32)


def first(calibration: Any, n: int) -> np.ndarray:
    """Return the first `n` images, or as many as there are; raise ValueError if none."""
    found: list[np.ndarray] = []
    for batch in batched(calibration):
        found.append(batch)
        if sum(map(len, found)) >= n:
            break
    if not found:
        raise ValueError(EMPTY)
    return np.concatenate(found)[:n]


def holds_bytes(batches: Iterator[np.ndarray]) -> bool:
    """Return whether the values of images show that they are pixels in [0, 255]."""
    low, high = np.inf, -np.inf
    for batch in batches:
        low, high = min(low, batch.min()), max(high, batch.max())
    return pixel_range(low, high) == (0, 255)


def calibration_remarks(batches: Iterator[np.ndarray]) -> list[str]:
    """Return a sentence for each problem of calibration images: too few, duplicates, all alike.

    batches: of images (N, ...). Ranges found on unrepresentative images fit only these.
    """
    seen: set[int] = set()
    means: list[np.ndarray] = []
    low, high = np.inf, -np.inf
    for batch in batches:
        if not batch.size:
            continue
        seen.update(hash(image.tobytes()) for image in batch)
        means.append(batch.reshape(len(batch), -1).mean(axis=1, dtype=np.float64))
        low, high = min(low, float(batch.min())), max(high, float(batch.max()))
    if low >= high:
        return []  # no images or a single value: `check_calibration` and `first` raise
    mean = np.concatenate(means)
    count, whole = len(mean), pixel_range(low, high) or (low, high)
    spread = float(mean.std() / (whole[1] - whole[0]))
    remarks = []
    if count < ENOUGH:
        remarks.append(
            f"There are {count} calibration images: {ENOUGH} or more give steady ranges."
        )
    if len(seen) < count * (1 - MOST_COPIES):
        remarks.append(
            f"Only {len(seen)} of {count} calibration images differ: copies tell nothing new."
        )
    if count > 1 and spread < LEAST_SPREAD:
        remarks.append(
            f"The calibration images are alike: their brightness spreads by {spread:.1%} of the "
            "range. Take images of all the scenes and light that the model will see."
        )
    return remarks
