"""What glibc's malloc settings change in a training step: minor page faults and CPU time.

    KERAS_BACKEND=tensorflow uv run python tests/bench/step_memory.py [--model mobilenet_v3_small]

One process trains on; every few steps the settings change, so that they take turns. "as TensorFlow
leaves it": its data sets from generators set the mmap threshold to 128 kB when they begin, and with
that every tensor above is mapped and unmapped each time. Medians over rounds; Linux only.
"""

import argparse
import ctypes
import resource
import statistics
import time

import keras
import numpy as np
from record import record

import kzoo
from kzoo.recipes.data.augment import Batches

TRIM, TOP_PAD, MMAP = -1, -2, -3  # of malloc.h
MB = 1 << 20
SETTINGS = {
    "as TensorFlow leaves it": {MMAP: 128 << 10, TRIM: 128 << 10, TOP_PAD: 0},
    "mmap 32 MB": {MMAP: 32 * MB, TRIM: 128 << 10, TOP_PAD: 0},
    "mmap 32 MB, trim 256 MB": {MMAP: 32 * MB, TRIM: 256 * MB, TOP_PAD: 0},
}


class Turns(keras.callbacks.Callback):
    """Changes the settings every `steps` steps and notes what the steps after the first took."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps, self.libc = steps, ctypes.CDLL(None)
        self.taken: dict[str, list[tuple[float, ...]]] = {name: [] for name in SETTINGS}

    def on_train_batch_begin(self, batch, logs=None):
        turn, step = divmod(batch, self.steps)
        name = list(SETTINGS)[turn % len(SETTINGS)]
        if step == 0:
            for parameter, value in SETTINGS[name].items():
                assert self.libc.mallopt(parameter, value) == 1
        if step == 1:  # the first gives back or asks for memory
            self.before, self.since = self.used(), time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        turn, step = divmod(batch, self.steps)
        if step == self.steps - 1 and turn >= len(SETTINGS):  # the first round traces
            now = (*self.used(), time.perf_counter())
            each = [(a - b) / (step) for a, b in zip(now, (*self.before, self.since), strict=True)]
            self.taken[list(SETTINGS)[turn % len(SETTINGS)]].append(tuple(each))

    def used(self) -> tuple[float, float, float]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_minflt, used.ru_stime, used.ru_utime


class Again(Batches):
    """Two batches again and again: what is left is the step."""

    count = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int):
        return super().__getitem__(i % 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mobilenet_v3_small")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=4, help="of a turn")
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = (given.size, given.size, 3)
    images = rng.integers(0, 256, (64, *shape), dtype="uint8")
    batches = Again(images, rng.integers(0, 10, 64), classes=10, batch_size=32)
    batches.count = (given.rounds + 1) * given.steps * len(SETTINGS)
    net = kzoo.get_model(given.model)(input_shape=shape, classes=10)
    jax = keras.backend.backend() == "jax"
    net.compile("adam", "categorical_crossentropy", jit_compile=jax)
    turns = Turns(given.steps)
    net.fit(batches, verbose=0, shuffle=False, callbacks=[turns])
    rows = []
    for name, taken in turns.taken.items():
        faults, system, user, wall = (statistics.median(v) for v in zip(*taken, strict=True))
        cpu = [s + u for _, s, u, _ in taken]
        rows.append({
            "backend": keras.backend.backend(), "model": given.model, "size": given.size,
            "setting": name, "faults": faults, "system_ms": 1e3 * system, "user_ms": 1e3 * user,
            "cpu_ms": 1e3 * (system + user), "cpu_spread_ms": 1e3 * (max(cpu) - min(cpu)),
            "wall_ms": 1e3 * wall, "n": len(taken),
        })  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"largest resident size {peak:.0f} MB")
    record(f"step_memory_{keras.backend.backend()}", rows)


if __name__ == "__main__":
    main()
