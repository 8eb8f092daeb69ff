"""SSDLite: depthwise separable heads on six feature maps of a MobileNet.

Source: https://arxiv.org/abs/1801.04381, section 6.2, and https://arxiv.org/abs/1905.02244, section
6.3; layers as in torchvision's ssdlite320_mobilenet_v3_large, 3,440,060 parameters at 320 px.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from kzoo.arguments import is_number, is_whole, one_of, require
from kzoo.backbones.build import ASIDE, pyramid
from kzoo.backbones.rows import Net
from kzoo.detection.anchors import Anchors
from kzoo.detection.detector import Detector
from kzoo.detection.losses import BOX_LOSSES, LOSSES
from kzoo.preprocessing import Tensor

HEAD_DEVIATION = 0.03  # of a new head's weights (torchvision, TF Object Detection)


def SSDLite(
    backbone: keras.Model, classes: int, *, extras: Sequence[int] = (512, 256, 256, 128),
    loss: str = "hnm", box_loss: str = "smooth_l1", ratios: Sequence[float] = (2, 3),
    scales: tuple[float, float] = (0.2, 0.95), reduced_first: bool = False,
    norm_momentum: float = 0.97, name: str | None = None,
) -> Detector:  # fmt: skip
    """A detector of `classes` kinds of objects on a kzoo backbone.

    backbone: built with include_top=False and a fixed input_shape, and, where it is to be small and
        fast, V3 with reduced_tail=True. 320 px are usual.
    classes: objects only. Where the loss wants background, the head adds it.
    extras: channels of the feature maps below the backbone's; the published nets have these at
        alpha 1, and alpha times as many, 16 at least, at others.
    loss: of the classes. "hnm" is softmax with three hard negatives for each positive (torchvision,
        TF's V2); "focal" is sigmoid focal loss (TF's V3).
    box_loss: "smooth_l1", of the codes; "giou", "diou" or "ciou", of the boxes.
    ratios, scales, reduced_first: of the anchors, see `kzoo.Anchors`. TF's configs have
        reduced_first=True.
    norm_momentum: in [0, 1), of the head's batch normalization; .9 for runs of some hundred steps.

    Feature maps are the expansion in the first row at stride 32, which still has stride 16 (of V1,
    which expands nothing, what that row reads), the backbone's last, and one half as large for each
    of `extras`. Raises ValueError for arguments that make no sense, for a backbone without such
    maps, and under Keras' "channels_first" image data format.
    """
    one_of("loss", loss, tuple(LOSSES))
    one_of("box_loss", box_loss, tuple(BOX_LOSSES))
    check(classes, norm_momentum)
    check_maps(extras, ratios, scales)
    classes = int(classes)  # NumPy's too: a saved detector holds it in JSON
    maps = [tap(backbone), backbone.output]
    # The head pads as the backbone does, which its weights decide.
    padded = any(isinstance(layer, layers.ZeroPadding2D) for layer in backbone.layers)
    net = Net(padding="symmetric" if padded else "same", norm_momentum=norm_momentum)
    normal = keras.initializers.RandomNormal(stddev=HEAD_DEVIATION)
    for i, width in enumerate(extras):
        maps.append(extra(maps[-1], int(width), net, f"extra{i}"))
    first, last = map(float, scales)
    anchors = Anchors(
        tuple((x.shape[1], x.shape[2]) for x in maps), tuple(map(float, ratios)), (first, last),
        reduced_first,
    )  # fmt: skip
    kind = LOSSES[loss]
    bias = keras.initializers.Constant(math.log(kind.prior / (1 - kind.prior)))
    columns = {"boxes": (4, "zeros"), "logits": (classes + kind.background, bias)}
    outputs = {}
    for output, (width, initial) in columns.items():
        parts = []
        for level, x in enumerate(maps):
            prefix = f"{output}{level}"
            x = net.depthwise(x, 3, act="relu6", name=f"{prefix}_depthwise")
            x = layers.Conv2D(
                width * len(anchors.shapes(level)), 1, kernel_initializer=normal,
                bias_initializer=initial, name=f"{prefix}_project",
            )(x)  # fmt: skip
            parts.append(layers.Reshape((-1, width), name=f"{prefix}_flat")(x))
        outputs[output] = stacked(parts, output)
    return Detector(
        backbone.input, outputs, classes=classes, anchors=anchors, loss=loss, box_loss=box_loss,
        name=name or f"ssdlite_{backbone.name}",
    )  # fmt: skip


def check(classes: int, norm_momentum: float) -> None:
    require("classes", classes, is_whole(classes) and classes >= 1, "a whole number >= 1")
    fits = is_number(norm_momentum) and 0 <= norm_momentum < 1
    require("norm_momentum", norm_momentum, fits, "a number in [0, 1)")


def check_maps(extras: Any, ratios: Any, scales: Any) -> None:
    """Of the feature maps below the backbone's, and of the anchors on all of them."""
    fits = is_list(extras) and all(is_whole(width) and width >= 2 for width in extras)  # halved
    require("extras", extras, fits, "a list of whole numbers >= 2")
    fits = is_list(ratios) and all(is_number(r) and 0 < r < math.inf for r in ratios)
    require("ratios", ratios, fits, "a list of numbers > 0")
    fits = is_list(scales) and len(scales) == 2 and all(map(is_number, scales))
    fits = fits and 0 < scales[0] < scales[1] <= 1
    require("scales", scales, fits, "two numbers, 0 < first < last <= 1")


