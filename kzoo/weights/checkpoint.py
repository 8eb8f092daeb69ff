"""The common form of all weight files: the convolutions of a net in graph order.

A reader does not know the model: it returns units, and what the weights require of a model
(padding, batch norm epsilon and input scaling). `kzoo.weights.matching` matches units with a
model's layers, in order or, for files of kzoo's own nets, by name.
"""

import dataclasses
import re
from typing import Literal

import numpy as np

ROW = re.compile(r"row(\d+)_")  # prefix of the layers of kzoo's backbones, see `kzoo.build`


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
    """A convolution and the batch normalization after it. A dense layer is a 1x1 convolution.

    name: in the file.
    kernel: (H, W, C_in, C_out); (H, W, C, 1) for a depthwise convolution.
    norm: gamma, beta, moving mean, moving variance, each (C_out,); None if there is none, or if it
        was folded into kernel and bias.
    """

    name: str
    kernel: np.ndarray
    bias: np.ndarray | None = None
    norm: tuple[np.ndarray, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights of one file. None means that the file does not say."""

    source: str
    kind: str
    units: tuple[Unit, ...]
    padding: Literal["same", "symmetric"] | None = None
    norm_epsilon: float | None = None
    preprocessing: Literal["tf", "torch", "other"] | None = None  # other: kzoo has no such scaling
    head: int = 0  # number of units at the end that are a detector's or segmenter's head
    by_name: bool = False  # units have kzoo's layer names, in any order; norms are units
    labels: tuple[str, ...] | None = None  # class names, with background only if it has one
