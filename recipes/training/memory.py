"""Memory of training: a check that it suffices, and malloc settings for speed."""

import contextlib
import ctypes
import gc
import math
import os
from pathlib import Path
from typing import Any

import keras

from kzoo.devices import on_accelerator
from kzoo.sizes import Size, size_text

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# Largest ratio of a step's memory to the layers' float32 outputs, measured by
# tests/bench/plan_memory.py (TensorFlow on a CPU; JAX has 1.1).
BYTES_PER_OUTPUT = 4 * 1.7
BYTES_PER_PARAMETER = 16  # the weight, its gradient, and Adam's two moments
CGROUP = Path("/sys/fs/cgroup")
# Parameters of mallopt, from glibc's malloc.h, and the values to set.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 256 << 20  # free memory at the heap's end that is not returned to the system
LARGEST_ON_HEAP = 32 << 20  # largest block on the heap; glibc's maximum


def free_bytes() -> int | None:
    """Return the memory in bytes that this process may still allocate; None if unknown.

    The least of the machine's available memory and the limits of address space (`ulimit -v`) and
    control group (containers).
    """
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(int(next(x for x in lines if x.startswith("MemAvailable:")).split()[1]) << 10)
    with contextlib.suppress(OSError, ValueError):  # "max": no limit
        most = int((CGROUP / "memory.max").read_text(encoding="ascii"))
        found.append(most - int((CGROUP / "memory.current").read_text(encoding="ascii")))
    if resource is not None:
        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        with contextlib.suppress(OSError):
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            if most != resource.RLIM_INFINITY:
                found.append(most - pages * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


def require_memory(model: keras.Model, batch_size: int, size: Size) -> None:
    """Raise ValueError if training with `batch_size` images per step needs more than free memory.

    This is an estimate; the message names a batch size that fits. There is no check on
    accelerators, which have their own memory.
    """
    free = free_bytes()
    if free is None or on_accelerator():
        return
    fixed = BYTES_PER_PARAMETER * model.count_params()
    each = BYTES_PER_OUTPUT * sum(map(output_numbers, model.layers))
    if fixed + batch_size * each <= free:
        return
    fits = int((free - fixed) // each)
    way = f"--batch-size {1 << fits.bit_length() - 1} fits" if fits > 0 else "no batch size fits"
    raise ValueError(
        f"Training on {batch_size} images of {size_text(size)} px a step takes about "
        f"{(fixed + batch_size * each) / 1e9:.1f} GB, and {max(free, 0) / 1e9:.1f} GB are free "
        f"within the machine, its container and `ulimit -v`: {way}; a smaller --size or --alpha "
        "takes less."
    )


def output_numbers(layer: keras.layers.Layer) -> int:
    """Return the number of elements of a layer's outputs for one image."""
    if isinstance(layer, keras.Model):
        return sum(map(output_numbers, layer.layers))
    try:
        outputs = keras.tree.flatten(layer.output)
    except (AttributeError, ValueError):  # never called, or called several times
        return 0
    return sum(math.prod(side or 1 for side in output.shape[1:]) for output in outputs)


def keep_freed_memory() -> bool:
    """Make malloc keep freed blocks for the next step; return whether that was possible.

    TensorFlow's data sets from Python generators set glibc's mmap threshold to 128 kB when the
    first one starts: from then on the system maps, clears and unmaps every activation in every
    step. tests/bench/step_memory.py measures the cost. Only effective on Linux with glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    mapped = mallopt(MMAP_THRESHOLD, LARGEST_ON_HEAP)
    return bool(mallopt(TRIM_THRESHOLD, KEPT_BYTES) and mapped)


def release_freed_memory() -> bool:
    """Return freed memory to the system; return whether there was any.

    Called between the stages of a run, whose blocks of memory differ in size.
    """
    gc.collect()
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):
        return False


class KeepFreedMemory(keras.callbacks.Callback):
    """Calls `keep_freed_memory` in the first batch: TensorFlow has set its own value by then.

    Before the second training batch it releases, once, what tracing the step has left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.released = False

    def begin(self, batch: int, logs: Any = None) -> None:
        if batch == 0:
            keep_freed_memory()

    on_test_batch_begin = on_predict_batch_begin = begin

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.begin(batch)
        if batch == 1 and not self.released:
            release_freed_memory()
            self.released = True
