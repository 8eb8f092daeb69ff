"""Conversion of torchvision's and timm's tensors, by their names, into units."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from kzoo.preprocessing import IMAGENET_MEAN
from kzoo.weights.checkpoint import Checkpoint, Unit
from kzoo.weights.readers.torch_file import Arrays


def read_torch(read: Callable[[bytes], Arrays]) -> Callable[[bytes, pathlib.Path], Checkpoint]:
    """Return a reader of torchvision's and timm's files from a function that reads tensors."""

    def reader(data: bytes, file: pathlib.Path) -> Checkpoint:
        arrays = read(data)
        for stem, reads in STEMS.items():
            if stem in arrays:
                return reads(arrays, file)
        raise ValueError(
            "Its tensors are named as by neither torchvision (features.0.0.weight, ...) nor timm "
            f"(conv_stem.weight, ...): {', '.join(sorted(arrays)[:3]) or 'there are none'}."
        )

    return reader


def torch_unit(arrays: Arrays, conv: str | None, norm: str | None, first: bool) -> Unit:
    if conv is None:  # a norm without a convolution: the kernel is an identity
        kernel = np.ones_like(arrays[f"{norm}.weight"], "float32")
    else:  # (out, in / groups, H, W) or (out, in); (out,) for a layer scale
        named = f"{conv}.weight" if f"{conv}.weight" in arrays else f"{conv}.gamma"
        kernel = arrays[named].astype("float32")
    kernel = kernel.reshape(*kernel.shape, *[1] * (4 - kernel.ndim))
    depthwise = kernel.shape[1] == 1 and not first  # the stem of a grayscale net has one too
    kernel = kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    bias = arrays.get(f"{conv}.bias")
    parts = ("weight", "bias", "running_mean", "running_var")
    values = tuple(arrays[f"{norm}.{part}"].astype("float32") for part in parts) if norm else None
    return Unit(conv or str(norm), kernel, None if bias is None else bias.astype("float32"), values)


Pairs = list[tuple[str | None, str | None]]  # (convolution, batch norm after it)


def torch_units(arrays: Arrays, pairs: Pairs) -> tuple[Unit, ...]:
    return tuple(torch_unit(arrays, conv, norm, i == 0) for i, (conv, norm) in enumerate(pairs))


def from_torchvision(arrays: Arrays, file: pathlib.Path) -> Checkpoint:
    """Read torchvision's MobileNetV2, V3-Large or V3-Small, with or without the classifier."""

    def place(module: str) -> tuple[Any, ...]:
        numbered = [(not p.isdigit(), int(p) if p.isdigit() else p) for p in module.split(".")[1:]]
        return not module.startswith("features"), *numbered

    modules = sorted({name.rpartition(".")[0] for name in arrays}, key=place)
    pairs: Pairs = []
    for module in modules:
        if f"{module}.running_var" not in arrays:
            pairs.append((module, None))
        elif pairs and pairs[-1][1] is None:
            pairs[-1] = pairs[-1][0], module
        else:
            raise ValueError(f"{module!r} normalizes no convolution: the file is damaged.")
    v3 = any(".block." in name for name in arrays)
    # torchvision/models/mobilenetv3.py sets eps=0.001; mobilenetv2.py leaves PyTorch's 1e-5.
    return Checkpoint(
        str(file),
        "torchvision",
        torch_units(arrays, pairs),
        "symmetric",
        1e-3 if v3 else 1e-5,
        "torch",
    )


# The convolutions of torchvision's segmenters and the norms after them, in kzoo's graph order.
SEGMENTERS: dict[str, Pairs] = {
    "classifier.cbr.0.weight": [  # LR-ASPP
        ("cbr.0", "cbr.1"), ("scale.1", None), ("high_classifier", None), ("low_classifier", None),
    ],
    "classifier.0.convs.4.1.weight": [  # DeepLabV3
        ("0.convs.4.1", "0.convs.4.2"), *((f"0.convs.{i}.0", f"0.convs.{i}.1") for i in range(4)),
        ("0.project.0", "0.project.1"), ("1", "2"), ("4", None),
    ],
}  # fmt: skip
BODY_EPSILON, HEAD_EPSILON = 1e-3, 1e-5  # of torchvision's MobileNetV3, of its segmenters' heads


