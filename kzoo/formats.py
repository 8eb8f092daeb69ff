"""Weight files of every kind, read into one form: the convolutions of a net, in graph order.

A reader names no model and no layer of ours; it returns units, and what else the weights fix: how
their net pads, normalizes and scales its input. `kzoo.weights` matches units with a model.
"""

import collections
import dataclasses
import io
import json
import os
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np

from kzoo.flatbuffer import IDENTIFIER, TfliteModel, TfliteOperator, read_tflite
from kzoo.torch_file import (
    STREAM_START, Arrays, is_safetensors, read_safetensors, read_stream, read_zip,
)  # fmt: skip

HDF5, ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
    """One convolution, and the batch normalization behind it. A dense layer is a 1 x 1 convolution.

    kernel: (H, W, C_in, C_out); of a depthwise convolution (H, W, C, 1).
    norm: gamma, beta, moving mean, moving variance, each (C_out,); None where there is none, or where
        it was folded into kernel and bias.
    """

    name: str  # in its file
    kernel: np.ndarray
    bias: np.ndarray | None = None
    norm: tuple[np.ndarray, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights of one file. None stands for what the file does not tell."""

    source: str
    kind: str
    units: tuple[Unit, ...]
    padding: Literal["same", "symmetric"] | None = None
    norm_epsilon: float | None = None
    preprocessing: Literal["tf", "torch"] | None = None


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read a weight file. Its bytes tell the format, its name does not. Raises ValueError."""
    file = pathlib.Path(path)
    if file.is_dir():
        raise ValueError(
            f"weights={str(path)!r} is a folder. Pass one of the files in it (of a SavedModel none is "
            "read: save the model as .keras, or convert it to .tflite)."
        )
    if not file.exists():
        raise FileNotFoundError(
            f'weights={str(path)!r}: there is no such file. weights is "imagenet", None or a path.'
        )
    data = file.read_bytes()
    recognised = [read for knows, read in FORMATS if knows(data)]
    if not recognised:
        raise ValueError(
            f"weights={str(path)!r} is in no format that is read: it begins with {data[:12]!r}. Pass "
            "a .weights.h5, .h5, .keras, .pth, .safetensors or .tflite file."
        )
    try:
        checkpoint = recognised[0](data, file)
    except ValueError as error:
        raise ValueError(f"weights={str(path)!r} cannot be read. {error}") from error
    if not checkpoint.units:
        raise ValueError(f"weights={str(path)!r} holds no convolution.")
    return checkpoint


# Keras


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
            units.append(Unit(name, kernel, *values[1:]))
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


def layer_arrays(group: Any) -> list[np.ndarray]:
    variables = group["vars"] if "vars" in group else {}
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
    named = {text(part.attrs.get("name", key)): layer_arrays(part) for key, part in group.items()}
    weighted = {name: arrays for name, arrays in named.items() if arrays}
    strange = [name for name in weighted if position(name) is None]
    if strange:
        raise ValueError(
            f"Its layer {strange[0]!r} has no name of kzoo or keras.applications, so its place in the "
            "net is unknown. Save the model as .keras: that holds the order of its layers."
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
            named = {
                text(part.attrs.get("name", key)): part for key, part in root["layers"].items()
            }
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


# PyTorch


def read_torch(read: Callable[[bytes], Arrays]) -> Callable[[bytes, pathlib.Path], Checkpoint]:
    """A reader of files with PyTorch's names and layouts, torchvision's or timm's."""

    def reader(data: bytes, file: pathlib.Path) -> Checkpoint:
        arrays = read(data)
        if "conv_stem.weight" in arrays:
            return from_timm(arrays, file)
        if "features.0.0.weight" in arrays:
            return from_torchvision(arrays, file)
        raise ValueError(
            "Its tensors are named as by neither torchvision (features.0.0.weight, ...) nor timm "
            f"(conv_stem.weight, ...): {', '.join(sorted(arrays)[:3]) or 'there are none'}."
        )

    return reader


def torch_unit(arrays: Arrays, conv: str, norm: str | None, first: bool) -> Unit:
    kernel = arrays[f"{conv}.weight"].astype("float32")  # (out, in / groups, H, W) or (out, in)
    kernel = kernel.reshape(*kernel.shape, *[1] * (4 - kernel.ndim))
    depthwise = kernel.shape[1] == 1 and not first  # the stem of a gray net has one channel as well
    kernel = kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    bias = arrays.get(f"{conv}.bias")
    parts = ("weight", "bias", "running_mean", "running_var")
    values = tuple(arrays[f"{norm}.{part}"].astype("float32") for part in parts) if norm else None
    return Unit(conv, kernel, None if bias is None else bias.astype("float32"), values)


def torch_units(arrays: Arrays, pairs: list[tuple[str, str | None]]) -> tuple[Unit, ...]:
    return tuple(torch_unit(arrays, conv, norm, i == 0) for i, (conv, norm) in enumerate(pairs))


def from_torchvision(arrays: Arrays, file: pathlib.Path) -> Checkpoint:
    """torchvision's mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small; with or without classifier."""

    def place(module: str) -> tuple:
        numbered = [(not p.isdigit(), int(p) if p.isdigit() else p) for p in module.split(".")[1:]]
        return not module.startswith("features"), *numbered

    modules = sorted({name.rpartition(".")[0] for name in arrays}, key=place)
    pairs: list[tuple[str, str | None]] = []
    for module in modules:
        if f"{module}.running_var" not in arrays:
            pairs.append((module, None))
        elif pairs and pairs[-1][1] is None:
            pairs[-1] = pairs[-1][0], module
        else:
            raise ValueError(f"{module!r} normalizes no convolution: the file is damaged.")
    v3 = any(".block." in name for name in arrays)
    # https://github.com/pytorch/vision/blob/v0.29.1/torchvision/models/mobilenetv3.py sets eps=0.001;
    # mobilenetv2.py leaves PyTorch's 1e-5.
    return Checkpoint(
        str(file),
        "torchvision",
        torch_units(arrays, pairs),
        "symmetric",
        1e-3 if v3 else 1e-5,
        "torch",
    )


# Convolutions of a timm block and the norms behind them, by the convolution that tells the block's kind.
TIMM_BLOCKS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "conv_pwl": (
        ("conv_pw", "bn1"), ("conv_dw", "bn2"), ("se.conv_reduce", None), ("se.conv_expand", None),
        ("conv_pwl", "bn3"),
    ),
    "conv_dw": (
        ("conv_dw", "bn1"), ("se.conv_reduce", None), ("se.conv_expand", None), ("conv_pw", "bn2"),
    ),
    "conv": (("conv", "bn1"),),
}  # fmt: skip


def from_timm(arrays: Arrays, file: pathlib.Path) -> Checkpoint:
    """timm's mobilenetv2 and mobilenetv3 families.

    The tf_ variants pad "same", with eps 1e-3 and inputs in [-1, 1]; the tensors do not show it, but
    the `config.json` that the hub puts beside a file does. Without one, the plain variants are meant.
    """
    pairs: list[tuple[str, str | None]] = [("conv_stem", "bn1")]
    found = {match[1] for name in arrays if (match := re.match(r"(blocks\.\d+\.\d+)\.", name))}
    for block in sorted(found, key=lambda name: tuple(map(int, name.split(".")[1:]))):
        kinds = [kind for kind in TIMM_BLOCKS if f"{block}.{kind}.weight" in arrays]
        if not kinds:
            raise ValueError(f"{block!r} is no block of MobileNetV2 or V3.")
        pairs += [
            (f"{block}.{conv}", norm and f"{block}.{norm}")
            for conv, norm in TIMM_BLOCKS[kinds[0]]
            if f"{block}.{conv}.weight" in arrays
        ]
    if "conv_head.weight" in arrays:
        pairs.append(("conv_head", "bn2" if "bn2.weight" in arrays else None))
    if "classifier.weight" in arrays:
        pairs.append(("classifier", None))
    try:
        units = torch_units(arrays, pairs)
    except KeyError as error:
        raise ValueError(f"The file has no {error}.") from error

    card = file.with_name("config.json")
    config = json.loads(card.read_text()) if card.is_file() else {}
    tf = str(config.get("architecture", "")).startswith("tf_")
    mean = config.get("pretrained_cfg", {}).get("mean", [0.485, 0.456, 0.406])
    scalings: dict[tuple, Literal["tf", "torch"]] = {
        (0.5, 0.5, 0.5): "tf",
        (0.485, 0.456, 0.406): "torch",
    }
    if tuple(mean) not in scalings:
        raise ValueError(f"Its config.json has a mean of {mean}; read are {list(scalings)}.")
    return Checkpoint(
        str(file), "timm", units, "same" if tf else "symmetric", 1e-3 if tf else 1e-5,
        scalings[tuple(mean)],
    )  # fmt: skip


# TensorFlow Lite


def scaling(offset: Any) -> Literal["tf", "torch"] | None:
    """Which preprocessing takes a pixel of 0 to `offset`."""
    from kzoo.build import PREPROCESSING  # build imports this module

    names: tuple[Literal["tf", "torch"], ...] = ("tf", "torch")
    fits = [name for name in names if np.allclose(offset, PREPROCESSING[name][1], atol=0.02)]
    return fits[0] if fits else None


class Values:
    """The constants of a .tflite graph, and who reads and writes its tensors."""

    def __init__(self, model: TfliteModel) -> None:
        self.model, self.graph = model, model.graphs[0]
        self.writer = {i: op for op in self.graph.operators for i in op.outputs}
        self.readers = collections.defaultdict(list)
        for op in self.graph.operators:
            for i in op.inputs:
                self.readers[i].append(op)

    def real(self, op: TfliteOperator, position: int) -> np.ndarray | None:
        """A constant operand's real values, through the DEQUANTIZE of a float16 file."""
        index = op.inputs[position] if position < len(op.inputs) else -1
        if index < 0:
            return None
        source = self.writer.get(index)
        if source is not None:
            return self.real(source, 0) if source.name == "DEQUANTIZE" else None
        return self.model.real(self.graph.tensors[index])

    def is_gate(self, op: TfliteOperator) -> bool:
        """hard_sigmoid(x) = relu6(x + 3) / 6, where the converter has put the + 3 into a bias."""
        readers = self.readers[op.outputs[0]] if op.options["activation"] == "relu6" else ()
        constants = [self.real(r, i) for r in readers if r.name == "MUL" for i in (0, 1)]
        return any(
            c is not None and c.size == 1 and abs(c.item() - 1 / 6) < 0.01 for c in constants
        )


KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "CONV_2D": lambda w: w.transpose(1, 2, 3, 0),
    "DEPTHWISE_CONV_2D": lambda w: w.transpose(1, 2, 3, 0),
    "FULLY_CONNECTED": lambda w: w.T[None, None],
}
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "DIV": np.divide,
}  # fmt: skip


