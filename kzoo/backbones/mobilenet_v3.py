"""MobileNetV3, Large and Small: https://arxiv.org/abs/1905.02244, Tables 1 and 2."""

from typing import Unpack

import keras

from kzoo.backbones.build import Options, build, documented, strides
from kzoo.backbones.rows import Bneck, Conv, Expand, Head, Row, SqueezeExcite, change
from kzoo.registry import register

RE, HS, SE = "relu", "hard_swish", SqueezeExcite()

# The stem is never scaled by alpha (keras.applications, TF-slim).
#         kernel  expand     out stride act  se
LARGE: tuple[Row, ...] = (
    Conv( 3,                 16,  2,    HS, scale="never"),
    Bneck(3,    16 / 16,     16,  1,    RE),
    Bneck(3,    64 / 16,     24,  2,    RE),
    Bneck(3,    72 / 24,     24,  1,    RE),
    Bneck(5,    72 / 24,     40,  2,    RE,  SE),
    Bneck(5,   120 / 40,     40,  1,    RE,  SE),
    Bneck(5,   120 / 40,     40,  1,    RE,  SE),
    Bneck(3,   240 / 40,     80,  2,    HS),
    Bneck(3,   200 / 80,     80,  1,    HS),
    Bneck(3,   184 / 80,     80,  1,    HS),
    Bneck(3,   184 / 80,     80,  1,    HS),
    Bneck(3,   480 / 80,    112,  1,    HS,  SE),
    Bneck(3,   672 / 112,   112,  1,    HS,  SE),
    Bneck(5,   672 / 112,   160,  2,    HS,  SE),
    Bneck(5,   960 / 160,   160,  1,    HS,  SE),
    Bneck(5,   960 / 160,   160,  1,    HS,  SE),
    Expand(    960 / 160,               HS),
)  # fmt: skip

SMALL: tuple[Row, ...] = (
    Conv( 3,                 16,  2,    HS, scale="never"),
    Bneck(3,    16 / 16,     16,  2,    RE,  SE),
    Bneck(3,    72 / 16,     24,  2,    RE),
    Bneck(3,    88 / 24,     24,  1,    RE),
    Bneck(5,    96 / 24,     40,  2,    HS,  SE),
    Bneck(5,   240 / 40,     40,  1,    HS,  SE),
    Bneck(5,   240 / 40,     40,  1,    HS,  SE),
    Bneck(5,   120 / 40,     48,  1,    HS,  SE),
    Bneck(5,   144 / 48,     48,  1,    HS,  SE),
    Bneck(5,   288 / 48,     96,  2,    HS,  SE),
    Bneck(5,   576 / 96,     96,  1,    HS,  SE),
    Bneck(5,   576 / 96,     96,  1,    HS,  SE),
    Expand(    576 / 96,                HS),
)  # fmt: skip


def minimalist(row: Row) -> Row:
    """Return a row without squeeze-excite, hard-swish and 5 x 5 kernels (paper's repository)."""
    return change(row, act=RE, se=None, kernel=min(3, getattr(row, "kernel", 3)))


def halve_tail(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Return the rows with half the channels at stride 32, for SSDLite (section 6.3)."""
    return tuple(
        change(row, out=row.out // 2) if isinstance(row, Bneck) and stride == 32 else row
        for row, stride in zip(rows, strides(rows), strict=True)
    )


def mobilenet_v3(
    name: str, rows: tuple[Row, ...], wide: int, alpha: float, minimalistic: bool,
    reduced_tail: bool, options: Options,
) -> keras.Model:  # fmt: skip
    """Return a MobileNetV3 of either size in a variant, with the head of Figure 5."""
    act = HS
    if minimalistic:
        rows, act, name = tuple(map(minimalist, rows)), RE, f"{name}_minimalistic"
    if reduced_tail:
        rows, wide = halve_tail(rows), wide // 2
    return build(name, rows, Head(wide, act), alpha, **options)


@register("mobilenet_v3_large_minimalistic", minimalistic=True)
@register("mobilenet_v3_large")
@documented
def MobileNetV3Large(
    alpha: float = 1.0, *, minimalistic: bool = False, reduced_tail: bool = False,
    **options: Unpack[Options],
) -> keras.Model:  # fmt: skip
    """MobileNetV3-Large. 5,483,032 parameters at alpha 1, 3,993,528 at 0.75.

    `minimalistic` leaves out squeeze-excite, hard-swish and 5 x 5 kernels; `reduced_tail` halves
    the channels of the last stage, for SSDLite.

    Source: https://arxiv.org/abs/1905.02244, Table 1; widths and weights as in keras.applications.
    """
    return mobilenet_v3(
        "mobilenet_v3_large", LARGE, 1280, alpha, minimalistic, reduced_tail, options
    )


@register("mobilenet_v3_small_minimalistic", minimalistic=True)
@register("mobilenet_v3_small")
@documented
def MobileNetV3Small(
    alpha: float = 1.0, *, minimalistic: bool = False, reduced_tail: bool = False,
    **options: Unpack[Options],
) -> keras.Model:  # fmt: skip
    """MobileNetV3-Small. 2,542,856 parameters at alpha 1.

    `minimalistic` leaves out squeeze-excite, hard-swish and 5 x 5 kernels; `reduced_tail` halves
    the channels of the last stage, for SSDLite.

    Source: https://arxiv.org/abs/1905.02244, Table 2; widths and weights as in keras.applications.
    """
    return mobilenet_v3(
        "mobilenet_v3_small", SMALL, 1024, alpha, minimalistic, reduced_tail, options
    )
