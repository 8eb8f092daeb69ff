"""`kzoo detect`: from a folder of images to a verified int8 file."""

from typing import Any

from kzoo.recipes.commands.train.repeated import run_recipe, with_seeds
from kzoo.recipes.configs import DetectConfig
from kzoo.recipes.inputs import require_data
from kzoo.recipes.options import Command


def run(options: DetectConfig) -> Any:
    require_data(options.data)
    from kzoo.recipes.detect import detect

    return run_recipe(detect, options)


COMMAND = Command(
    "detect",
    "train a detector on images with boxes and convert it",
    with_seeds(DetectConfig),
    run,
    "kzoo detect PHOTOS --model mobilenet_v3_small --out runs/boxes",
)
