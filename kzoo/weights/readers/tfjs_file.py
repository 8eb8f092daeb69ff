"""Reader of TensorFlow.js models: a model.json and weight files beside it."""

import json
import math
import pathlib
from typing import Any

import numpy as np

from kzoo.weights.checkpoint import Checkpoint
from kzoo.weights.readers.keras_file import checkpoint, keras_traits, saved_layers
from kzoo.weights.readers.tfjs_graph import from_graph

# A layer's variables in Keras' order; the manifest has them in any order.
VARIABLES = (
    "kernel", "depthwise_kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance",
)  # fmt: skip


def is_tfjs(data: bytes) -> bool:
    return data.lstrip()[:1] == b"{" and b'"weightsManifest"' in data


def read_tfjs(data: bytes, file: pathlib.Path) -> Checkpoint:
    """Read a Keras model or a graph from tensorflowjs' converter, quantized or not."""
    try:
        model = json.loads(data)
        topology = model["modelTopology"]
        arrays = {
            name: values
            for group in model["weightsManifest"]
            for name, values in group_arrays(group, file.parent).items()
        }
        if "node" in topology:
            return from_graph(file, topology["node"], arrays)
        config = topology["model_config"]
        layers = [
            (name, layer_arrays(arrays, name))
            for name in (layer["config"]["name"] for layer in saved_layers(config))
        ]
        return checkpoint(file, "TensorFlow.js", layers, **keras_traits(config))
    except (KeyError, TypeError, AttributeError, FileNotFoundError) as error:
        raise ValueError(f"The model.json or a file that it names is damaged ({error}).") from error


def layer_arrays(arrays: dict[str, np.ndarray], layer: str) -> list[np.ndarray]:
    return [arrays[f"{layer}/{name}"] for name in VARIABLES if f"{layer}/{name}" in arrays]


def group_arrays(group: dict[str, Any], folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the arrays of one group of files, whose bytes are concatenated."""
    names = [pathlib.PurePosixPath(path) for path in group["paths"]]
    if any(name.is_absolute() or ".." in name.parts for name in names):
        raise ValueError("It names files outside its folder: refused.")
    content = b"".join((folder / name).read_bytes() for name in names)
    found, at = {}, 0
    for entry in group["weights"]:
        stored = entry.get("quantization") or {"dtype": entry["dtype"]}
        dtype = np.dtype(stored["dtype"]).newbyteorder("<")
        end = at + math.prod(entry["shape"]) * dtype.itemsize
        if end > len(content):
            raise ValueError(f"Its files end at byte {len(content)}, within {entry['name']}.")
        values = np.frombuffer(content[at:end], dtype).reshape(entry["shape"]).astype("float32")
        if "scale" in stored:
            values = values * np.float32(stored["scale"]) + np.float32(stored["min"])
        found[entry["name"]], at = values, end
    return found
