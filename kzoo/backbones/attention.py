"""Mobile multi-query attention, the row that makes a MobileNetV4 a hybrid."""

import dataclasses

from keras import layers

from kzoo.backbones.rows import Net
from kzoo.preprocessing import Tensor, channel_axis, channels


@dataclasses.dataclass(frozen=True)
class MultiQuery:
    """Multi-query attention between all positions of a map, with a residual connection.

    All heads share one set of keys and values.

    Source: https://arxiv.org/abs/2404.10518, section 5.
    """

    heads: int
    width: int  # of keys and values
    shrink: int = 1  # stride of a depthwise convolution before keys and values
    kernel: int = 3  # of that
    layer_scale: float | None = None

    def __call__(self, x: Tensor, net: Net, name: str) -> Tensor:
        shortcut, out = x, channels(x)
        if None in x.shape[1:]:
            raise ValueError(
                f"{name} needs a feature map of a fixed size: give the model an input_shape "
                "without "
                f"None. Received: a map of shape {tuple(x.shape)}."
            )
        x = layers.BatchNormalization(
            axis=channel_axis(), momentum=net.norm_momentum, epsilon=net.norm_epsilon,
            name=f"{name}_norm",
        )(x)  # fmt: skip
        query = self.flat(self.project(x, self.heads * self.width, f"{name}_query"), f"{name}_q")
        key, value = (
            self.flat(self.project(self.shrunk(x, net, part), self.width, part), f"{part}s")
            for part in (f"{name}_key", f"{name}_value")
        )
        query = layers.Rescaling(self.width**-0.5, name=f"{name}_query_scale")(query)
        attention = layers.Dot(axes=2, name=f"{name}_scores")([query, key])  # (N, H W heads, keys)
        attention = layers.Softmax(name=f"{name}_attention")(attention)
        y = layers.Dot(axes=(2, 1), name=f"{name}_seen")([attention, value])
        y = self.map(y, shortcut, f"{name}_map")
        y = self.project(y, out, f"{name}_project")
        y = net.scale(y, self.layer_scale, f"{name}_scale")
        return layers.Add(name=f"{name}_out")([shortcut, y])

    def project(self, x: Tensor, out: int, name: str) -> Tensor:
        return layers.Conv2D(out, 1, use_bias=False, name=name)(x)

    def shrunk(self, x: Tensor, net: Net, name: str) -> Tensor:
        if self.shrink == 1:
            return x
        return net.depthwise(x, self.kernel, self.shrink, name=f"{name}_down")

    def flat(self, x: Tensor, name: str) -> Tensor:
        """Reshape (N, H, W, heads * width) to (N, H W heads, width)."""
        if channel_axis() == 1:
            x = layers.Permute((2, 3, 1), name=f"{name}_last")(x)
        return layers.Reshape((-1, self.width), name=f"{name}_flat")(x)

    def map(self, x: Tensor, like: Tensor, name: str) -> Tensor:
        """Reshape (N, H W heads, width) to a map with the height and width of `like`."""
        height, width = like.shape[2:] if channel_axis() == 1 else like.shape[1:-1]
        x = layers.Reshape((height, width, self.heads * self.width), name=name)(x)
        return layers.Permute((3, 1, 2), name=f"{name}_first")(x) if channel_axis() == 1 else x
