"""The kind of device that Keras computes on."""

import keras


def on_accelerator() -> bool:
    """Return whether Keras trains on a GPU or TPU."""
    try:
        return any(not name.startswith("cpu") for name in keras.distribution.list_devices())
    except (NotImplementedError, AttributeError, RuntimeError):
        return False
