"""`kzoo classify`: from a folder of images to a verified int8 file."""

from kzoo.recipes.commands.train.repeated import training_command
from kzoo.recipes.configs.image_labels import ClassifyConfig

COMMAND = training_command(
    ClassifyConfig,
    "fine-tune a classifier on a folder of images and convert it",
    "kzoo classify PHOTOS --model mobilenet_v3_small --out runs/photos",
)
