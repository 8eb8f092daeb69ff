"""The names that `kzoo.recipes` offers, which its __init__.py imports on demand."""

from kzoo.recipes.classify import classify
from kzoo.recipes.detect import detect
from kzoo.recipes.segment import segment

__all__ = ["classify", "detect", "segment"]
