"""`kzoo segment`: from a folder of images to a verified int8 file."""

from typing import Any

from kzoo.recipes.commands.train.repeated import run_recipe, with_seeds
from kzoo.recipes.configs import SegmentConfig
from kzoo.recipes.inputs import require_data
from kzoo.recipes.options import Command


def run(options: SegmentConfig) -> Any:
    require_data(options.data)
    from kzoo.recipes.segment import segment

    return run_recipe(segment, options)


COMMAND = Command(
    "segment",
    "train a segmenter on images with masks and convert it",
    with_seeds(SegmentConfig),
    run,
    "kzoo segment PHOTOS --head lraspp --out runs/masks",
)
