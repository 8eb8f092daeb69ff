"""What a weight file holds, in one form: the convolutions of a net, in graph order.

A reader names no model: it returns units, and what else the weights fix: how their net pads,
normalizes and scales its input. `kzoo.weights` matches units with a model, in their order or, where
the file is one of kzoo's own nets, by the names of its layers.
"""

import dataclasses
import re
from typing import Literal

import numpy as np

ROW = re.compile(r"row(\d+)_")  # what the layers of each of kzoo's nets begin with: `kzoo.build`


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
    """One convolution, and the batch normalization behind it. A dense layer is a 1 x 1 convolution.

    kernel: (H, W, C_in, C_out); of a depthwise convolution (H, W, C, 1).
    norm: gamma, beta, moving mean, moving variance, each (C_out,); None where there is none, or
        where it was folded into kernel and bias.
    """

    name: str  # in its file
    kernel: np.ndarray
    bias: np.ndarray | None = None
    norm: tuple[np.ndarray, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights of one file. None stands for what the file does not tell."""

    source: str
    kind: str
    units: tuple[Unit, ...]
    padding: Literal["same", "symmetric"] | None = None
    norm_epsilon: float | None = None
    preprocessing: Literal["tf", "torch", "other"] | None = None  # other: kzoo has no such scaling
    head: int = 0  # how many of the units, at the end, are a detector's or segmenter's head
    by_name: bool = False  # kzoo's own layers in no order, a norm being a unit of its own
    labels: tuple[str, ...] | None = None  # its classes by name, background only where it has one
