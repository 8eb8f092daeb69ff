"""CPU of a training step with its savings, one after the other.

    KERAS_BACKEND=tensorflow uv run python tests/bench/step_cost.py [--rounds 6]    (1 minute)

float: a whole pretrained net with Adam, as `kzoo classify` trains it, with frozen batch norms, with
these as parts of the convolutions (`frozen_norms`), and with the gradients of wide depthwise
kernels in parts besides (`kzoo.depthwise`). qat: the net quantized and taught by the float one,
without and with those gradients. Nets take steps in turn on the same batch; medians, each against
the first of its stage. The losses of the first steps stand beside them: they should be the same.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from unittest import mock

import keras
import numpy as np
from record import record

import kzoo
from kzoo import depthwise
from kzoo.recipes.training.frozen_norms import without_frozen_norms
from kzoo.recipes.training.memory import keep_freed_memory
from kzoo.recipes.training.transfer import freeze_pretrained

FIRST = 3
STAGES = ("float", "qat")


def nets(stage: str, net: keras.Model, x: np.ndarray) -> Iterator[tuple[str, keras.Model, bool]]:
    """Yield (name, model, whether it computes gradients of depthwise kernels in parts)."""
    if stage == "float":
        yield "batch norms frozen", net, False
        yield "parts of convolutions", without_frozen_norms(net), False
        yield "and gradients in parts", without_frozen_norms(net), True
        return
    for name, in_parts in (("as TensorFlow has it", False), ("gradients in parts", True)):
        yield name, kzoo.distill(kzoo.quantize(net, calibration=x[:8]), net), in_parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mobilenet_v3_small")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    given = parser.parse_args()
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (given.batch, given.size, given.size, 3)).astype("float32")
    y = np.eye(10, dtype="float32")[rng.integers(0, 10, given.batch)]
    net = kzoo.get_model(given.model)(input_shape=x.shape[1:], classes=10, dropout_rate=0.0)
    freeze_pretrained(net, set())
    rows = []
    for stage in given.stages:
        rows += measured(stage, net, x, y, given)
    record(f"step_cost_{keras.backend.backend()}", rows)


def measured(
    stage: str, net: keras.Model, x: np.ndarray, y: np.ndarray, given: argparse.Namespace
) -> list[dict]:
    """Return the rows of a stage."""
    ways = list(nets(stage, net, x))
    losses: dict[str, list[float]] = {name: [] for name, *_ in ways}
    cpu: dict[str, list[float]] = {name: [] for name, *_ in ways}
    for _, model, _ in ways:
        jit = keras.backend.backend() == "jax"
        model.compile(keras.optimizers.Adam(1e-4), "categorical_crossentropy", jit_compile=jit)
    for step in range(FIRST + given.rounds):
        for name, model, in_parts in ways:
            keep_freed_memory()
            here = in_parts and depthwise.computes_by_onednn()
            with mock.patch.object(depthwise, "computes_by_onednn", return_value=here):
                start = time.process_time()
                loss = model.train_on_batch(x, y)
            if step < FIRST:  # traces, and finds memory
                losses[name].append(float(loss))
            else:
                cpu[name].append(1e3 * (time.process_time() - start))
    first = statistics.median(cpu[ways[0][0]])
    return [
        {
            "backend": keras.backend.backend(), "model": given.model, "size": given.size,
            "batch": given.batch, "stage": stage, "net": name,
            "cpu_ms": statistics.median(found), "spread_ms": max(found) - min(found),
            "of_before": statistics.median(found) / first,
            "losses": " ".join(f"{loss:.4f}" for loss in losses[name]), "n": given.rounds,
        }
        for name, found in cpu.items()
    ]  # fmt: skip


if __name__ == "__main__":
    main()
