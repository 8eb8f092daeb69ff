"""A custom model in forty lines: a table of rows, one of them a new block.

python examples/custom_net.py
"""

import dataclasses

import keras

import kzoo
from kzoo.backbones.rows import Bneck, Conv, Head, Net, SqueezeExcite


@dataclasses.dataclass(frozen=True)
class Shuffle:
    """Group the channels, convolve each group, and mix the groups; used like any other row."""

    groups: int
    out: int
    stride: int = 1
    act: str = "relu"

    def __call__(self, x, net: Net, name: str):
        width = net.width(self.out)
        x = keras.layers.Conv2D(
            width, 3, self.stride, padding="same", groups=self.groups, use_bias=False,
            name=f"{name}_group",
        )(x)  # fmt: skip
        x = net.norm_act(x, self.act, f"{name}_group", None)
        return net.conv(x, width, act=self.act, name=f"{name}_mix", last=f"{name}_out")


#       kernel expand out stride act
ROWS = (
    Conv(3,           16, 2, "hard_swish"),
    Bneck(3,     1,   16, 2, "relu", SqueezeExcite()),
    Shuffle(4,        32, 2),
    Bneck(5,     3,   48, 2, "hard_swish", SqueezeExcite()),
    Bneck(5,     3,   96, 2, "hard_swish"),
    Conv(1,          288, 1, "hard_swish"),
)  # fmt: skip

model = kzoo.build("mine", ROWS, Head(512, "hard_swish"), 1.0, input_shape=(96, 96, 3), classes=5)
print(kzoo.profile(model))
print({level: tuple(x.shape[1:]) for level, x in kzoo.pyramid(model).items()})
