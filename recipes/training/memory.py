"""Memory that training frees stays with the process, where that can be arranged."""

import ctypes
from typing import Any

import keras

# Parameters of mallopt, from glibc's malloc.h, and how far they go.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 256 << 20  # freed at the heap's end and yet not given back
LARGEST_ON_HEAP = 32 << 20  # bytes of a block; glibc allows no more


def keep_freed_memory() -> bool:
    """Make malloc keep freed blocks for the next step; return whether it could.

    TensorFlow's data sets from Python generators set glibc's mmap threshold to 128 kB, once in a
    process, when the first of them begins: from then on the system maps, clears and unmaps every
    activation anew in every step. tests/bench/step_memory.py measures what that costs. Elsewhere
    than on Linux with glibc this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    mapped = mallopt(MMAP_THRESHOLD, LARGEST_ON_HEAP)
    return bool(mallopt(TRIM_THRESHOLD, KEPT_BYTES) and mapped)


class KeepFreedMemory(keras.callbacks.Callback):
    """Calls `keep_freed_memory` in the first batch: TensorFlow has set its own value by then."""

    def begin(self, batch: int, logs: Any = None) -> None:
        if batch == 0:
            keep_freed_memory()

    on_train_batch_begin = on_test_batch_begin = on_predict_batch_begin = begin
