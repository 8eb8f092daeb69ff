"""Depthwise convolutions whose wide kernels learn in less time on TensorFlow's CPU kernels.

oneDNN, which TensorFlow computes with on x86, has a fast gradient for depthwise kernels of up to
three columns. For wider ones it falls back to that of grouped convolutions, which computes more
than it needs. A kernel of five columns learns as one of three and one of two: the same sums, in
less time (tests/bench/depthwise_gradient.py).
"""

import platform
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from kzoo.devices import on_accelerator

COLUMNS = 3  # of a kernel that has a fast gradient


def depthwise_conv(
    x: Any, kernel: Any, layer: keras.layers.DepthwiseConv2D, *, training: bool | None = None
) -> Any:
    """Return `keras.ops.depthwise_conv` of (N, H, W, C) with a layer's strides and padding.

    In training the gradient of a wide kernel is computed in parts where that takes less time.
    """
    if training and splits(x, kernel, layer):
        y = convolved(x, ops.stop_gradient(kernel), layer, layer.padding)
        return with_gradients_of(y, parts(ops.stop_gradient(x), kernel, layer))
    return convolved(x, kernel, layer, layer.padding)


def convolved(x: Any, kernel: Any, layer: keras.layers.DepthwiseConv2D, padding: str) -> Any:
    return ops.depthwise_conv(
        x, kernel, layer.strides, padding, layer.data_format, layer.dilation_rate
    )


def splits(x: Any, kernel: Any, layer: keras.layers.DepthwiseConv2D) -> bool:
    """Return whether the gradient in parts is the same, and takes less time."""
    same = (
        layer.data_format == "channels_last"
        and tuple(layer.dilation_rate) == (1, 1)
        and None not in x.shape[1:3]
    )
    return same and kernel.shape[1] > COLUMNS and computes_by_onednn()


def computes_by_onednn() -> bool:
    return (
        keras.backend.backend() == "tensorflow"
        and platform.machine() in ("x86_64", "AMD64")
        and not on_accelerator()
    )


def parts(x: Any, kernel: Any, layer: keras.layers.DepthwiseConv2D) -> list[Any]:
    """Return convolutions with the kernel's columns, some at a time, whose sum is the whole's."""
    step = layer.strides[1]
    top, bottom = padding_of(x.shape[1], kernel.shape[0], layer.strides[0], layer.padding)
    left, right = padding_of(x.shape[2], kernel.shape[1], step, layer.padding)
    width = x.shape[2]
    outputs = (width + left + right - kernel.shape[1]) // step + 1
    found = []
    for first in range(0, kernel.shape[1], COLUMNS):
        some = kernel[:, first : first + COLUMNS]
        start = first - left  # of the columns that they meet
        stop = start + (outputs - 1) * step + some.shape[1]
        seen = x[:, :, max(start, 0) : min(stop, width)]
        zeros = [(0, 0), (top, bottom), (max(-start, 0), max(stop - width, 0)), (0, 0)]
        found.append(convolved(ops.pad(seen, zeros), some, layer, "valid"))
    return found


def padding_of(side: int, kernel: int, step: int, padding: str) -> tuple[int, int]:
    """Return how many zeros go before and behind a side of the image: TensorFlow's SAME."""
    missing = max((-(-side // step) - 1) * step + kernel - side, 0) if padding == "same" else 0
    return missing // 2, missing - missing // 2


def with_gradients_of(y: Any, others: Sequence[Any]) -> Any:
    """Return `y`, whose gradient goes on to it and to each of the others.

    Nothing reads their values, so that TensorFlow's graph leaves out computing them.
    """

    def forward(y: Any, *others: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
        return y, lambda upstream: (upstream,) * (1 + len(others))

    return ops.custom_gradient(forward)(y, *others)
