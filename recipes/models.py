"""Names and sizes of the models from a table, read without importing or building them."""

import csv
import dataclasses
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

from kzoo.sizes import Size, height_width

FILE = Path(__file__).with_name("models.csv")
STORED = (1.0, 224)  # (alpha, size in px) of FILE


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """The size of a model at some alpha and input size."""

    model: str
    parameters: int  # trainable, with a classifier of 1,000 classes
    macs: int  # multiply-accumulates of one image


@functools.cache
def stored_sizes() -> tuple[ModelSize, ...]:
    """Return every model's size at alpha 1 and 224 px; tests/test_cli.py builds them all."""
    with FILE.open(encoding="utf-8") as file:
        return tuple(
            ModelSize(row["model"], int(row["parameters"]), int(row["macs"]))
            for row in csv.DictReader(file)
        )


def known_models() -> tuple[str, ...]:
    """Return the names of kzoo's models, and of models that a program has registered."""
    registry = sys.modules.get("kzoo.registry")  # if not imported, nothing is registered
    return tuple(dict.fromkeys([s.model for s in stored_sizes()] + list(
        registry.MODELS if registry else ()
    )))  # fmt: skip


def built_sizes(alpha: float, size: Size) -> Iterator[ModelSize]:
    """Yield every model's size at a width multiplier and an input size in px.

    Builds the models, which takes a second or more each.
    """
    import kzoo  # imports Keras when it is asked for a model

    for name in kzoo.list_models():
        net = kzoo.create_model(name, alpha=alpha, input_shape=(*height_width(size), 3))
        profile = kzoo.profile(net)
        yield ModelSize(name, profile.trainable, profile.macs)
