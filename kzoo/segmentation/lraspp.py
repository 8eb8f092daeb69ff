"""LR-ASPP segmentation head on any backbone of the zoo."""

import os
from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import layers

from kzoo.arguments import one_of
from kzoo.backbones.rows import Net
from kzoo.preprocessing import Tensor
from kzoo.segmentation.features import (
    check,
    expansion_at,
    finished,
    high_features,
    resized,
    rows_at,
    sides,
)

# Kernel and strides of LR-ASPP's pooling on maps of 64 x 128: MobileNetV3's paper, section 6.4.
PAPER_POOL, PAPER_STRIDES = (49, 49), (16, 20)


def LRASPP(
    backbone: keras.Model,
    classes: int,
    *,
    filters: int = 128,
    pool: Literal["global", "paper"] = "global",
    fine: bool = False,
    full_resolution: bool = True,
    classifier_activation: Any = None,
    norm_momentum: float = 0.99,
    weights: str | os.PathLike[str] | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
) -> keras.Model:
    """Return a segmenter with a Lite R-ASPP head: output (N, H, W, classes).

    Deep features gated by a global context vector are added to shallow features at 1/8 of the
    image's size. 3,221,538 parameters on MobileNetV3Large(output_stride=16) with 21 classes, as in
    torchvision.

    backbone: a kzoo backbone built with include_top=False.
    classes: number of classes, background included.
    filters: channels of the deep features.
    pool: of the gate. "global" averages the whole map and runs in int8 in XNNPACK; "paper" is
        49 x 49 with strides 16 and 20, which is the same on maps up to 49 x 49.
    fine: add features at 1/4 too, for thin objects: the expansion in the first row of stride 8.
    full_resolution: logits at the image's size, else at 1/8 of it, 1/4 with `fine`.
    classifier_activation: any Keras activation, such as "softmax"; None gives logits.
    weights: "voc" (torchvision's, on MobileNetV3Large(output_stride=16, weights="voc")), the path
        of a segmenter's file, or None. They replace the backbone's weights too.
    labels: class names, "background" included. Classes that "voc" has by these names keep their
        weights; without names only a head of 21 classes keeps any. See `kzoo.load_weights`.

    The input's sides may be None; images must then have sides that are multiples of 32.
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
    # The published nets upsample, then classify. Both are linear, so the result is the same, and
    # only the classes' channels are upsampled: 21 instead of 128.
    x = layers.Conv2D(classes, 1, name="lraspp_classify_high")(x)
    x = resized(x, sides(low), stride // 8, "lraspp_up")
    low = layers.Conv2D(classes, 1, name="lraspp_classify_low")(low)
    last = not (full_resolution or fine)
    x = layers.Add(name="logits" if last else "lraspp_sum")([x, low])
    if fine:
        low = expansion_at(backbone, 4)
        x = resized(x, sides(low), 2, "lraspp_fine_up")
        low = layers.Conv2D(classes, 1, name="lraspp_classify_fine")(low)
        x = layers.Add(name="lraspp_fine_sum" if full_resolution else "logits")([x, low])
    if full_resolution:
        x = resized(x, sides(backbone.inputs[0]), 4 if fine else 8, "logits")
    return finished(
        backbone, x, classifier_activation, name or f"{backbone.name}_lraspp", weights, labels
    )


def paper_pool(x: Tensor) -> Tensor:
    height, width = sides(x)
    if height is None or width is None:
        raise ValueError(
            'pool="paper" needs an input of fixed size. Build the backbone with '
            'input_shape=(512, 512, 3), for example, or use pool="global".'
        )
    kernel = min(PAPER_POOL[0], height), min(PAPER_POOL[1], width)
    return layers.AveragePooling2D(kernel, PAPER_STRIDES, name="lraspp_pool")(x)
