"""The models by name."""

import functools
from collections.abc import Callable

import keras

from kzoo.mobilenet_v2 import MobileNetV2
from kzoo.mobilenet_v3 import MobileNetV3Large, MobileNetV3Small

MODELS: dict[str, Callable[..., keras.Model]] = {
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_large": MobileNetV3Large,
    "mobilenet_v3_large_minimalistic": functools.partial(MobileNetV3Large, minimalistic=True),
    "mobilenet_v3_small": MobileNetV3Small,
    "mobilenet_v3_small_minimalistic": functools.partial(MobileNetV3Small, minimalistic=True),
}


def list_models() -> tuple[str, ...]:
    """The names that `get_model` and the command line know."""
    return tuple(MODELS)


def get_model(name: str) -> Callable[..., keras.Model]:
    """The builder of that name. Raises ValueError for a name that `list_models` does not hold."""
    if name not in MODELS:
        raise ValueError(f"There is no model {name!r}. Choose one of: {', '.join(MODELS)}.")
    return MODELS[name]
