"""Inputs and outputs of a .tflite file: names, dtypes, scales, and conversion of values."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from kzoo.weights.readers.flatbuffer import TfliteModel, TfliteTensor


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or output. A value is scale * (stored - zero_point); scale is 0 for floats."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int

    def __str__(self) -> str:
        grid = f", {self.scale:.6g} * (q - {self.zero_point})" if self.scale else ""
        return f"{self.name}: {self.dtype} {list(self.shape)}{grid}"


def port(name: str, tensor: "TfliteTensor") -> Port:
    scale = tensor.scales[0] if tensor.scales else 0.0
    zero_point = tensor.zero_points[0] if tensor.zero_points else 0
    return Port(name, tensor.shape, tensor.dtype, scale, zero_point)


def names(file: "TfliteModel") -> tuple[dict[str, int], dict[str, int]]:
    """Return ({name: tensor} of the inputs, of the outputs), by the signature if there is one.

    Otherwise by the names of the tensors; the graph may have its outputs in any order.
    """
    graph = file.graphs[0]
    if len(file.signatures) == 1 and file.signatures[0].graph == 0:
        return dict(file.signatures[0].inputs), dict(file.signatures[0].outputs)
    inputs, outputs = (
        {graph.tensors[i].name: i for i in ends} for ends in (graph.inputs, graph.outputs)
    )
    return inputs, outputs


def by_name(
    outputs: dict[str, Any] | Sequence[Any] | np.ndarray, wanted: list[str]
) -> dict[str, np.ndarray]:
    """Return outputs of Keras or of `Runner` as {name: array}.

    Raises ValueError if their names are not those of `wanted`.
    """
    if not isinstance(outputs, dict | list | tuple):
        outputs = [outputs]
    if not isinstance(outputs, dict):
        outputs = dict(zip(wanted, outputs, strict=True))
    if set(outputs) != set(wanted):
        raise ValueError(
            f"The model's outputs are {sorted(outputs)}, the file's are {sorted(wanted)}. Pass the "
            "model that the file was converted from."
        )
    return {name: np.asarray(outputs[name]) for name in wanted}


def from_pixels(images: np.ndarray, dtype: str) -> np.ndarray:
    """Return images with values in [0, 255] in an input's dtype.

    A pixel is the stored uint8 value, whatever scale the file declares, and the stored int8 value
    plus 128: that is what Android passes, and what image models with such inputs expect. A float
    input takes images unchanged. Raises ValueError for other dtypes and values outside [0, 255].
    """
    if dtype == "float32":
        return images.astype(np.float32)
    if dtype not in PIXEL_OFFSET:
        raise ValueError(
            f"The file's input is {dtype}; images need one of float32, "
            f"{', '.join(PIXEL_OFFSET)}. Convert it with another io=."
        )
    if images.dtype != np.uint8:
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 255) or (high <= 1 and np.any(images % 1)):
            raise ValueError(
                f"The file's input is {dtype}: it takes images with values in [0, 255]. "
                f"Received values in [{low:g}, {high:g}]. Pass the pixels as they are, unscaled."
            )
        images = np.rint(images)
    return (images.astype(np.int16) - PIXEL_OFFSET[dtype]).astype(dtype)


PIXEL_OFFSET = {"uint8": 0, "int8": 128}


def dequantize(stored: np.ndarray, output: Port) -> np.ndarray:
    """Return the real values of an output, as a new array."""
    if not output.scale:
        return stored.copy()
    return (stored.astype(np.float32) - output.zero_point) * np.float32(output.scale)


def layer_of(place: str) -> str:
    """Return the layer in a path model/layer/operation, without a suffix _1 of repeated scopes."""
    parts = place.split("/")
    return re.sub(r"_\d+$", "", parts[1] if len(parts) > 2 else parts[0])
