"""DeepLabV3, and V3+ with `decoder`, on any backbone of the zoo."""

import os
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from kzoo.arguments import is_number, is_whole, require
from kzoo.backbones.rows import Net
from kzoo.preprocessing import Tensor, channel_axis
from kzoo.segmentation.features import (
    check,
    expansion_at,
    finished,
    high_features,
    resized,
    rows_at,
    sides,
)

# Filters of the decoder's low-level features: section 3.2 of https://arxiv.org/abs/1802.02611.
LOW_FILTERS = 48


def DeepLabV3(
    backbone: keras.Model,
    classes: int,
    *,
    aspp_rates: tuple[int, ...] = (),
    filters: int = 256,
    refine: bool = False,
    decoder: bool = False,
    fine: bool = False,
    dropout_rate: float = 0.1,
    full_resolution: bool = True,
    classifier_activation: Any = None,
    norm_momentum: float = 0.99,
    weights: str | os.PathLike[str] | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
) -> keras.Model:
    """Return a DeepLabV3 segmenter, or V3+ with `decoder`: output (N, H, W, classes).

    Atrous spatial pyramid pooling (ASPP) concatenates global pooling, a 1 x 1 convolution and
    dilated 3 x 3 convolutions of the backbone's output.

    backbone: a kzoo backbone built with include_top=False and a fixed input_shape.
    classes: number of classes, background included.
    aspp_rates: dilation rates of the 3 x 3 convolutions. None by default, as in MobileNetV2's paper
        (section 6.3); (6, 12, 18) at output stride 16, (12, 24, 36) at 8 and in torchvision.
    filters: channels of each branch, and of their projection.
    refine: another 3 x 3 convolution after the projection, as in torchvision.
    decoder: V3+, with two separable convolutions at 1/4 of the image's size.
    fine: for thin objects: the decoder reads the expansion in the first row of stride 8 (72
        channels of V3-Small) instead of the last row of stride 4 (16 channels).
    dropout_rate: in [0, 1), before the classifier.
    full_resolution: logits at the image's size, else at that of the last features.
    classifier_activation: any Keras activation, such as "softmax"; None gives logits.
    weights: "voc" (torchvision's, with aspp_rates=(12, 24, 36) and refine=True on
        MobileNetV3Large(output_stride=16, weights="voc")), the path of a segmenter's file, or None.
        They replace the backbone's weights too.
    labels: class names, "background" included. Classes that "voc" has by these names keep their
        weights; without names only a head of 21 classes keeps any. See `kzoo.load_weights`.

    Raises ValueError for arguments out of range and an input size of None, since the pooled
    features are broadcast to a map of fixed size.
    Source: https://arxiv.org/abs/1706.05587, and https://arxiv.org/abs/1802.02611 (V3+).
    """
    check(classes, norm_momentum, filters=filters)
    rates = tuple(aspp_rates)
    fits = all(is_whole(rate) and rate >= 1 for rate in rates)
    require("aspp_rates", aspp_rates, fits, "whole numbers >= 1")
    fits = is_number(dropout_rate) and 0 <= dropout_rate < 1
    require("dropout_rate", dropout_rate, fits, "a number in [0, 1)")
    net = Net(norm_momentum=norm_momentum)
    x, stride = high_features(backbone)
    if None in sides(x):
        raise ValueError(
            "DeepLabV3 needs an input of fixed size, and the backbone's is "
            f"{backbone.inputs[0].shape[1:]}. Build it with input_shape=(512, 512, 3), for example."
        )
    x = aspp(x, net, filters, rates)
    x = net.conv(x, filters, act="relu", name="aspp_project", last="aspp_out")
    if refine:
        x = net.conv(x, filters, 3, act="relu", name="aspp_refine", last="aspp_refine_out")
    if decoder:
        low = expansion_at(backbone, 4) if fine else rows_at(backbone, 4)[-1]
        x, stride = decode(x, low, net, filters, "decoder_fine" if fine else "decoder_low"), 4
    x = layers.Dropout(dropout_rate, name="classify_dropout")(x)
    x = layers.Conv2D(classes, 1, name="classify" if full_resolution else "logits")(x)
    if full_resolution:
        x = resized(x, sides(backbone.inputs[0]), stride, "logits")
    return finished(
        backbone, x, classifier_activation, name or f"{backbone.name}_deeplabv3", weights, labels
    )


def aspp(x: Tensor, net: Net, filters: int, rates: tuple[int, ...]) -> Tensor:
    """Return the concatenated branches of ASPP, in TF-DeepLab's order."""
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name="aspp_pool")(x)
    pooled = net.conv(pooled, filters, act="relu", name="aspp_pool_conv", last="aspp_pool_out")
    branches = [resized(pooled, sides(x), None, "aspp_pool_up")]
    branches.append(net.conv(x, filters, act="relu", name="aspp_point", last="aspp_point_out"))
    for rate in rates:
        name = f"aspp_rate{rate}"
        y = layers.Conv2D(
            filters, 3, padding="same", dilation_rate=rate, use_bias=False, name=name
        )(x)
        branches.append(net.norm_act(y, "relu", name, f"{name}_out"))
    return layers.Concatenate(channel_axis(), name="aspp_concat")(branches)


def decode(x: Tensor, low: Tensor, net: Net, filters: int, name: str) -> Tensor:
    """Return `x` upsampled to the size of the shallow features `low` and merged with them.

    `name` is that of the 1 x 1 convolution of `low`.
    """
    low = net.conv(low, LOW_FILTERS, act="relu", name=name, last=f"{name}_out")
    x = resized(x, sides(low), None, "decoder_up")
    x = layers.Concatenate(channel_axis(), name="decoder_concat")([x, low])
    for i in (1, 2):
        x = net.depthwise(x, 3, act="relu", name=f"decoder_depthwise{i}")
        x = net.conv(x, filters, act="relu", name=f"decoder_conv{i}", last=f"decoder_out{i}")
    return x
