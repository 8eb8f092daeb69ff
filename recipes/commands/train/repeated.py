"""--seeds, which every command that trains has."""

import dataclasses
from collections.abc import Callable
from typing import Any

from kzoo.recipes.options import at_least, option

SEEDS = "repeat the run with this many seeds, in OUT/seed-0 and on, and print mean and spread"


def with_seeds(config: type) -> type:
    """Return an options class with the fields of a recipe's Config, and `seeds`."""
    seeds = ("seeds", int, option(SEEDS, 1, lasting=False))
    return dataclasses.make_dataclass(config.__name__, [seeds], bases=(config,), frozen=True)


def run_recipe(recipe: Callable[..., Any], options: Any) -> Any:
    """Return what a recipe reached with these options; its spread where there are several seeds."""
    at_least(options, {"seeds": 1})
    values = dict(vars(options))
    if values.pop("seeds") == 1:
        return recipe(**values)
    from kzoo.recipes.programs.seeds import over_seeds  # imports Keras

    return over_seeds(recipe, seeds=options.seeds, **values)
