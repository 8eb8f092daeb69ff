"""MobileNetV1: https://arxiv.org/abs/1704.04861, Table 1."""

from typing import Unpack

import keras

from kzoo.backbones.build import Options, build, documented
from kzoo.backbones.rows import Conv, Head, Row, Separable
from kzoo.registry import register

#         kernel  out stride
ROWS: tuple[Row, ...] = (
    Conv(     3,   32, 2, multiple=1),
    Separable(3,   64, 1),
    Separable(3,  128, 2),
    Separable(3,  128, 1),
    Separable(3,  256, 2),
    Separable(3,  256, 1),
    Separable(3,  512, 2),
    Separable(3,  512, 1),
    Separable(3,  512, 1),
    Separable(3,  512, 1),
    Separable(3,  512, 1),
    Separable(3,  512, 1),
    Separable(3, 1024, 2),
    Separable(3, 1024, 1),
)  # fmt: skip


@register("mobilenet_v1")
@documented
def MobileNetV1(alpha: float = 1.0, **options: Unpack[Options]) -> keras.Model:
    """MobileNetV1: depthwise separable convolutions. 4,231,976 parameters at alpha 1.

    Source: https://arxiv.org/abs/1704.04861; widths, layers and weights as in keras.applications.
    """
    return build("mobilenet_v1", ROWS, Head(), alpha, **options)