def from_tflite(data: bytes, file: pathlib.Path) -> Checkpoint:
    """A classifier's float, float16, dynamic-range, int8 or uint8 file; quantized weights as reals."""
    values = Values(read_tflite(data))
    units: list[Unit] = []
    offset, symmetric = None, False
    for i, op in enumerate(values.graph.operators):
        if op.name in KERNELS:
            kernel, bias = values.real(op, 1), values.real(op, 2)
            if kernel is None or kernel.ndim != (2 if op.name == "FULLY_CONNECTED" else 4):
                raise ValueError(
                    f"Operator {i}, {op.name}, has no constant weights: no classifier."
                )
            if bias is not None and values.is_gate(op):
                bias = bias - 3
            units.append(Unit(f"operator {i} ({op.name})", KERNELS[op.name](kernel), bias))
        elif op.name in ARITHMETIC and not units:
            constant = values.real(op, 1)
            if constant is not None:
                offset = ARITHMETIC[op.name](0.0 if offset is None else offset, constant)
        elif op.name == "PAD":
            pads = values.real(op, 1)
            symmetric |= pads is not None and bool((pads[:, 0] == pads[:, 1]).all() and pads.any())
    # A file without arithmetic before its first convolution takes what the net takes; so far every
    # published one is TensorFlow's, [-1, 1], or pads like PyTorch.
    found = scaling(offset) if offset is not None else None
    return Checkpoint(
        str(file), "TFLite", tuple(units), "symmetric" if symmetric else "same", None,
        found or ("torch" if symmetric else "tf"),
    )  # fmt: skip


def zip_holds(name: str) -> Callable[[bytes], bool]:
    # By the bytes, so that a cut-off zip, whose directory at the end is missing, is recognised as well.
    return lambda data: data.startswith(ZIP) and name.encode() in data


FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes, pathlib.Path], Checkpoint]], ...] = (
    (lambda data: data[4:8] == IDENTIFIER, from_tflite),
    (lambda data: data.startswith(HDF5), read_hdf5),
    (zip_holds("config.json"), read_keras),
    (zip_holds("data.pkl"), read_torch(read_zip)),
    (lambda data: data.startswith(STREAM_START), read_torch(read_stream)),
    (is_safetensors, read_torch(read_safetensors)),
)