def from_segmenter(arrays: Arrays, file: pathlib.Path) -> Checkpoint:
    """Read torchvision's lraspp_mobilenet_v3_large or deeplabv3_mobilenet_v3_large."""
    known = [pairs for name, pairs in SEGMENTERS.items() if name in arrays]
    if not known:
        raise ValueError(
            f"Its head is none of {', '.join(SEGMENTERS)}: kzoo reads no other segmenters."
        )
    body = {
        name.replace("backbone", "features", 1): values
        for name, values in arrays.items()
        if name.startswith("backbone.")
    }
    checkpoint = from_torchvision(body, file)
    head = []
    for conv, norm in known[0]:
        unit = torch_unit(arrays, f"classifier.{conv}", norm and f"classifier.{norm}", False)
        if unit.norm:  # a checkpoint has one epsilon: the variance absorbs the difference
            *rest, variance = unit.norm
            variance = variance + np.float32(HEAD_EPSILON - BODY_EPSILON)
            unit = dataclasses.replace(unit, norm=(*rest, variance))
        if conv == "0.project.0":  # the pooled branch is last in torchvision, first in TF and kzoo
            kernel = np.roll(unit.kernel, unit.kernel.shape[2] // 5, axis=2)
            unit = dataclasses.replace(unit, kernel=kernel)
        head.append(unit)
    units = (*checkpoint.units, *head)
    return dataclasses.replace(checkpoint, units=units, head=len(head))


def from_detector(arrays: Arrays, file: pathlib.Path) -> Checkpoint:
    """Read torchvision's ssdlite320_mobilenet_v3_large."""
    body = {
        name.removeprefix("backbone."): values
        for name, values in arrays.items()
        if name.startswith("backbone.features.")
    }
    checkpoint = from_torchvision(body, file)

    def layers(prefix: str, count: int) -> list[tuple[str, str | None]]:
        return [(f"{prefix}.{i}.0", f"{prefix}.{i}.1") for i in range(count)]

    pairs: Pairs = []
    for kind in ("regression_head", "classification_head"):
        maps = {name.split(".")[3] for name in arrays if name.startswith(f"head.{kind}.")}
        for i in range(len(maps)):
            extra = f"backbone.extra.{i - 2}"  # first read by the box predictor of this map
            if kind == "regression_head" and f"{extra}.0.0.weight" in arrays:
                pairs += layers(extra, 3)
            own = f"head.{kind}.module_list.{i}"
            pairs += [*layers(own, 1), (f"{own}.1", None)]
    try:
        head = [torch_unit(arrays, conv, norm, False) for conv, norm in pairs]
    except KeyError as error:
        raise ValueError(f"The file has no {error}.") from error
    head = [yxyx(unit) if unit.norm is None and ".regr" in unit.name else unit for unit in head]
    # torchvision's detector scales pixels to [-1, 1], unlike its classifiers.
    units = (*checkpoint.units, *head)
    return dataclasses.replace(checkpoint, units=units, head=len(head), preprocessing="tf")


def yxyx(unit: Unit) -> Unit:
    """Return a box predictor with its outputs x, y, width, height as y, x, height, width."""

    def turned(values: np.ndarray) -> np.ndarray:
        codes = values.reshape(*values.shape[:-1], -1, 4)
        return codes[..., [1, 0, 3, 2]].reshape(values.shape)

    assert unit.bias is not None
    return dataclasses.replace(unit, kernel=turned(unit.kernel), bias=turned(unit.bias))


# (convolution, norm) pairs of each kind of timm block, by the layer that identifies the kind.
TIMM_BLOCKS: dict[str, tuple[tuple[str | None, str | None], ...]] = {
    "conv_exp": (("conv_exp", "bn1"), ("conv_pwl", "bn2")),
    "pw_exp.conv": (
        ("dw_start.conv", "dw_start.bn"), ("pw_exp.conv", "pw_exp.bn"),
        ("dw_mid.conv", "dw_mid.bn"), ("pw_proj.conv", "pw_proj.bn"), ("layer_scale", None),
    ),
    "attn.query.proj": (
        (None, "norm"), ("attn.query.proj", None),
        ("attn.key.down_conv", "attn.key.norm"), ("attn.key.proj", None),
        ("attn.value.down_conv", "attn.value.norm"), ("attn.value.proj", None),
        ("attn.output.proj", None), ("layer_scale", None),
    ),
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
    """Read timm's mobilenetv2, mobilenetv3 or mobilenetv4 family.

    The tf_ variants pad "same", with eps 1e-3 and inputs in [-1, 1]. Tensors do not show this, but
    the `config.json` that the hub has beside them does; without one, a plain variant is assumed.
    For published files `read_checkpoint` knows it from the table.
    """
    pairs: Pairs = [("conv_stem", "bn1")]
    found = {match[1] for name in arrays if (match := re.match(r"(blocks\.\d+\.\d+)\.", name))}
    for block in sorted(found, key=lambda name: tuple(map(int, name.split(".")[1:]))):
        kinds = [kind for kind in TIMM_BLOCKS if f"{block}.{kind}.weight" in arrays]
        if not kinds:
            raise ValueError(f"{block!r} is not a block of MobileNetV2, V3 or V4.")
        pairs += [
            (conv and f"{block}.{conv}", norm and f"{block}.{norm}")
            for conv, norm in TIMM_BLOCKS[kinds[0]]
            if {f"{block}.{conv or norm}.{own}" for own in ("weight", "gamma")} & arrays.keys()
        ]
    if "conv_head.weight" in arrays:
        norms = [norm for norm in ("bn2", "norm_head") if f"{norm}.weight" in arrays]
        pairs.append(("conv_head", norms[0] if norms else None))
    if "classifier.weight" in arrays:
        pairs.append(("classifier", None))
    try:
        units = torch_units(arrays, pairs)
    except KeyError as error:
        raise ValueError(f"The file has no {error}.") from error

    return Checkpoint(str(file), "timm", units, *card_traits(file, arrays))


HUB_NAMES = ("model.safetensors", "pytorch_model.bin")
Scaling = Literal["tf", "torch"]
SCALINGS: dict[tuple[float, ...], Scaling] = {(0.5, 0.5, 0.5): "tf", IMAGENET_MEAN: "torch"}


def card_traits(
    file: pathlib.Path, arrays: Arrays
) -> tuple[Literal["same", "symmetric"], float, Scaling]:
    """Return (padding, epsilon, scaling) from the config.json beside a file.

    Without one, those of timm's plain variants. A config.json of another net is ignored, but raises
    ValueError if the file has the hub's file name, since then the two should belong together.
    """
    card = file.with_name("config.json")
    config = json.loads(card.read_text()) if card.is_file() else {}
    architecture = str(config.get("architecture", ""))
    classes = arrays["classifier.weight"].shape[0] if "classifier.weight" in arrays else None
    of_this = "mobilenet" in architecture and classes in (None, config.get("num_classes", classes))
    if config and not of_this and file.name not in HUB_NAMES:
        config, architecture = {}, ""
    elif config and not of_this:
        raise ValueError(
            f"The config.json beside it is of another net ({architecture or 'no architecture'}, "
            f"{config.get('num_classes', 'unknown')} classes), and the file has {classes}. Put it "
            "into a folder with its own config.json, or without any."
        )
    mean = tuple(config.get("pretrained_cfg", {}).get("mean", IMAGENET_MEAN))
    if mean not in SCALINGS:
        raise ValueError(f"Its config.json has a mean of {mean}; kzoo reads {list(SCALINGS)}.")
    tf = architecture.startswith("tf_")
    return "same" if tf else "symmetric", 1e-3 if tf else 1e-5, SCALINGS[mean]


# Readers by the name of the first convolution.
STEMS: dict[str, Callable[[Arrays, pathlib.Path], Checkpoint]] = {
    "conv_stem.weight": from_timm,
    "features.0.0.weight": from_torchvision,
    "backbone.0.0.weight": from_segmenter,
    "backbone.features.0.0.0.weight": from_detector,
}
