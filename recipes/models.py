"""The models' names and sizes as a table, which is read without building or importing them."""

import csv
import dataclasses
import functools
import sys
from pathlib import Path

FILE = Path(__file__).with_name("models.csv")


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """A model at some width and input size."""

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
    """Return the names of kzoo's models, and of those that a program has registered itself."""
    registry = sys.modules.get("kzoo.registry")  # what is not imported has registered nothing
    return tuple(dict.fromkeys([s.model for s in stored_sizes()] + list(
        registry.MODELS if registry else ()
    )))  # fmt: skip


def model_sizes(alpha: float = 1.0, size: int = 224) -> tuple[ModelSize, ...]:
    """Return every model's size at a width multiplier and an input side in px.

    Those at alpha 1 and 224 px are stored; for others the models are built, which takes seconds.
    """
    if (alpha, size) == (1.0, 224):
        return stored_sizes()
    import kzoo  # imports Keras when it is asked for a model

    found = []
    for name in kzoo.list_models():
        net = kzoo.create_model(name, alpha=alpha, input_shape=(size, size, 3))
        profile = kzoo.profile(net)
        found.append(ModelSize(name, profile.trainable, profile.macs))
    return tuple(found)
