"""The registry of models by name, filled by the files that define the models."""

import difflib
import functools
import importlib
from collections.abc import Callable
from typing import Any

import keras

Builder = Callable[..., keras.Model]
MODELS: dict[str, Builder] = {}


def register(name: str, **options: Any) -> Callable[[Builder], Builder]:
    """Return a decorator that registers a builder as `name`, with `options` as its defaults."""

    def add(builder: Builder) -> Builder:
        if name in MODELS:
            raise ValueError(f"A model called {name!r} is registered already.")
        MODELS[name] = functools.partial(builder, **options) if options else builder
        return builder

    return add


def list_models() -> tuple[str, ...]:
    """Return the names that `get_model`, `create_model` and the command line know, sorted."""
    importlib.import_module("kzoo.api")  # imports all files that define models
    return tuple(sorted(MODELS))


def get_model(name: str) -> Builder:
    """Return the builder of that name, such as `kzoo.MobileNetV2` for "mobilenet_v2".

    Raises ValueError for a name that `list_models` does not return.
    """
    known = list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"There is no model {name!r}.{hint} Choose one of: {', '.join(known)}.")
    return MODELS[name]


def create_model(name: str, **options: Any) -> keras.Model:
    """Return a new model: `create_model("mobilenet_v2", alpha=0.5, classes=10)`.

    `options` are the arguments of the builder that `get_model(name)` returns. Raises ValueError for
    an unknown name and for values out of range.
    """
    return get_model(name)(**options)
