"""SSDLite: depthwise separable heads on feature maps of a MobileNet.

Source: https://arxiv.org/abs/1801.04381, section 6.2, and https://arxiv.org/abs/1905.02244, section
6.3; layers as in torchvision's ssdlite320_mobilenet_v3_large, 3,440,060 parameters at 320 px.
"""

import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from kzoo.arguments import is_number, is_whole, one_of, require
from kzoo.backbones.build import ASIDE, pyramid
from kzoo.backbones.rows import Net
from kzoo.detection.anchors import FIRST, LAST, Anchors
from kzoo.detection.detector import Detector
from kzoo.detection.losses import BOX_LOSSES, LOSSES
from kzoo.preprocessing import Tensor
from kzoo.weights.loading import load_weights

MakeAnchors = Anchors | Callable[[tuple[tuple[int, int], ...]], Anchors]
LEVELS = ((4, 5), (3, 4, 5))
HEAD_DEVIATION = 0.03  # of a new head's weights (torchvision, TF Object Detection)


def SSDLite(
    backbone: keras.Model, classes: int, *, extras: Sequence[int] = (512, 256, 256, 128),
    loss: str = "hnm", box_loss: str = "smooth_l1", ratios: Sequence[float] = (2, 3),
    scales: tuple[float, float] = (FIRST, LAST), reduced_first: bool = False,
    balance: float = 0.0, levels: Sequence[int] = (4, 5), anchors: MakeAnchors | None = None,
    separable: bool = True, norm_momentum: float = 0.97,
    weights: str | os.PathLike[str] | None = None, labels: Sequence[str] | None = None,
    name: str | None = None,
) -> Detector:  # fmt: skip
    """Return an SSDLite `Detector` of `classes` classes on a kzoo backbone.

        backbone = kzoo.MobileNetV3Small(input_shape=(320, 320, 3), include_top=False)
        detector = kzoo.SSDLite(backbone, classes=3)

    backbone: built with include_top=False and a fixed input_shape, usually of 320 px. For a small
        and fast detector use V3 with reduced_tail=True. A shape such as (240, 320, 3) does not
        distort photos of that aspect ratio; square anchors are square in px there too.
    classes: number of object classes; with loss="hnm" the head adds background.
    extras: channels of the additional feature maps, each half as large as the one before. The
        published nets have these at alpha 1, and alpha times as many, 16 at least, at others.
    loss: of the classes. "hnm" is softmax cross-entropy with three hard negatives for each positive
        (torchvision, TF's V2); "focal" is sigmoid focal loss (TF's V3).
    box_loss: "smooth_l1", of the encoded boxes; "giou", "diou" or "ciou", of the decoded boxes;
        "smooth_l1_giou", a weighted sum of the two.
    balance: in [0, 1]. 0 weighs all anchors alike, as published; 1 weighs all objects alike, so
        that small ones, which match few anchors, count as much as large ones. See
        `kzoo.detection.losses.anchor_weights`.
    ratios, scales, reduced_first: of the anchors, see `kzoo.Anchors`. TF's configs have
        reduced_first=True.
    levels: of the backbone's feature maps, level L having stride 2^L: (4, 5), or (3, 4, 5) for
        objects smaller than a tenth of the image's side: 7 % more MACs, 20 % more time in int8.
    anchors: a `kzoo.Anchors`, or a function that returns one for the maps' (H, W), such as
        `functools.partial(kzoo.Anchors.fit, boxes)`, in place of ratios, scales, reduced_first;
        with `aspect=4 / 3` for an input of (240, 320).
    separable: False for SSD as in TF Object Detection: 1x1 convolutions alone as predictors, and
        full 3x3 convolutions between the maps. Its files load into
        `SSDLite(MobileNetV2(...), classes, separable=False, loss="focal",
        anchors=functools.partial(kzoo.Anchors, reduced_first=True, clipped=False))`.
    norm_momentum: in [0, 1), of the head's batch normalization; .9 for runs of a few hundred steps.
    weights: "coco" (torchvision's, for MobileNetV3Large(reduced_tail=True, weights="coco")), the
        path of a detector's file, or None. They replace the backbone's weights too.
    labels: class names. Classes that "coco" has by these names keep their weights; without names
        only a head of 90 classes keeps any. See `kzoo.load_weights`.

    The feature maps are: the expansion in the first row of stride 32, which still has stride 16
    (in V1, which has no expansion, the input of that row); the backbone's output; and `extras`.
    Level 3 is the expansion in the first row of stride 16. Raises ValueError for arguments out of
    range, a backbone without such maps, and Keras' "channels_first" image data format.
    """
    one_of("loss", loss, tuple(LOSSES))
    one_of("box_loss", box_loss, tuple(BOX_LOSSES))
    check(classes, norm_momentum)
    check_maps(extras, ratios, scales)
    classes = int(classes)  # NumPy's too: a saved detector holds it in JSON
    fits = is_list(levels) and tuple(levels) in LEVELS
    require("levels", levels, fits, " or ".join(map(str, LEVELS)))
    features(backbone)
    maps = [*(tap(backbone, level) for level in levels[:-1]), backbone.output]
    # The head pads as the backbone does, which its weights decide.
    padded = any(isinstance(layer, layers.ZeroPadding2D) for layer in backbone.layers)
    net = Net(padding="symmetric" if padded else "same", norm_momentum=norm_momentum)
    normal = keras.initializers.RandomNormal(stddev=HEAD_DEVIATION)
    for i, width in enumerate(extras):
        maps.append(extra(maps[-1], int(width), net, f"extra{i}", separable))
    first, last = map(float, scales)
    grids = tuple((x.shape[1], x.shape[2]) for x in maps)
    if anchors is None:
        height, width = backbone.input_shape[1:3]
        anchors = Anchors(
            grids, tuple(map(float, ratios)), (first, last), reduced_first, aspect=width / height
        )
    elif not isinstance(anchors, Anchors):
        anchors = anchors(grids)
    if anchors.grids != grids:
        raise ValueError(
            f"The anchors must be for feature maps of {grids}. Received: anchors for "
            f"{anchors.grids}. Pass functools.partial(kzoo.Anchors.fit, boxes) to fit them here."
        )
    kind = LOSSES[loss]
    bias = keras.initializers.Constant(math.log(kind.prior / (1 - kind.prior)))
    columns = {"boxes": (4, "zeros"), "logits": (classes + kind.background, bias)}
    outputs = {}
    for output, (width, initial) in columns.items():
        parts = []
        for level, x in enumerate(maps):
            prefix = f"{output}{level}"
            if separable:
                x = net.depthwise(x, 3, act="relu6", name=f"{prefix}_depthwise")
            x = layers.Conv2D(
                width * len(anchors.shapes(level)), 1, kernel_initializer=normal,
                bias_initializer=initial, name=f"{prefix}_project",
            )(x)  # fmt: skip
            parts.append(layers.Reshape((-1, width), name=f"{prefix}_flat")(x))
        outputs[output] = stacked(parts, output)
    detector = Detector(
        backbone.input, outputs, classes=classes, anchors=anchors, loss=loss, box_loss=box_loss,
        balance=balance, name=name or f"ssdlite_{backbone.name}",
    )  # fmt: skip
    if weights is not None:
        detector.loaded_weights = load_weights(detector, weights, labels=labels)
    return detector


