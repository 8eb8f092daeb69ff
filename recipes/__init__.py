"""Programs: the only room with image files, flags, progress bars and plots."""
