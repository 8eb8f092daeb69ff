"""Programs: the only room with image files, flags, progress bars and plots."""

from kzoo.recipes.classify import classify
from kzoo.recipes.detect import detect
from kzoo.recipes.segment import segment

__all__ = ["classify", "detect", "segment"]
