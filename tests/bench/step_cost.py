"""CPU of a training step with frozen batch norms as they are, and as parts of the convolutions.

    KERAS_BACKEND=tensorflow uv run python tests/bench/step_cost.py [--rounds 6]    (30 s)

The whole MobileNetV3-Small at 224 px, batch 32, Adam, as `kzoo classify` trains it when it is
pretrained. Both nets take steps in turn on the same batch; medians. The losses of the first steps
stand beside them: they should be the same.
"""

import argparse
import statistics
import time

import keras
import numpy as np
from record import record

import kzoo
from kzoo.recipes.training.frozen_norms import without_frozen_norms
from kzoo.recipes.training.memory import keep_freed_memory
from kzoo.recipes.training.transfer import freeze_pretrained

BATCH, FIRST = 32, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mobilenet_v3_small")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=6)
    given = parser.parse_args()
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (BATCH, given.size, given.size, 3)).astype("float32")
    y = np.eye(10, dtype="float32")[rng.integers(0, 10, BATCH)]
    net = kzoo.get_model(given.model)(input_shape=x.shape[1:], classes=10, dropout_rate=0.0)
    freeze_pretrained(net, set())
    nets = {"batch norms frozen": net, "parts of convolutions": without_frozen_norms(net)}
    losses: dict[str, list[float]] = {name: [] for name in nets}
    cpu: dict[str, list[float]] = {name: [] for name in nets}
    for model in nets.values():
        jit = keras.backend.backend() == "jax"
        model.compile(keras.optimizers.Adam(1e-4), "categorical_crossentropy", jit_compile=jit)
    for step in range(FIRST + given.rounds):
        for name, model in nets.items():
            keep_freed_memory()
            start = time.process_time()
            loss = model.train_on_batch(x, y)
            if step < FIRST:  # traces, and finds memory
                losses[name].append(float(loss))
            else:
                cpu[name].append(1e3 * (time.process_time() - start))
    before = statistics.median(cpu["batch norms frozen"])
    rows = [
        {
            "backend": keras.backend.backend(), "model": given.model, "size": given.size,
            "batch": BATCH, "net": name, "cpu_ms": statistics.median(cpu[name]),
            "spread_ms": max(cpu[name]) - min(cpu[name]),
            "of_before": statistics.median(cpu[name]) / before,
            "losses": " ".join(f"{loss:.4f}" for loss in losses[name]), "n": given.rounds,
        }
        for name in nets
    ]  # fmt: skip
    record(f"step_cost_{keras.backend.backend()}", rows)


if __name__ == "__main__":
    main()
