"""Changes of training images that stand on their own: filters, erasing, mixing."""
