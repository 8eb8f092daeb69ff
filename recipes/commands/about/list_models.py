"""`kzoo list`: the models and their sizes."""

import dataclasses
import math

from kzoo.recipes.inputs import LEAST_SIDE
from kzoo.recipes.models import ModelSize, model_sizes
from kzoo.recipes.options import Command, JsonOptions, option


@dataclasses.dataclass(frozen=True)
class ListOptions(JsonOptions):
    """What `kzoo list` takes."""

    alpha: float = option("width multiplier", 1.0)
    size: int = option("input side in px", 224)


@dataclasses.dataclass(frozen=True)
class ModelTable:
    """The models at one width and input side."""

    alpha: float
    size: int
    models: tuple[ModelSize, ...]

    def __str__(self) -> str:
        lines = [
            f"{'model':34}{'parameters':>12}{'M MACs':>10}"
            f"   at alpha {self.alpha:g} and {self.size} px"
        ]
        lines += [f"{s.model:34}{s.parameters:12,}{s.macs / 1e6:10.1f}" for s in self.models]
        return "\n".join(lines)


def run(options: ListOptions) -> ModelTable:
    if not 0 < options.alpha < math.inf:
        raise ValueError(f"alpha must be a number > 0. Received: {options.alpha:g}")
    if options.size < LEAST_SIDE:
        raise ValueError(f"size must be at least {LEAST_SIDE} px. Received: {options.size}")
    return ModelTable(options.alpha, options.size, model_sizes(options.alpha, options.size))


COMMAND = Command(
    "list",
    "list the models with parameters and multiply-accumulates",
    ListOptions,
    run,
    "kzoo list --alpha 0.75",
)
