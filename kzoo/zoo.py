"""The models by name."""

import functools
from collections.abc import Callable

import keras

from kzoo.mobilenet_v1 import MobileNetV1
from kzoo.mobilenet_v2 import MobileNetV2
from kzoo.mobilenet_v3 import MobileNetV3Large, MobileNetV3Small
from kzoo.mobilenet_v4 import (
    MobileNetV4ConvLarge,
    MobileNetV4ConvMedium,
    MobileNetV4ConvSmall,
    MobileNetV4HybridLarge,
    MobileNetV4HybridMedium,
)

MODELS: dict[str, Callable[..., keras.Model]] = {
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_large": MobileNetV3Large,
    "mobilenet_v3_large_minimalistic": functools.partial(MobileNetV3Large, minimalistic=True),
    "mobilenet_v3_small": MobileNetV3Small,
    "mobilenet_v3_small_minimalistic": functools.partial(MobileNetV3Small, minimalistic=True),
    "mobilenet_v4_conv_small": MobileNetV4ConvSmall,
    "mobilenet_v4_conv_medium": MobileNetV4ConvMedium,
    "mobilenet_v4_conv_large": MobileNetV4ConvLarge,
    "mobilenet_v4_hybrid_medium": MobileNetV4HybridMedium,
    "mobilenet_v4_hybrid_large": MobileNetV4HybridLarge,
}


def list_models() -> tuple[str, ...]:
    """The names that `get_model` and the command line know."""
    return tuple(MODELS)


def get_model(name: str) -> Callable[..., keras.Model]:
    """The builder of that name. Raises ValueError for a name that `list_models` does not hold."""
    if name not in MODELS:
        raise ValueError(f"There is no model {name!r}. Choose one of: {', '.join(MODELS)}.")
    return MODELS[name]
