"""Segmentation: LR-ASPP and DeepLabV3 (V3+ with `decoder`) on any backbone of the zoo.

Both take a backbone and return one flat functional model from its images to logits (N, H, W,
classes), a class for each pixel, background being one like any other. Build the backbone with
`include_top=False`, for which `output_stride=16` or 8 keeps maps from shrinking further: strides
become dilations. Resizing is bilinear between centers of pixels (PyTorch's align_corners=False).
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
    """(The backbone's deepest features, their stride).

    MobileNetV3's last row is the expansion of a bottleneck, 6 times its input at every alpha, and
    is read. MobileNetV2's only widens 320 channels to 1,280 for its classifier: it is left out, as
    in section 6.3 of its paper. V4's widens too.
    """
    *_, (_, before), (stride, last) = [(0, None), *row_outputs(backbone)]
    row = last._keras_history.operation.name.removesuffix("_out")
    widens = any(layer.name == f"{row}_conv" for layer in backbone.layers) and before is not None
    return (before if widens and channels(last) != 6 * channels(before) else last), stride


def rows_at(backbone: keras.Model, stride: int) -> list[Tensor]:
    """The outputs of the rows at a stride."""
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
    """Return the expansion in the row that goes on from a stride: more channels than rows give.

    Where that row expands nothing, as in V1, or not at the stride, what it reads.
    """
    read = rows_at(backbone, stride)[-1]
    after = [features for total, features in row_outputs(backbone) if total > stride]
    name = after[0]._keras_history.operation.name.removesuffix("out") if after else ""
    found = {layer.name: layer.output for layer in backbone.layers}.get(f"{name}expand_act")
    return read if found is None or sides(found) != sides(read) else found


def sides(x: Tensor) -> tuple[int | None, int | None]:
    """(H, W) of a feature map."""
    height, width = x.shape[2:] if channel_axis() == 1 else x.shape[1:3]
    return height, width


def resized(
    x: Tensor, target: tuple[int | None, int | None], factor: int | None, name: str
) -> Tensor:
    """Bilinear, to the sides `target`; where those are not known, `factor` times as large."""
    if factor == 1 or (target == sides(x) and None not in target):
        return x
    if None not in target:
        return layers.Resizing(*target, interpolation="bilinear", name=name)(x)
    return layers.UpSampling2D(factor, interpolation="bilinear", name=name)(x)


def finished(
    backbone: keras.Model, x: Tensor, activation: Any, name: str,
    weights: str | os.PathLike[str] | None, labels: Sequence[str] | None,
) -> keras.Model:  # fmt: skip
    """The segmenter from the backbone's input to `x`, with its weights."""
    if activation is not None:
        x = layers.Activation(activation, dtype="float32", name="scores")(x)
    inputs = backbone.inputs
    model = keras.Model(inputs if len(inputs) > 1 else inputs[0], x, name=name)
    if hasattr(backbone, "loaded_weights"):
        model.loaded_weights = backbone.loaded_weights
    if weights is not None:
        model.loaded_weights = load_weights(model, weights, labels=labels)
    return model