def check(classes: int, norm_momentum: float) -> None:
    require("classes", classes, is_whole(classes) and classes >= 1, "a whole number >= 1")
    fits = is_number(norm_momentum) and 0 <= norm_momentum < 1
    require("norm_momentum", norm_momentum, fits, "a number in [0, 1)")


def check_maps(extras: Any, ratios: Any, scales: Any) -> None:
    """Raise ValueError for wrong channels of the extra feature maps, or wrong anchor settings."""
    # `extra` halves the channels, so 2 is the least.
    fits = is_list(extras) and all(is_whole(width) and width >= 2 for width in extras)
    require("extras", extras, fits, "a list of whole numbers >= 2")
    fits = is_list(ratios) and all(is_number(r) and 0 < r < math.inf for r in ratios)
    require("ratios", ratios, fits, "a list of numbers > 0")
    fits = is_list(scales) and len(scales) == 2 and all(map(is_number, scales))
    fits = fits and 0 < scales[0] < scales[1] <= 1
    require("scales", scales, fits, "two numbers, 0 < first < last <= 1")


def is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def stacked(parts: list[Tensor], name: str) -> Tensor:
    """Return the parts (N, A, C) concatenated along axis 1, by four: XNNPACK's limit of inputs."""
    while len(parts) > 4:
        joined = layers.Concatenate(axis=1, name=f"{name}_{len(parts) - 4}_on")(parts[-4:])
        parts = [*parts[:-4], joined]
    return layers.Concatenate(axis=1, name=name)(parts) if len(parts) > 1 else parts[0]


def extra(x: Tensor, width: int, net: Net, name: str, separable: bool) -> Tensor:
    """Return a feature map of half the size: 1x1 to width / 2, depthwise 3x3 stride 2, 1x1.

    If not `separable`, one 3x3 convolution of stride 2 replaces the last two.
    """
    x = net.conv(x, width // 2, act="relu6", name=f"{name}_reduce")
    if not separable:
        return net.conv(x, width, 3, 2, "relu6", name=f"{name}_expand")
    x = net.depthwise(x, 3, 2, "relu6", name=f"{name}_depthwise")
    return net.conv(x, width, act="relu6", name=f"{name}_expand")


def features(backbone: keras.Model) -> None:
    """Raise ValueError unless a backbone ends in (N, H, W, C) of known size, channels last."""
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


def tap(backbone: keras.Model, level: int) -> Any:
    """Return the last feature map of stride 2^level: the expansion in the next stage's first row.

    In V1, whose rows have no expansion, the input of that row. Raises ValueError without one.
    """
    stride, wanted = 1, 2 ** (level + 1)
    names = {layer.name for layer in backbone.layers}
    for layer in backbone.layers:
        row = re.fullmatch(r"(row\d+)_(\w+)", layer.name)
        if row and hasattr(layer, "strides") and row[2] not in ASIDE:
            stride *= layer.strides[0]
            if stride == wanted:
                name = f"{row[1]}_expand_act"
                inside = name in names
                return backbone.get_layer(name).output if inside else pyramid(backbone)[f"P{level}"]
    raise ValueError(
        f"{backbone.name!r} has no row at stride {wanted}, which SSDLite needs. Build the "
        "backbone with kzoo and output_stride=32."
    )
