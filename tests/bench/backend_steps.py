"""What a training step of a MobileNet costs on the CPU, by backend.

    KERAS_BACKEND=tensorflow uv run python tests/bench/backend_steps.py [--steps 6]
    KERAS_BACKEND=jax ...        KERAS_BACKEND=torch ...        (a minute each)

The whole float net trains by Adam, batch 32; JAX compiles the step, TensorFlow and PyTorch do not.
The first three steps, which trace and compile, do not count. CPU time of the process and minor page
faults per step, medians. Compare backends measured one after the other.
"""

import argparse
import resource
import statistics
import time

import keras
import numpy as np
from record import record

import kzoo
from kzoo.recipes.training.memory import keep_freed_memory

BATCH, FIRST = 32, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mobilenet_v3_small")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=6)
    given = parser.parse_args()
    backend = keras.backend.backend()
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (BATCH, given.size, given.size, 3)).astype("float32")
    y = np.eye(10, dtype="float32")[rng.integers(0, 10, BATCH)]
    net = kzoo.get_model(given.model)(input_shape=x.shape[1:], classes=10)
    net.compile("adam", "categorical_crossentropy", jit_compile=backend == "jax")
    keep_freed_memory()
    cpu, faults, wall = [], [], []
    for step in range(FIRST + given.steps):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        begun, start = time.process_time(), time.perf_counter()
        net.train_on_batch(x, y)
        if step >= FIRST:
            cpu.append(time.process_time() - begun)
            wall.append(time.perf_counter() - start)
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    record(
        f"backend_steps_{backend}",
        [{
            "backend": backend, "keras": keras.__version__, "model": given.model,
            "size": given.size, "batch": BATCH, "cpu_ms": 1e3 * statistics.median(cpu),
            "cpu_spread_ms": 1e3 * (max(cpu) - min(cpu)), "wall_ms": 1e3 * statistics.median(wall),
            "faults": int(statistics.median(faults)), "n": given.steps,
        }],
    )  # fmt: skip


if __name__ == "__main__":
    main()
