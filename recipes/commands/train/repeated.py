"""The common part of the training commands: a check of the data, and --seeds."""

import dataclasses
import importlib
from typing import Any

from kzoo.recipes.inputs import require_data
from kzoo.recipes.options import Command, at_least, option

SEEDS = "repeat the run with this many seeds, in OUT/seed-0 and on, and print mean and spread"


def training_command(config: Any, about: str, example: str) -> Command:
    """Return the command of a recipe: the flags are the fields of its Config, and --seeds."""
    seeds = ("seeds", int, option(SEEDS, 1, lasting=False))
    options = dataclasses.make_dataclass(config.__name__, [seeds], bases=(config,), frozen=True)

    def run(options: Any) -> Any:
        """Return the results of the recipe, or their spread for several seeds."""
        require_data(options.data)
        at_least(options, {"seeds": 1})
        module = importlib.import_module(f"kzoo.recipes.{config.task}")  # imports Keras
        recipe = getattr(module, config.task)
        values = dict(vars(options))
        if values.pop("seeds") == 1:
            return recipe(**values)
        from kzoo.recipes.programs.seeds import over_seeds

        return over_seeds(recipe, seeds=options.seeds, **values)

    return Command(config.task, about, options, run, example)
