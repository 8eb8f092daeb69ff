"""Readers of Keras files: .weights.h5, .keras, and the legacy .h5 of Keras 2."""

import dataclasses
import functools
import io
import itertools
import pathlib
import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kzoo.preprocessing import scaling
from kzoo.weights.checkpoint import ROW, Checkpoint, Unit
from kzoo.weights.readers.limits import check_archive, open_hdf5, parse_json

Layers = Iterable[tuple[str, list[np.ndarray]]]


def layer_units(layers: Layers) -> list[Unit]:
    """Return a unit for each layer with weights; a batch norm is one with a kernel of ones."""
    units = []
    for name, values in layers:
        values = [value for value in values if value.dtype.kind == "f"]  # not a Dropout's seed
        shapes = [value.shape for value in values]
        if not values:
            continue
        if len(shapes[0]) in (2, 4) and len(shapes) <= 2:
            kernel = values[0] if values[0].ndim == 4 else values[0][None, None]
            units.append(Unit(name, kernel, values[1] if len(values) == 2 else None))
        elif [len(shape) for shape in shapes] == [1] * 4:
            kernel = np.ones((1, 1, *shapes[0], 1), "float32")
            units.append(Unit(name, kernel, norm=tuple(values)))
        else:
            raise ValueError(
                f"Its layer {name!r} has arrays of shapes {shapes}; kzoo reads Conv2D, "
                "DepthwiseConv2D, Dense and BatchNormalization."
            )
    return units


def joined(units: Iterable[Unit]) -> tuple[Unit, ...]:
    """Return units in graph order, with each batch norm merged into the layer before it."""
    found: list[Unit] = []
    for unit in units:
        if unit.norm is None:
            found.append(unit)
        elif found and found[-1].norm is None:
            found[-1] = dataclasses.replace(found[-1], norm=unit.norm)
        else:
            raise ValueError(
                f"Its layer {unit.name!r} normalizes no Conv2D, DepthwiseConv2D or Dense before it."
            )
    return tuple(found)


def checkpoint(file: pathlib.Path, kind: str, layers: Layers, **traits: Any) -> Checkpoint:
    """Return a checkpoint, to be matched by name if the layers are kzoo's, else in graph order."""
    units = layer_units(layers)
    if any(ROW.match(unit.name) for unit in units):
        return Checkpoint(str(file), kind, tuple(units), **traits, by_name=True)
    return Checkpoint(str(file), kind, joined(units), **traits)


def keras_traits(config: dict[str, Any]) -> dict[str, Any]:
    """Return padding, norm_epsilon and preprocessing from a saved model's configuration."""
    layers = [(layer["class_name"], layer["config"]) for layer in saved_layers(config)]
    pads = [c["padding"] for kind, c in layers if kind == "ZeroPadding2D"]
    # keras.applications pads its depthwise convolutions as "same" does: ((0, 1), (0, 1)), but
    # ((1, 1), (1, 1)) for maps of odd size. Its first convolution or other maps distinguish it from
    # PyTorch's padding.
    first = next((c for kind, c in layers if kind == "Conv2D"), {"padding": "valid"})
    symmetric = (
        bool(pads)
        and first["padding"] == "valid"
        and all(before == after for sides in pads for before, after in sides)
    )
    # Only a Rescaling before the first convolution scales pixels; hybrid V4s also scale queries.
    before = itertools.takewhile(lambda layer: "Conv" not in layer[0], layers)
    scalings = [(c["scale"], c["offset"]) for kind, c in before if kind == "Rescaling"]
    offset = functools.reduce(lambda x, own: x * np.array(own[0]) + own[1], scalings, np.zeros(()))
    epsilons = {c["epsilon"] for kind, c in layers if kind == "BatchNormalization"}
    return {
        "padding": "symmetric" if symmetric else "same",
        "norm_epsilon": epsilons.pop() if len(epsilons) == 1 else None,
        "preprocessing": scaling(offset) if scalings else None,
    }


