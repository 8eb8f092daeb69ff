"""Programs: the only room with image files, flags, progress bars and plots."""

from kzoo.recipes.classify import classify

__all__ = ["classify"]
