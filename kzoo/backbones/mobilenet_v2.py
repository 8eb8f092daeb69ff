"""MobileNetV2: https://arxiv.org/abs/1801.04381, Table 2."""

import dataclasses
from typing import Unpack

import keras

from kzoo.backbones.build import Options, build, documented
from kzoo.backbones.rows import Bneck, Conv, Head, Row
from kzoo.registry import register

#   t    c  n  s      (expansion, channels, repeats, stride of the first)
TABLE = (
    (1,  16, 1, 1),
    (6,  24, 2, 2),
    (6,  32, 3, 2),
    (6,  64, 4, 2),
    (6,  96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip

# `whole` is keras.applications' rule, for V2's blocks only: 16 * 0.56 = 8.96 becomes 8, in V3 16.
ROWS: tuple[Row, ...] = (
    Conv(3, 32, 2),
    *(Bneck(3, t, c, s if i == 0 else 1, whole=True) for t, c, n, s in TABLE for i in range(n)),
    Conv(1, 1280, scale="up"),
)


@register("mobilenet_v2")
@documented
def MobileNetV2(
    alpha: float = 1.0, *, activation: str = "relu6", **options: Unpack[Options]
) -> keras.Model:
    """MobileNetV2: inverted residuals with linear bottlenecks. 3,504,872 parameters at alpha 1.

    `activation` replaces ReLU6 everywhere, for example by "relu".

    Source: https://arxiv.org/abs/1801.04381; widths, layers and weights as in keras.applications.
    """
    rows = tuple(dataclasses.replace(row, act=activation) for row in ROWS)
    return build("mobilenet_v2", rows, Head(), alpha, **options)
