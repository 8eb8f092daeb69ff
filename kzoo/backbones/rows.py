"""The rows of architecture tables: dataclasses that build their layers.

A row is a frozen dataclass whose fields are the columns of a paper's table. `row(x, net, name)`
takes a feature map `x` (N, H, W, C), the `Net` that all rows share and a name prefix, and returns
the next feature map. Its last layer is called `{name}_out`: heads find features by these names. A
new kind of row is a new class with that call; CONTRIBUTING.md lists what else may need a change.
"""

import dataclasses
from typing import Any, ClassVar, Literal, Protocol

import keras
from keras import layers

from kzoo.preprocessing import Tensor, channel_axis, channels


@dataclasses.dataclass(frozen=True)
class Net:
    """The settings that all rows of a net share: alpha, padding and batch normalization.

    `padding` is "same" (TensorFlow and Keras: the odd pixel of a stride-2 convolution is added at
    the bottom and the right) or "symmetric" (PyTorch: kernel // 2 on each side). It belongs to the
    weights.
    """

    alpha: float = 1.0
    padding: Literal["same", "symmetric"] = "same"
    norm_momentum: float = 0.99
    norm_epsilon: float = 1e-3

    def round(self, channels: float, multiple: int = 8) -> int:
        """Return the nearest `multiple`, at least 8 and at least 90 % (TF-slim's rule)."""
        rounded = max(8, int(channels + multiple / 2) // multiple * multiple)
        return rounded + multiple if rounded < 0.9 * channels else rounded

    def width(self, channels: float, *, whole: bool = False, multiple: int = 8) -> int:
        """Return channels of the table scaled by alpha (truncated if `whole`) and rounded."""
        scaled = channels * self.alpha
        return self.round(int(scaled) if whole else scaled, multiple)

    def activate(self, x: Tensor, act: str | None, name: str) -> Tensor:
        return layers.Activation(act, name=name)(x) if act else x

    def norm_act(self, x: Tensor, act: str | None, prefix: str, out: str | None) -> Tensor:
        """Apply batch norm, then `act`; the last of the two layers is called `out` if given."""
        x = layers.BatchNormalization(
            axis=channel_axis(),
            momentum=self.norm_momentum,
            epsilon=self.norm_epsilon,
            name=f"{prefix}_bn" if act or not out else out,
        )(x)
        return self.activate(x, act, out or f"{prefix}_act")

    def pad(self, x: Tensor, kernel: int, stride: int, name: str) -> tuple[Tensor, str]:
        """Return (`x`, padded if needed for "symmetric"; the `padding` of the next layer)."""
        if self.padding == "same" or stride == 1:
            return x, "same"  # at stride 1, dilated or not, both conventions pad alike
        return layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x), "valid"

    def conv(
        self, x: Tensor, out: int, kernel: int = 1, stride: int = 1, act: str | None = None, *,
        name: str, last: str | None = None,
    ) -> Tensor:  # fmt: skip
        """Apply convolution without bias, batch norm, activation; the last is called `last`."""
        x, padding = self.pad(x, kernel, stride, name)
        x = layers.Conv2D(out, kernel, stride, padding=padding, use_bias=False, name=name)(x)
        return self.norm_act(x, act, name, last)

    def depthwise(
        self, x: Tensor, kernel: int, stride: int = 1, act: str | None = None, *,
        dilation: int = 1, name: str,
    ) -> Tensor:  # fmt: skip
        """Apply depthwise convolution without bias, batch norm, activation."""
        x, padding = self.pad(x, kernel, stride, name)
        x = layers.DepthwiseConv2D(
            kernel, stride, padding=padding, dilation_rate=dilation, use_bias=False, name=name
        )(x)
        return self.norm_act(x, act, name, None)

    def scale(self, x: Tensor, value: float | None, name: str) -> Tensor:
        """Multiply each channel by a learned factor, initially `value`; None returns `x`."""
        if value is None:
            return x
        start = keras.initializers.Constant(value)
        return layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer=start, name=name)(x)


