"""Segmentation: LR-ASPP and DeepLabV3 (V3+ with `decoder`) on any backbone of the zoo.

Both take a backbone and return one flat functional model from its pictures to logits (N, H, W,
classes), a class for each pixel, background being one like any other. Build the backbone with
`include_top=False`, for which `output_stride=16` or 8 keeps maps from shrinking further: strides
become dilations. Resizing is bilinear between centers of pixels (PyTorch's align_corners=False).
"""

from typing import Any, Literal

import keras
from keras import layers

from kzoo.build import is_number, is_whole, one_of, require, row_outputs
from kzoo.rows import Net, Tensor, channel_axis, channels

# MobileNetV3's section 6.4: the kernel and the strides of LR-ASPP's pool on maps of 64 x 128.
PAPER_POOL, PAPER_STRIDES = (49, 49), (16, 20)
# Filters of the decoder's low-level features: section 3.2 of https://arxiv.org/abs/1802.02611.
LOW_FILTERS = 48


def LRASPP(
    backbone: keras.Model,
    classes: int,
    *,
    filters: int = 128,
    pool: Literal["global", "paper"] = "global",
    full_resolution: bool = True,
    classifier_activation: Any = None,
    norm_momentum: float = 0.99,
    name: str | None = None,
) -> keras.Model:
    """Lite R-ASPP: deep features, gated by what the whole picture holds, and shallow ones at 1/8.

    3,221,538 parameters on MobileNetV3Large(output_stride=16) with 21 classes, as torchvision's.

    filters: of the deep features.
    pool: "global", over the whole map, which runs in int8 in XNNPACK; or "paper", 49 x 49 with
        strides 16 and 20, which is the same on maps up to 49 x 49.
    full_resolution: logits at the picture's size, else at 1/8 of it.
    classifier_activation: any Keras activation, such as "softmax"; None gives logits.

    The input's sides may be left open (None); they must be multiples of 32 then.
    Source: https://arxiv.org/abs/1905.02244, section 6.4.
    """
    check(classes, norm_momentum, filters=filters)
    one_of("pool", pool, ("global", "paper"))
    net = Net(norm_momentum=norm_momentum)
    (high, stride), low = high_features(backbone), rows_at(backbone, 8)[0]
    x = net.conv(high, filters, act="relu", name="lraspp_high", last="lraspp_high_out")
    if pool == "global":
        gate = layers.GlobalAveragePooling2D(keepdims=True, name="lraspp_pool")(high)
    else:
        gate = paper_pool(high)
    gate = layers.Conv2D(filters, 1, use_bias=False, name="lraspp_gate")(gate)
    gate = layers.Activation("sigmoid", name="lraspp_gate_act")(gate)
    if pool == "paper":
        gate = resized(gate, sides(x), None, "lraspp_gate_up")
    x = layers.Multiply(name="lraspp_scale")([x, gate])
    # The published nets enlarge, then classify. Both are linear, so the order is free, and the
    # maps to enlarge are those of the classes: 21 channels in place of 128.
    x = layers.Conv2D(classes, 1, name="lraspp_classify_high")(x)
    x = resized(x, sides(low), stride // 8, "lraspp_up")
    low = layers.Conv2D(classes, 1, name="lraspp_classify_low")(low)
    x = layers.Add(name="lraspp_sum" if full_resolution else "logits")([x, low])
    if full_resolution:
        x = resized(x, sides(backbone.inputs[0]), 8, "logits")
    return finished(backbone, x, classifier_activation, name or f"{backbone.name}_lraspp")


def DeepLabV3(
    backbone: keras.Model,
    classes: int,
    *,
    aspp_rates: tuple[int, ...] = (),
    filters: int = 256,
    refine: bool = False,
    decoder: bool = False,
    dropout_rate: float = 0.1,
    full_resolution: bool = True,
    classifier_activation: Any = None,
    norm_momentum: float = 0.99,
    name: str | None = None,
) -> keras.Model:
    """DeepLabV3: deep features, those of the whole picture, and of dilated convolutions (ASPP).

    aspp_rates: of 3 x 3 convolutions beside the 1 x 1 one. None by default, as MobileNetV2's paper
        has it (section 6.3); (6, 12, 18) at output stride 16, (12, 24, 36) at 8 and in torchvision.
    filters: of each branch, and of their projection.
    refine: another 3 x 3 convolution after it, as torchvision has.
    decoder: V3+, with two separable convolutions at 1/4 of the picture's size.
    dropout_rate: in [0, 1), before the classifier.
    full_resolution: logits at the picture's size, else at that of the last features.
    classifier_activation: any Keras activation, such as "softmax"; None gives logits.

    The sides of the backbone's input must be fixed: the picture's mean is spread over the map.
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
        x, stride = decode(x, rows_at(backbone, 4)[-1], net, filters), 4
    x = layers.Dropout(dropout_rate, name="classify_dropout")(x)
    x = layers.Conv2D(classes, 1, name="classify" if full_resolution else "logits")(x)
    if full_resolution:
        x = resized(x, sides(backbone.inputs[0]), stride, "logits")
    return finished(backbone, x, classifier_activation, name or f"{backbone.name}_deeplabv3")


def aspp(x: Tensor, net: Net, filters: int, rates: tuple[int, ...]) -> Tensor:
    """Atrous spatial pyramid pooling: the branches side by side, in TF-DeepLab's order."""
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


def decode(x: Tensor, low: Tensor, net: Net, filters: int) -> Tensor:
    """`x` refined with shallow features, at their size."""
    low = net.conv(low, LOW_FILTERS, act="relu", name="decoder_low", last="decoder_low_out")
    x = resized(x, sides(low), None, "decoder_up")
    x = layers.Concatenate(channel_axis(), name="decoder_concat")([x, low])
    for i in (1, 2):
        x = net.depthwise(x, 3, act="relu", name=f"decoder_depthwise{i}")
        x = net.conv(x, filters, act="relu", name=f"decoder_conv{i}", last=f"decoder_out{i}")
    return x


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
            f"{backbone.name!r} has no row at stride {stride}, whose features this head reads: its "
            f"rows are at {', '.join(map(str, strides))}."
        )
    return at


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


def paper_pool(x: Tensor) -> Tensor:
    height, width = sides(x)
    if height is None or width is None:
        raise ValueError(
            'pool="paper" needs an input of fixed size. Build the backbone with '
            'input_shape=(512, 512, 3), for example, or use pool="global".'
        )
    kernel = min(PAPER_POOL[0], height), min(PAPER_POOL[1], width)
    return layers.AveragePooling2D(kernel, PAPER_STRIDES, name="lraspp_pool")(x)


def finished(backbone: keras.Model, x: Tensor, activation: Any, name: str) -> keras.Model:
    if activation is not None:
        x = layers.Activation(activation, dtype="float32", name="scores")(x)
    inputs = backbone.inputs
    model = keras.Model(inputs if len(inputs) > 1 else inputs[0], x, name=name)
    if hasattr(backbone, "loaded_weights"):
        model.loaded_weights = backbone.loaded_weights
    return model
