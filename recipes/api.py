"""The names that `kzoo.recipes` offers, which its __init__.py imports on demand."""

from kzoo.recipes.classify import classify
from kzoo.recipes.detect import detect
from kzoo.recipes.inspection.inspection import inspect_data as inspect
from kzoo.recipes.inspection.page import write_inspection
from kzoo.recipes.segment import segment

__all__ = ["classify", "detect", "inspect", "segment", "write_inspection"]