class Row(Protocol):
    """A dataclass that turns a feature map into the next one."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __call__(self, x: Tensor, net: Net, name: str) -> Tensor: ...


def change(row: Row, **columns: Any) -> Row:
    """Return `row` with other values in those of these columns that it has."""
    own = {field.name for field in dataclasses.fields(row)}
    return dataclasses.replace(row, **{key: columns[key] for key in own & columns.keys()})


@dataclasses.dataclass(frozen=True)
class Conv:
    """k x k convolution, batch norm, activation.

    `scale` tells how `out` follows alpha: "always", "up" (only alpha > 1 widens it), or "never".
    """

    kernel: int
    out: int
    stride: int = 1
    act: str | None = "relu6"
    scale: Literal["always", "up", "never"] = "always"
    norm: bool = True  # False: a bare convolution, without bias too
    multiple: int = 8  # of which channels are

    def __call__(self, x: Tensor, net: Net, name: str) -> Tensor:
        width = net.width(self.out, whole=self.multiple == 1, multiple=self.multiple)
        widths = {
            "always": width,
            "up": width if net.alpha > 1 else self.out,
            "never": self.out,
        }
        out, name_out = widths[self.scale], f"{name}_out"
        if self.norm:
            name = f"{name}_conv"
            return net.conv(x, out, self.kernel, self.stride, self.act, name=name, last=name_out)
        x, padding = net.pad(x, self.kernel, self.stride, name)
        name = f"{name}_conv" if self.act else name_out
        x = layers.Conv2D(
            out, self.kernel, self.stride, padding=padding, use_bias=False, name=name
        )(x)
        return net.activate(x, self.act, name_out)


@dataclasses.dataclass(frozen=True)
class Expand:
    """1 x 1 convolution to `ratio` times the channels that come in, batch norm, activation."""

    ratio: float
    act: str | None = "relu6"

    def __call__(self, x: Tensor, net: Net, name: str) -> Tensor:
        out = net.round(channels(x) * self.ratio)
        return net.conv(x, out, act=self.act, name=f"{name}_conv", last=f"{name}_out")


@dataclasses.dataclass(frozen=True)
class Separable:
    """Depthwise separable convolution: depthwise k x k, then 1x1, each normalized and activated.

    Source: https://arxiv.org/abs/1704.04861, Figure 3. Widths are cut to whole numbers.
    """

    kernel: int
    out: int
    stride: int = 1
    act: str = "relu6"
    dilation: int = 1

    def __call__(self, x: Tensor, net: Net, name: str) -> Tensor:
        x = net.depthwise(
            x, self.kernel, self.stride, self.act, dilation=self.dilation, name=f"{name}_depthwise"
        )
        out = net.width(self.out, whole=True, multiple=1)
        return net.conv(x, out, act=self.act, name=f"{name}_pointwise", last=f"{name}_out")


@dataclasses.dataclass(frozen=True)
class SqueezeExcite:
    """Scales each channel by a gate in [0, 1] computed from the channels' global means.

    Source: https://arxiv.org/abs/1709.01507, with MobileNetV3's hard sigmoid (section 5.3 there).
    """

    ratio: float = 1 / 4  # of the expanded channels
    round: bool = True  # to a multiple of 8
    bias: bool = True

    def __call__(self, x: Tensor, net: Net, name: str) -> Tensor:
        squeezed = channels(x) * self.ratio
        squeezed = net.round(squeezed) if self.round else int(squeezed)
        s = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)
        s = layers.Conv2D(squeezed, 1, use_bias=self.bias, name=f"{name}_squeeze")(s)
        s = layers.Activation("relu", name=f"{name}_squeeze_act")(s)
        s = layers.Conv2D(channels(x), 1, use_bias=self.bias, name=f"{name}_excite")(s)
        s = layers.Activation("hard_sigmoid", name=f"{name}_gate")(s)
        return layers.Multiply(name=f"{name}_scale")([x, s])


@dataclasses.dataclass(frozen=True)
class Bneck:
    """Inverted residual: expand 1x1, depthwise k x k, (squeeze-excite,) project 1x1, (add).

    Source: https://arxiv.org/abs/1801.04381, Table 1; with `se`, https://arxiv.org/abs/1905.02244.
    """

    kernel: int
    expand: float  # ratio to the channels that come in
    out: int
    stride: int = 1
    act: str = "relu6"
    se: SqueezeExcite | None = None
    dilation: int = 1  # of the depthwise convolution
    whole: bool = False  # out * alpha is cut to a whole number before it is rounded to eights
    # What the published nets do not use, but others have drawn:
    expand_always: bool = False  # a 1x1 expansion even where `expand` is 1
    shortcut: Literal["identity", "projection"] = "identity"  # 1x1 conv and BN where shapes differ
    sum_act: str | None = None  # after the sum
    multiple: int = 8  # of which channels are; TF-DeepLab's V2 at alpha < 1 has 1

    def __call__(self, x: Tensor, net: Net, name: str) -> Tensor:
        shortcut, c_in = x, channels(x)
        c_out = net.width(self.out, whole=self.whole, multiple=self.multiple)
        if self.expand != 1 or self.expand_always:
            expanded = net.round(c_in * self.expand, self.multiple)
            x = net.conv(x, expanded, act=self.act, name=f"{name}_expand")
        x = net.depthwise(
            x, self.kernel, self.stride, self.act, dilation=self.dilation, name=f"{name}_depthwise"
        )
        if self.se:
            x = self.se(x, net, f"{name}_se")
        same_shape = self.stride == 1 and c_in == c_out
        residual = same_shape or self.shortcut == "projection"
        x = net.conv(x, c_out, name=f"{name}_project", last=None if residual else f"{name}_out")
        if not residual:
            return x
        if not same_shape:
            shortcut = net.conv(shortcut, c_out, 1, self.stride, name=f"{name}_shortcut")
        x = layers.Add(name=f"{name}_add" if self.sum_act else f"{name}_out")([shortcut, x])
        return net.activate(x, self.sum_act, f"{name}_out")


@dataclasses.dataclass(frozen=True)
class Fused:
    """Inverted residual whose k x k convolution also expands; then project 1x1, (add).

    Source: https://arxiv.org/abs/2003.02838, section 3; FusedIB in https://arxiv.org/abs/2404.10518.
    """

    kernel: int
    expand: float  # ratio to the channels that come in
    out: int
    stride: int = 1
    act: str = "relu"

    def __call__(self, x: Tensor, net: Net, name: str) -> Tensor:
        shortcut, c_in, c_out = x, channels(x), net.width(self.out)
        residual = self.stride == 1 and c_in == c_out
        expanded = net.round(c_in * self.expand)
        x = net.conv(x, expanded, self.kernel, self.stride, self.act, name=f"{name}_expand")
        x = net.conv(x, c_out, name=f"{name}_project", last=None if residual else f"{name}_out")
        return layers.Add(name=f"{name}_out")([shortcut, x]) if residual else x


@dataclasses.dataclass(frozen=True)
class Uib:
    """Universal inverted bottleneck: (depthwise,) expand 1x1, (depthwise,) project 1x1, (add).

    Source: https://arxiv.org/abs/2404.10518, section 4.
    """

    start: int  # kernel of the depthwise convolution before the expansion; 0: there is none
    middle: int  # of that after it
    expand: float  # ratio to the channels that come in
    out: int
    stride: int = 1
    act: str = "relu"
    layer_scale: float | None = None
    dilation: int = 1

    def __call__(self, x: Tensor, net: Net, name: str) -> Tensor:
        shortcut, c_in, c_out = x, channels(x), net.width(self.out)
        residual = self.stride == 1 and c_in == c_out
        rest = self.stride
        if self.start:
            here, rest = (1, rest) if self.middle else (rest, 1)
            x = net.depthwise(x, self.start, here, dilation=self.dilation, name=f"{name}_start")
        x = net.conv(x, net.round(c_in * self.expand), act=self.act, name=f"{name}_expand")
        if self.middle:
            x = net.depthwise(
                x, self.middle, rest, self.act, dilation=self.dilation, name=f"{name}_depthwise"
            )
        last = self.layer_scale is None and not residual
        x = net.conv(x, c_out, name=f"{name}_project", last=f"{name}_out" if last else None)
        x = net.scale(x, self.layer_scale, f"{name}_scale" if residual else f"{name}_out")
        return layers.Add(name=f"{name}_out")([shortcut, x]) if residual else x


@dataclasses.dataclass(frozen=True)
class Head:
    """From the last feature map to one score per class: pool, (wide 1x1 layer,) dropout, logits.

    `wide` is the layer between pooling and logits; only alpha > 1 widens it. With `flatten` the
    whole map is read instead of its mean. Scores are called `predictions`, raw ones `head_logits`.
    """

    wide: int | None = None
    act: str | None = None
    flatten: bool = False
    norm: bool = False  # batch norm in place of the wide layer's bias

    def __call__(
        self, x: Tensor, net: Net, *, classes: int, dropout_rate: float, activation: Any
    ) -> Tensor:
        if self.flatten:
            x = layers.Flatten(name="head_flatten")(x)
        else:
            keep = self.wide is not None
            x = layers.GlobalAveragePooling2D(keepdims=keep, name="head_pool")(x)
        if self.wide:
            wide = net.width(self.wide) if net.alpha > 1 else self.wide
            if self.norm:
                x = net.conv(x, wide, act=self.act, name="head_wide")
            else:
                x = layers.Conv2D(wide, 1, name="head_wide")(x)
                x = net.activate(x, self.act, "head_wide_act")
        x = layers.Dropout(dropout_rate, name="head_dropout")(x)
        if self.wide:
            x = layers.Conv2D(classes, 1, name="head_logits")(x)
            x = layers.Flatten(name="head_flatten")(x)
        else:
            x = layers.Dense(classes, name="head_logits")(x)
        return layers.Activation(activation, name="predictions")(x)