def own_layers(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the layers of a functional model, or of a `Detector`, which has them in "net".

    None of what is a layer itself.
    """
    own = config["config"]
    return own.get("net", own).get("layers", [])


def saved_layers(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the layers of a model and, in their places, those of models within it."""
    for layer in own_layers(config):
        if own_layers(layer):
            yield from saved_layers(layer)
        else:
            yield layer


def stored_layers(config: dict[str, Any], group: Any) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield (name, arrays) of the layers of a model and of models within it, in order."""
    named = {layer_name(key, part): part for key, part in group["layers"].items()}
    for layer in own_layers(config):
        name = layer["config"]["name"]
        if name in named and own_layers(layer):
            yield from stored_layers(layer, named[name])
        elif name in named:
            yield name, layer_arrays(named[name])


def read_hdf5(data: bytes, file: pathlib.Path) -> Checkpoint:
    """Read Keras 3's .weights.h5, or an .h5 of Keras 2 with weights only or a whole model."""
    try:
        with open_hdf5(data) as root:
            if "layers" in root and "layer_names" not in root.attrs:
                group = root["layers"]
                padding = own_padding(layer_name(*item) for item in group.items())
                return checkpoint(file, "Keras .weights.h5", in_order(group), padding=padding)
            group = root.get("model_weights", root)
            names = [text(name) for name in group.attrs["layer_names"]]
            layers = [(name, legacy_arrays(group[name])) for name in names]
            if "model_config" in root.attrs:
                config = parse_json(text(root.attrs["model_config"]), "Its configuration")
                traits = keras_traits(config)
            else:  # weights only: MobileNets in this format are keras.applications'
                traits = {"padding": "same", "norm_epsilon": 1e-3, "preprocessing": "tf"}
            return checkpoint(file, "Keras .h5", layers, **traits)
    except (OSError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"The HDF5 file is cut off, damaged or not from Keras ({error})."
        ) from error


def own_padding(names: Iterable[str]) -> str | None:
    """Return the padding of kzoo's own nets, by their layer names; None for other nets."""
    rows = [name for name in names if ROW.match(name)]
    padded = any(name.endswith("_pad") for name in rows)
    return ("symmetric" if padded else "same") if rows else None


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def legacy_arrays(group: Any) -> list[np.ndarray]:
    return [group[text(name)][()] for name in group.attrs["weight_names"]]


def layer_name(key: str, group: Any) -> str:
    """Return a layer's name: an attribute of `vars`, since groups are named by class and number."""
    return text(group["vars"].attrs.get("name", key)) if "vars" in group else key


def layer_arrays(group: Any) -> list[np.ndarray]:
    variables = group.get("vars", {})
    return [variables[str(i)][()] for i in range(len(variables))]


# A .weights.h5 has layers by name, not in order. These are keras.applications' names: of the first
# and last layers with their positions, and of a block's layers in order.
ENDS = {
    "conv1": -1, "Conv1": -1, "conv": -1, "Conv_1": 900, "conv_1": 900, "conv_2": 901,
    "conv_preds": 902, "logits": 902, "predictions": 902,
}  # fmt: skip
BLOCK = re.compile(r"(?:block_|expanded_conv_?)(\d*)_(\w+)")
V1_BLOCK = re.compile(r"conv_(dw|pw)_(\d+)")
PLACES = (
    "expand", "depthwise", "dw", "squeeze_excite_conv", "squeeze_excite_conv_1", "project", "pw",
)  # fmt: skip


def position(name: str) -> tuple[float, ...] | None:
    """Return a sort key for a layer of keras.applications' nets; None for other names."""
    norm = 0.5 if re.search(r"bn_|_bn$|_BN$", name) else 0.0
    name = re.sub(r"^bn_|_bn$|_BN$", "", name)
    if name in ENDS:
        return ENDS[name], norm
    block = BLOCK.fullmatch(V1_BLOCK.sub(r"block_\2_\1", name))
    if not block or block[2] not in PLACES:
        return None
    return int(block[1] or 0), PLACES.index(block[2]) + norm


def in_order(group: Any) -> list[tuple[str, list[np.ndarray]]]:
    """Return the layers with weights of a .weights.h5; keras.applications' in graph order.

    Raises ValueError for names of neither kzoo nor keras.applications.
    """
    named = {layer_name(key, part): layer_arrays(part) for key, part in group.items()}
    weighted = {name: arrays for name, arrays in named.items() if arrays}
    if any(ROW.match(name) for name in weighted):
        return list(weighted.items())
    unknown = [name for name in weighted if position(name) is None]
    if unknown:
        raise ValueError(
            f"Its layer {unknown[0]!r} has a name that kzoo and keras.applications do not use, so "
            "its place in the model is unknown. Save the model as .keras: this stores the order "
            "of the layers."
        )
    return sorted(weighted.items(), key=lambda item: position(item[0]) or ())


def read_keras(data: bytes, file: pathlib.Path) -> Checkpoint:
    """Read a .keras file: layer order from its configuration, arrays from its HDF5 file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            check_archive(archive)
            config = parse_json(archive.read("config.json"), "Its configuration")
            stored = archive.read("model.weights.h5")
        with open_hdf5(stored) as root:
            layers = list(stored_layers(config, root))
        return checkpoint(file, "Keras .keras", layers, **keras_traits(config))
    except (
        OSError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"The .keras file is cut off, damaged or not a functional model ({error})."
        ) from error
