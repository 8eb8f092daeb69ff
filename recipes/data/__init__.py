"""A person's images, labels, boxes and masks, read from any of the usual layouts."""

from typing import Any

from kzoo.old_names import warn
from kzoo.recipes.data.box_dataset import read_boxes
from kzoo.recipes.data.class_dataset import read_dataset
from kzoo.recipes.data.images import BadImageError, read_image
from kzoo.recipes.data.label_sets import read_label_sets
from kzoo.recipes.data.mask_dataset import read_masks
from kzoo.recipes.data.text import Issue

__all__ = [
    "BadImageError",
    "Issue",
    "read_boxes",
    "read_dataset",
    "read_image",
    "read_label_sets",
    "read_masks",
]

OLD_NAMES = {"read_picture": "read_image", "BadPictureError": "BadImageError"}


def __getattr__(name: str) -> Any:
    if name not in OLD_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn(f"{__name__}.{name}", OLD_NAMES[name])
    return globals()[OLD_NAMES[name]]
