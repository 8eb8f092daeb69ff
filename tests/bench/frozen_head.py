"""What caching a frozen backbone's features saves: an epoch of the head on cached features, against
an epoch of the same head behind the frozen backbone.

    uv run python tests/bench/frozen_head.py        # about 3 minutes on two cores

Wall seconds of model.fit, the two in turn, on the same 512 random images; validation in neither.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

import kzoo
from kzoo.recipes.data.augment import Batches
from kzoo.recipes.training.stages import features, split_at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mobilenet_v3_large")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = (given.size, given.size, 3)
    images = rng.integers(0, 256, (512, *shape), dtype="uint8")
    plain = Batches(images, rng.integers(0, 10, 512), classes=10, batch_size=32)

    net = kzoo.get_model(given.model)(input_shape=shape, classes=10)
    body, head = split_at(net, "head_dropout")
    for layer in body.layers:
        layer.trainable = False
    for model in (net, head):
        model.compile("adam", "categorical_crossentropy", jit_compile=False)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        cached = plain.replaced(features(body, plain, Path(folder) / "features.npy"))
        first = time.perf_counter() - start

    seconds: dict[str, list[float]] = {"backbone": [], "cached": []}
    for i in range(given.rounds + 1):
        for name, model, data in (("backbone", net, plain), ("cached", head, cached)):
            start = time.perf_counter()
            model.fit(data.shuffled(0, i), verbose=0, shuffle=False)
            if i:  # the first round traces and compiles
                seconds[name].append(time.perf_counter() - start)
    through, after = (statistics.median(seconds[name]) for name in seconds)
    print(f"{given.model} at {given.size} px on {keras.backend.backend()}, 512 images")
    print(f"features, once                       {first:8.2f} s")
    print(f"an epoch through the frozen backbone {through:8.2f} s")
    print(f"an epoch on cached features          {after:8.2f} s    {through / after:.0f}x less")


if __name__ == "__main__":
    main()
