"""Masks: what their values mean, the files and outlines they come from, their images."""
