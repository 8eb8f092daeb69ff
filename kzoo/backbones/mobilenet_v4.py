"""MobileNetV4: https://arxiv.org/abs/2404.10518, Tables 11 to 15 as timm has them.

The hybrids' attention reads each image as a whole: their input must have a fixed size.
"""

from typing import Unpack

import keras

from kzoo.backbones.attention import MultiQuery
from kzoo.backbones.build import Options, build, documented
from kzoo.backbones.rows import Conv, Fused, Head, Row, Uib, change
from kzoo.registry import register

LAYER_SCALE = 1e-5  # of the hybrids' residuals; timm

# `start` and `middle` are the kernels of the depthwise convolutions before the expansion and after
# it, 0 where there is none. The paper calls (k, k) ExtraDW, (0, k) IB, (k, 0) ConvNext, (0, 0) FFN.
CONV_SMALL: tuple[Row, ...] = (
    Conv(3,  32, 2, "relu", scale="up"),
    Conv(3,  32, 2, "relu"),
    Conv(1,  32, 1, "relu"),
    Conv(3,  96, 2, "relu"),
    Conv(1,  64, 1, "relu"),
    #   start middle expand out stride
    Uib(5, 5, 3,  96, 2),
    Uib(0, 3, 2,  96),
    Uib(0, 3, 2,  96),
    Uib(0, 3, 2,  96),
    Uib(0, 3, 2,  96),
    Uib(3, 0, 4,  96),
    Uib(3, 3, 6, 128, 2),
    Uib(5, 5, 4, 128),
    Uib(0, 5, 4, 128),
    Uib(0, 5, 3, 128),
    Uib(0, 3, 4, 128),
    Uib(0, 3, 4, 128),
    Conv(1, 960, 1, "relu"),
)  # fmt: skip

CONV_MEDIUM: tuple[Row, ...] = (
    Conv(3,  32, 2, "relu", scale="up"),
    Fused(3, 4, 48, 2),
    Uib(3, 5, 4,  80, 2),
    Uib(3, 3, 2,  80),
    Uib(3, 5, 6, 160, 2),
    Uib(3, 3, 4, 160),
    Uib(3, 3, 4, 160),
    Uib(3, 5, 4, 160),
    Uib(3, 3, 4, 160),
    Uib(3, 0, 4, 160),
    Uib(0, 0, 2, 160),
    Uib(3, 0, 4, 160),
    Uib(5, 5, 6, 256, 2),
    Uib(5, 5, 4, 256),
    Uib(3, 5, 4, 256),
    Uib(3, 5, 4, 256),
    Uib(0, 0, 4, 256),
    Uib(3, 0, 4, 256),
    Uib(3, 5, 2, 256),
    Uib(5, 5, 4, 256),
    Uib(0, 0, 4, 256),
    Uib(0, 0, 4, 256),
    Uib(5, 0, 2, 256),
    Conv(1, 960, 1, "relu"),
)  # fmt: skip

CONV_LARGE: tuple[Row, ...] = (
    Conv(3,  24, 2, "relu", scale="up"),
    Fused(3, 4, 48, 2),
    Uib(3, 5, 4,  96, 2),
    Uib(3, 3, 4,  96),
    Uib(3, 5, 4, 192, 2),
    Uib(3, 3, 4, 192),
    Uib(3, 3, 4, 192),
    Uib(3, 3, 4, 192),
    Uib(3, 5, 4, 192),
    Uib(5, 3, 4, 192),
    Uib(5, 3, 4, 192),
    Uib(5, 3, 4, 192),
    Uib(5, 3, 4, 192),
    Uib(5, 3, 4, 192),
    Uib(3, 0, 4, 192),
    Uib(5, 5, 4, 512, 2),
    Uib(5, 5, 4, 512),
    Uib(5, 5, 4, 512),
    Uib(5, 5, 4, 512),
    Uib(5, 0, 4, 512),
    Uib(5, 3, 4, 512),
    Uib(5, 0, 4, 512),
    Uib(5, 0, 4, 512),
    Uib(5, 3, 4, 512),
    Uib(5, 5, 4, 512),
    Uib(5, 0, 4, 512),
    Uib(5, 0, 4, 512),
    Uib(5, 0, 4, 512),
    Conv(1, 960, 1, "relu"),
)  # fmt: skip

HYBRID_MEDIUM: tuple[Row, ...] = (
    Conv(3,  32, 2, "relu", scale="up"),
    Fused(3, 4, 48, 2),
    Uib(3, 5, 4,  80, 2),
    Uib(3, 3, 2,  80),
    Uib(3, 5, 6, 160, 2),
    Uib(0, 0, 2, 160),
    Uib(3, 3, 4, 160),
    Uib(3, 5, 4, 160),
    #      heads width shrink
    MultiQuery(4, 64, 2),
    Uib(3, 3, 4, 160),
    MultiQuery(4, 64, 2),
    Uib(3, 0, 4, 160),
    MultiQuery(4, 64, 2),
    Uib(3, 3, 4, 160),
    MultiQuery(4, 64, 2),
    Uib(3, 0, 4, 160),
    Uib(5, 5, 6, 256, 2),
    Uib(5, 5, 4, 256),
    Uib(3, 5, 4, 256),
    Uib(3, 5, 4, 256),
    Uib(0, 0, 2, 256),
    Uib(3, 5, 2, 256),
    Uib(0, 0, 2, 256),
    Uib(0, 0, 4, 256),
    MultiQuery(4, 64),
    Uib(3, 0, 4, 256),
    MultiQuery(4, 64),
    Uib(5, 5, 4, 256),
    MultiQuery(4, 64),
    Uib(5, 0, 4, 256),
    MultiQuery(4, 64),
    Uib(5, 0, 4, 256),
    Conv(1, 960, 1, "relu"),
)  # fmt: skip

