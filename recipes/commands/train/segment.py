"""`kzoo segment`: from a folder of images to a verified int8 file."""

from kzoo.recipes.commands.train.repeated import training_command
from kzoo.recipes.configs.segment import SegmentConfig

COMMAND = training_command(
    SegmentConfig,
    "train a segmenter on images with masks and convert it",
    "kzoo segment PHOTOS --head lraspp --out runs/masks",
)