def is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def stacked(parts: list[Tensor], name: str) -> Tensor:
    """The parts (N, A, C) one below the other, four at a time: XNNPACK joins no more in one."""
    while len(parts) > 4:
        joined = layers.Concatenate(axis=1, name=f"{name}_{len(parts) - 4}_on")(parts[-4:])
        parts = [*parts[:-4], joined]
    return layers.Concatenate(axis=1, name=name)(parts) if len(parts) > 1 else parts[0]


def extra(x: Tensor, width: int, net: Net, name: str) -> Tensor:
    """Half the channels, a depthwise convolution of stride 2, all the channels."""
    x = net.conv(x, width // 2, act="relu6", name=f"{name}_reduce")
    x = net.depthwise(x, 3, 2, "relu6", name=f"{name}_depthwise")
    return net.conv(x, width, act="relu6", name=f"{name}_expand")


def tap(backbone: keras.Model) -> Any:
    """The last map at stride 16: the expansion in the first row at stride 32, of V1 its input."""
    shape = getattr(backbone, "output_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        raise ValueError(
            "SSDLite takes a backbone with a fixed input size and features (N, H, W, C): "
            "kzoo.MobileNetV3Small(input_shape=(320, 320, 3), include_top=False). Received: "
            f"{getattr(backbone, 'name', backbone)!r} with output {shape}"
        )
    formats = {getattr(layer, "data_format", None) for layer in backbone.layers}
    if "channels_first" in formats | {keras.config.image_data_format()}:
        raise ValueError(
            'SSDLite is for Keras\' image data format "channels_last". Received: "channels_first". '
            'Call keras.config.set_image_data_format("channels_last"), then build the backbone.'
        )
    stride = 1
    for layer in backbone.layers:
        row = re.fullmatch(r"(row\d+)_(\w+)", layer.name)
        if row and hasattr(layer, "strides") and row[2] not in ASIDE:
            stride *= layer.strides[0]
            if stride == 32:
                names = [other.name for other in backbone.layers]
                name = f"{row[1]}_expand_act"
                return backbone.get_layer(name).output if name in names else pyramid(backbone)["P4"]
    raise ValueError(
        f"{backbone.name!r} has no row at stride 32, in which SSDLite reads its first map. Build "
        "the backbone with kzoo and output_stride=32."
    )
