"""What weights expect of pixels: the scalings by name, and the layer that applies them."""

from typing import Any, Literal

import keras
import numpy as np
from keras import layers

Tensor = Any  # a KerasTensor: (N, H, W, C), or (N, C, H, W) under "channels_first"


def channel_axis() -> int:
    """1 under Keras' "channels_first" image data format, else -1."""
    return 1 if keras.config.image_data_format() == "channels_first" else -1


def channels(x: Tensor) -> int:
    """The number of channels of a feature map."""
    return x.shape[channel_axis()]


# Scale and offset that take pixels in [0, 255] to what the weights were trained on.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels in [0, 1]


PREPROCESSING: dict[str, tuple[Any, Any]] = {
    "tf": (1 / 127.5, -1.0),
    "torch": (
        [1 / (255 * std) for std in IMAGENET_STD],
        [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)],
    ),
}


def preprocess(image: Tensor, preprocessing: Literal["tf", "torch"]) -> Tensor:
    """Pixels in [0, 255], scaled as the weights want them."""
    scale, offset = PREPROCESSING[preprocessing]
    n = image.shape[channel_axis()]
    if isinstance(scale, list):
        if n != len(scale):
            raise ValueError(
                f'preprocessing="{preprocessing}" is for {len(scale)} channels, and the input has '
                f'{n}. Use preprocessing="tf", or None and your own scaling.'
            )
        if channel_axis() == 1:  # Rescaling itself would line up the scale, and not the offset
            scale, offset = [[[[s]] for s in scale], [[[o]] for o in offset]]
    return layers.Rescaling(scale, offset, name="preprocessing")(image)


def scaling(offset: Any) -> Literal["tf", "torch"] | None:
    """Which preprocessing takes a pixel of 0 to `offset`."""
    names: tuple[Literal["tf", "torch"], ...] = ("tf", "torch")
    fits = [name for name in names if np.allclose(offset, PREPROCESSING[name][1], atol=0.02)]
    return fits[0] if fits else None
