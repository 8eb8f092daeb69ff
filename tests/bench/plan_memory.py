"""Memory of training against what `kzoo plan` says of it.

    KERAS_BACKEND=jax uv run python tests/bench/plan_memory.py      a minute or two; any backend

MobileNetV3-Small at 224 px, Adam, on this machine's CPU: how much more a process has resident at
the most during steps, after the first, than before the net was built. A process for each line.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

from kzoo.recipes.programs.plan import Ask, Plan, compiled, cost

STEPS = 3
CASES = [("mobilenet_v3_small", 16), ("mobilenet_v3_small", 64), ("mobilenet_v2", 32)]


def status(name: str) -> float:
    """A line of this process' status, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name)) / 1e6


def measured(ask: Ask) -> float:
    before = status("VmRSS")
    net = compiled(ask)
    images = np.zeros((ask.batch_size, ask.size, ask.size, 3), "float32")
    batch = images, np.zeros(len(images), "int32")
    net.train_on_batch(*batch)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: man 5 proc
    for _ in range(STEPS):
        net.train_on_batch(*batch)
    return status("VmHWM") - before


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case is not None:
        model, batch = CASES[given.case]
        print(json.dumps(measured(Ask(model, batch_size=batch))))
        sys.exit()
    print(f"{keras.backend.backend():24} images   plan, GB   measured   measured / plan")
    for k, (model, batch) in enumerate(CASES):
        ask = Ask(model, batch_size=batch)
        plan = Plan(ask, *cost(ask), rate=1.0, reading=1.0, kb=1.0)
        words = [sys.executable, __file__, "--case", str(k)]
        output = subprocess.run(words, capture_output=True, check=True, text=True).stdout
        found = json.loads(output.splitlines()[-1])
        print(
            f"{model:24} {batch:8} {plan.memory:10.2f} {found:10.2f} {found / plan.memory:17.2f}",
            flush=True,
        )
