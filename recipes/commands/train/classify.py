"""`kzoo classify`: from a folder of images to a verified int8 file."""

from typing import Any

from kzoo.recipes.commands.train.repeated import run_recipe, with_seeds
from kzoo.recipes.configs import ClassifyConfig
from kzoo.recipes.inputs import require_data
from kzoo.recipes.options import Command


def run(options: ClassifyConfig) -> Any:
    require_data(options.data)
    from kzoo.recipes.classify import classify

    return run_recipe(classify, options)


COMMAND = Command(
    "classify",
    "fine-tune a classifier on a folder of images and convert it",
    with_seeds(ClassifyConfig),
    run,
    "kzoo classify PHOTOS --model mobilenet_v3_small --out runs/photos",
)
