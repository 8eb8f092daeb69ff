"""Keras' files: .weights.h5, .keras, and the older .h5 of keras.applications' weights."""

import dataclasses
import io
import json
import pathlib
import re
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from kzoo.checkpoint import Checkpoint, Unit, scaling


def keras_units(layers: Iterable[tuple[str, list[np.ndarray]]]) -> tuple[Unit, ...]:
    """Layers in graph order with their arrays: kernel and bias, or a batch normalization's four."""
    units: list[Unit] = []
    for name, values in layers:
        values = [value for value in values if value.dtype.kind == "f"]  # a Dropout's seed is none
        shapes = [value.shape for value in values]
        if not values:
            continue
        if len(shapes[0]) in (2, 4) and len(shapes) <= 2:
            kernel = values[0] if values[0].ndim == 4 else values[0][None, None]
            units.append(Unit(name, kernel, values[1] if len(values) == 2 else None))
        elif len(shapes) == 4 and len(shapes[0]) == 1 and units and units[-1].norm is None:
            units[-1] = dataclasses.replace(units[-1], norm=tuple(values))
        else:
            raise ValueError(
                f"Its layer {name!r} has arrays of shapes {shapes}; what is read are Conv2D, "
                "DepthwiseConv2D, Dense, and the BatchNormalization that follows one."
            )
    return tuple(units)


def keras_traits(config: dict) -> dict[str, Any]:
    """Padding, epsilon and preprocessing, from a saved model's configuration."""
    layers = [(layer["class_name"], layer["config"]) for layer in config["config"]["layers"]]
    pads = [c["padding"] for kind, c in layers if kind == "ZeroPadding2D"]
    # keras.applications pads ((0, 1), (0, 1)) before a "valid" convolution, which is "same".
    symmetric = any(before == after for sides in pads for before, after in sides)
    offsets = [c["offset"] for kind, c in layers if kind == "Rescaling"]
    epsilons = {c["epsilon"] for kind, c in layers if kind == "BatchNormalization"}
    return {
        "padding": "symmetric" if symmetric else "same",
        "norm_epsilon": epsilons.pop() if len(epsilons) == 1 else None,
        "preprocessing": scaling(offsets[0]) if offsets else None,
    }


def read_hdf5(data: bytes, file: pathlib.Path) -> Checkpoint:
    """Keras 3's .weights.h5, and the .h5 of Keras 2: weights alone or a whole model."""
    import h5py  # as late as possible: `import kzoo` costs keras and numpy

    try:
        with h5py.File(io.BytesIO(data), "r") as root:
            if "layers" in root and "layer_names" not in root.attrs:
                return Checkpoint(
                    str(file), "Keras .weights.h5", keras_units(by_name(root["layers"]))
                )
            group = root.get("model_weights", root)
            names = [text(name) for name in group.attrs["layer_names"]]
            units = keras_units((name, legacy_arrays(group[name])) for name in names)
            if "model_config" in root.attrs:
                traits = keras_traits(json.loads(text(root.attrs["model_config"])))
            else:  # weights alone: keras.applications' own, at least when they are MobileNets
                traits = {"padding": "same", "norm_epsilon": 1e-3, "preprocessing": "tf"}
            return Checkpoint(str(file), "Keras .h5", units, **traits)
    except (OSError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"The HDF5 file is cut off, damaged or not from Keras ({error})."
        ) from error


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def legacy_arrays(group: Any) -> list[np.ndarray]:
    return [group[text(name)][()] for name in group.attrs["weight_names"]]


def layer_name(key: str, group: Any) -> str:
    """Groups are called by class and number; the layer's own name is an attribute of `vars`."""
    return text(group["vars"].attrs.get("name", key)) if "vars" in group else key


def layer_arrays(group: Any) -> list[np.ndarray]:
    variables = group.get("vars", {})
    return [variables[str(i)][()] for i in range(len(variables))]


# A .weights.h5 holds layers by name, not in order; these are kzoo's names and keras.applications'.
# Words in the order in which they stand in a block, one line for each place.
PLACES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(conv|expand)",
        r"depthwise",
        r"(se_squeeze|squeeze_excite_conv)",
        r"(se_excite|squeeze_excite_conv_1)",
        r"project",
        r"shortcut",
        r"out",
    )
)
BLOCK = re.compile(r"(?:row|block_|expanded_conv_?)(\d*)_(\w+)")
ENDS = {
    "Conv1": (-1,), "conv": (-1,), "Conv_1": (900,), "conv_1": (900,), "conv_2": (901,),
    "head_wide": (901,), "logits": (902,), "predictions": (902,), "head_logits": (902,),
}  # fmt: skip


def position(name: str) -> tuple[float, ...] | None:
    """Sorts the layers that have weights; None for a name of neither."""
    norm = 0.5 if re.search(r"bn_|_bn$|_BN$", name) else 0.0
    name = re.sub(r"^bn_|_bn$|_BN$", "", name)
    if name in ENDS:
        return (*ENDS[name], norm)
    block = BLOCK.fullmatch(name)
    if not block:
        return None
    places = [i for i, place in enumerate(PLACES) if place.fullmatch(block[2])]
    return (int(block[1] or 0), places[0] + norm) if places else None


def by_name(group: Any) -> list[tuple[str, list[np.ndarray]]]:
    """The layers with weights of a .weights.h5, in graph order."""
    named = {layer_name(key, part): layer_arrays(part) for key, part in group.items()}
    weighted = {name: arrays for name, arrays in named.items() if arrays}
    strange = [name for name in weighted if position(name) is None]
    if strange:
        raise ValueError(
            f"Its layer {strange[0]!r} has no name of kzoo or keras.applications, so its place in "
            "the net is unknown. Save the model as .keras: that holds the order of its layers."
        )
    return sorted(weighted.items(), key=lambda item: position(item[0]) or ())


def read_keras(data: bytes, file: pathlib.Path) -> Checkpoint:
    """A .keras file: the configuration has the order of the layers, the HDF5 their arrays."""
    import h5py

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            config = json.loads(archive.read("config.json"))
            stored = archive.read("model.weights.h5")
        with h5py.File(io.BytesIO(stored), "r") as root:
            named = {layer_name(key, part): part for key, part in root["layers"].items()}
            order = [layer["config"]["name"] for layer in config["config"]["layers"]]
            units = keras_units(
                (name, layer_arrays(named[name])) for name in order if name in named
            )
        return Checkpoint(str(file), "Keras .keras", units, **keras_traits(config))
    except (
        OSError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"The .keras file is cut off, damaged or no functional model ({error})."
        ) from error
