"""`kzoo detect`: from a folder of images to a verified int8 file."""

from kzoo.recipes.commands.train.repeated import training_command
from kzoo.recipes.configs.detect import DetectConfig

COMMAND = training_command(
    DetectConfig,
    "train a detector on images with boxes and convert it",
    "kzoo detect PHOTOS --model mobilenet_v3_small --out runs/boxes",
)
