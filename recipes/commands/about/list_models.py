"""`kzoo list`: the models and their sizes."""

import dataclasses
import math

from kzoo.recipes.configs.run import SIZE
from kzoo.recipes.inputs import size_given
from kzoo.recipes.models import STORED, ModelSize, built_sizes, stored_sizes
from kzoo.recipes.options import Command, JsonOptions, option
from kzoo.sizes import Size, size_text


@dataclasses.dataclass(frozen=True)
class ListOptions(JsonOptions):
    """What `kzoo list` takes."""

    alpha: float = option("width multiplier", 1.0)
    size: int | tuple[int, int] = option(SIZE, 224)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha must be a number > 0. Received: {self.alpha:g}")
        object.__setattr__(self, "size", size_given(self.size))


@dataclasses.dataclass(frozen=True)
class ModelTable:
    """The models at one width and input size."""

    alpha: float
    size: Size
    models: tuple[ModelSize, ...]

    def __str__(self) -> str:
        lines = [
            f"{'model':34}{'parameters':>12}{'M MACs':>10}"
            f"   at alpha {self.alpha:g} and {size_text(self.size)} px"
        ]
        lines += [f"{s.model:34}{s.parameters:12,}{s.macs / 1e6:10.1f}" for s in self.models]
        return "\n".join(lines)


def run(options: ListOptions) -> ModelTable:
    models = stored_sizes()
    if (options.alpha, options.size) != STORED:
        from kzoo.recipes.progress import track

        sizes = built_sizes(options.alpha, options.size)
        models = tuple(track(sizes, "Building the models", total=len(models)))
    return ModelTable(options.alpha, options.size, models)


COMMAND = Command(
    "list",
    "list the models with parameters and multiply-accumulates",
    ListOptions,
    run,
    "kzoo list --alpha 0.75",
)
