"""Features of backbones for segmentation heads: LR-ASPP and DeepLabV3 (V3+ with `decoder`).

Both heads take a backbone and return one flat functional model with logits (N, H, W, classes);
background is a class like any other. Build the backbone with `include_top=False` and, for finer
feature maps, `output_stride=16` or 8. Resizing is bilinear with half-pixel centers (PyTorch's
align_corners=False).
"""

import os
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from kzoo.arguments import is_number, is_whole, require
from kzoo.backbones.build import row_outputs
from kzoo.preprocessing import Tensor, channel_axis, channels
from kzoo.weights.loading import load_weights


def check(classes: int, norm_momentum: float, *, filters: int) -> None:
    for argument, value in (("classes", classes), ("filters", filters)):
        require(argument, value, is_whole(value) and value >= 1, "a whole number >= 1")
    fits = is_number(norm_momentum) and 0 <= norm_momentum < 1
    require("norm_momentum", norm_momentum, fits, "a number in [0, 1)")


def high_features(backbone: keras.Model) -> tuple[Tensor, int]:
    """Return (the backbone's deepest features, their stride).

    The output of the last row of MobileNetV3, an expansion by 6. MobileNetV2's and V4's last row
    only widens features for the classifier (320 to 1,280 channels in V2) and is skipped, as in
    section 6.3 of V2's paper.
    """
    *_, (_, before), (stride, last) = [(0, None), *row_outputs(backbone)]
    row = last._keras_history.operation.name.removesuffix("_out")
    widens = any(layer.name == f"{row}_conv" for layer in backbone.layers) and before is not None
    return (before if widens and channels(last) != 6 * channels(before) else last), stride


def rows_at(backbone: keras.Model, stride: int) -> list[Tensor]:
    """Return the outputs of the rows at a stride; raise ValueError if there are none."""
    found = row_outputs(backbone)
    at = [features for total, features in found if total == stride]
    if not at:
        strides = sorted({total for total, _ in found})
        raise ValueError(
            f"{backbone.name!r} has no row at stride {stride}, whose features this head needs: its "
            f"rows are at {', '.join(map(str, strides))}."
        )
    return at


def expansion_at(backbone: keras.Model, stride: int) -> Tensor:
    """Return the expansion in the first row after a stride, which has more channels than a row.

    If that row has no expansion at this stride, as in V1, return its input.
    """
    read = rows_at(backbone, stride)[-1]
    after = [features for total, features in row_outputs(backbone) if total > stride]
    name = after[0]._keras_history.operation.name.removesuffix("out") if after else ""
    found = {layer.name: layer.output for layer in backbone.layers}.get(f"{name}expand_act")
    return read if found is None or sides(found) != sides(read) else found


def sides(x: Tensor) -> tuple[int | None, int | None]:
    """Return (H, W) of a feature map."""
    height, width = x.shape[2:] if channel_axis() == 1 else x.shape[1:3]
    return height, width


def resized(
    x: Tensor, target: tuple[int | None, int | None], factor: int | None, name: str
) -> Tensor:
    """Return `x` resized bilinearly to `target` (H, W), or by `factor` if that is unknown."""
    if factor == 1 or (target == sides(x) and None not in target):
        return x
    if None not in target:
        return layers.Resizing(*target, interpolation="bilinear", name=name)(x)
    return layers.UpSampling2D(factor, interpolation="bilinear", name=name)(x)


def finished(
    backbone: keras.Model, x: Tensor, activation: Any, name: str,
    weights: str | os.PathLike[str] | None, labels: Sequence[str] | None,
) -> keras.Model:  # fmt: skip
    """Return the segmenter from the backbone's input to `x`, and load its weights."""
    if activation is not None:
        x = layers.Activation(activation, dtype="float32", name="scores")(x)
    inputs = backbone.inputs
    model = keras.Model(inputs if len(inputs) > 1 else inputs[0], x, name=name)
    if hasattr(backbone, "loaded_weights"):
        model.loaded_weights = backbone.loaded_weights
    if weights is not None:
        model.loaded_weights = load_weights(model, weights, labels=labels)
    return model