HYBRID_LARGE: tuple[Row, ...] = (
    Conv(3,  24, 2, "relu", scale="up"),
    Fused(3, 4, 48, 2),
    Uib(3, 5, 4,  96, 2),
    Uib(3, 3, 4,  96),
    Uib(3, 5, 4, 192, 2),
    Uib(3, 3, 4, 192),
    Uib(3, 3, 4, 192),
    Uib(3, 3, 4, 192),
    Uib(3, 5, 4, 192),
    Uib(5, 3, 4, 192),
    Uib(5, 3, 4, 192),
    MultiQuery(8, 48, 2),
    Uib(5, 3, 4, 192),
    MultiQuery(8, 48, 2),
    Uib(5, 3, 4, 192),
    MultiQuery(8, 48, 2),
    Uib(5, 3, 4, 192),
    MultiQuery(8, 48, 2),
    Uib(3, 0, 4, 192),
    Uib(5, 5, 4, 512, 2),
    Uib(5, 5, 4, 512),
    Uib(5, 5, 4, 512),
    Uib(5, 5, 4, 512),
    Uib(5, 0, 4, 512),
    Uib(5, 3, 4, 512),
    Uib(5, 0, 4, 512),
    Uib(5, 0, 4, 512),
    Uib(5, 3, 4, 512),
    Uib(5, 5, 4, 512),
    MultiQuery(8, 64),
    Uib(5, 0, 4, 512),
    MultiQuery(8, 64),
    Uib(5, 0, 4, 512),
    MultiQuery(8, 64),
    Uib(5, 0, 4, 512),
    MultiQuery(8, 64),
    Uib(5, 0, 4, 512),
    Conv(1, 960, 1, "relu"),
)  # fmt: skip


def mobilenet_v4(
    name: str, rows: tuple[Row, ...], alpha: float, options: Options, act: str = "relu"
) -> keras.Model:
    """Return a MobileNetV4 of these rows, with `act` as all activations."""
    rows = tuple(change(row, act=act) for row in rows)
    return build(name, rows, Head(1280, act, norm=True), alpha, **options)


def scaled(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Return the rows with a learned layer scale on each residual, initially `LAYER_SCALE`."""
    return tuple(change(row, layer_scale=LAYER_SCALE) for row in rows)


@register("mobilenet_v4_conv_small")
@documented
def MobileNetV4ConvSmall(alpha: float = 1.0, **options: Unpack[Options]) -> keras.Model:
    """MobileNetV4-Conv-Small. 3,774,024 parameters at alpha 1.

    Source: https://arxiv.org/abs/2404.10518; layers and weights as in timm.
    """
    return mobilenet_v4("mobilenet_v4_conv_small", CONV_SMALL, alpha, options)


@register("mobilenet_v4_conv_medium")
@documented
def MobileNetV4ConvMedium(alpha: float = 1.0, **options: Unpack[Options]) -> keras.Model:
    """MobileNetV4-Conv-Medium. 9,715,512 parameters at alpha 1.

    Source: https://arxiv.org/abs/2404.10518; layers and weights as in timm.
    """
    return mobilenet_v4("mobilenet_v4_conv_medium", CONV_MEDIUM, alpha, options)


@register("mobilenet_v4_conv_large")
@documented
def MobileNetV4ConvLarge(alpha: float = 1.0, **options: Unpack[Options]) -> keras.Model:
    """MobileNetV4-Conv-Large. 32,590,864 parameters at alpha 1.

    Source: https://arxiv.org/abs/2404.10518; layers and weights as in timm.
    """
    return mobilenet_v4("mobilenet_v4_conv_large", CONV_LARGE, alpha, options)


@register("mobilenet_v4_hybrid_medium")
@documented
def MobileNetV4HybridMedium(alpha: float = 1.0, **options: Unpack[Options]) -> keras.Model:
    """MobileNetV4-Hybrid-Medium, with attention. 11,074,648 parameters at alpha 1.

    Source: https://arxiv.org/abs/2404.10518; layers and weights as in timm.
    """
    return mobilenet_v4("mobilenet_v4_hybrid_medium", scaled(HYBRID_MEDIUM), alpha, options)


@register("mobilenet_v4_hybrid_large")
@documented
def MobileNetV4HybridLarge(alpha: float = 1.0, **options: Unpack[Options]) -> keras.Model:
    """MobileNetV4-Hybrid-Large, with attention and GELU. 37,764,624 parameters at alpha 1.

    Source: https://arxiv.org/abs/2404.10518; layers and weights as in timm.
    """
    return mobilenet_v4("mobilenet_v4_hybrid_large", scaled(HYBRID_LARGE), alpha, options, "gelu")
