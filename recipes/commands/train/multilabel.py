"""`kzoo multilabel`: from images with several labels each to a verified int8 file."""

from kzoo.recipes.commands.train.repeated import training_command
from kzoo.recipes.configs.image_labels import MultilabelConfig

COMMAND = training_command(
    MultilabelConfig,
    "fine-tune a classifier on images with any number of labels each and convert it",
    "kzoo multilabel photos.csv --model mobilenet_v3_small --out runs/photos",
)
