"""`kzoo multilabel`: from images with several labels each to a verified int8 file."""

from typing import Any

from kzoo.recipes.commands.train.repeated import run_recipe, with_seeds
from kzoo.recipes.configs import MultilabelConfig
from kzoo.recipes.inputs import require_data
from kzoo.recipes.options import Command


def run(options: MultilabelConfig) -> Any:
    require_data(options.data)
    from kzoo.recipes.multilabel import multilabel

    return run_recipe(multilabel, options)


COMMAND = Command(
    "multilabel",
    "fine-tune a classifier on images with any number of labels each and convert it",
    with_seeds(MultilabelConfig),
    run,
    "kzoo multilabel photos.csv --model mobilenet_v3_small --out runs/photos",
)
