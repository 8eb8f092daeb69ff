"""One of the processes of a small training run on JAX, for tests of several: not a test itself.

    toy_run.py FOLDER ADDRESSES RANK [SAVE_EVERY [SECONDS]]     '' as ADDRESSES: alone

Prints a line of JSON: the epochs, and what the final weights sum up to. FOLDER/seen-RANK.txt says
which images were trained on.
"""

# ruff: noqa: E402  (Keras reads its backend when it is imported)
import json
import os
import sys
import time
from functools import partial
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
sys.modules["tensorflow"] = None  # type: ignore[assignment]  # Keras would take 10 s to import it

import keras
import numpy as np

from kzoo.recipes import distributed as distribute
from kzoo.recipes.data.augment import Batches
from kzoo.recipes.training.stage import Stage
from kzoo.recipes.training.stages import balanced, finished_stage, fit

COUNT, SIDE, BATCH, EPOCHS = 62, 16, 16, 2  # the last batch has 14, which 4 cannot share


def data(seed: int) -> Batches:
    """Images of three colours in noise."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, 3, COUNT)
    images = random.integers(0, 150, (COUNT, SIDE, SIDE, 3), dtype="uint8")
    images[np.arange(COUNT), ..., targets] += 60
    weight = balanced(targets, 3) if seed == 0 else None
    return Batches(images, targets, classes=3, batch_size=BATCH, class_weight=weight)


def net() -> keras.Model:
    keras.utils.set_random_seed(0)
    norm = partial(keras.layers.BatchNormalization, momentum=0.8)
    # No bias in front of a norm: its gradient is rounding alone, which Adam makes as large as any.
    return keras.Sequential([
        keras.Input((SIDE, SIDE, 3)), norm(center=False),
        keras.layers.Conv2D(8, 3, strides=2, use_bias=False), norm(),
        keras.layers.ReLU(), keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dropout(0.2, seed=3), keras.layers.Dense(3, activation="softmax"),
    ])  # fmt: skip


def main(folder: Path, addresses: str, rank: int, save_every: float, seconds: float) -> None:
    seen = folder / f"seen-{rank}.txt"

    class Watched(Batches):
        """Notes which images were shown, and takes its time."""

        def __getitem__(self, i: int):
            time.sleep(seconds)
            chosen, counted = self.own(i)
            with seen.open("a") as out:
                for j in chosen[counted]:
                    print(*self.seed, self.done + i, j, file=out)
            return super().__getitem__(i)

    train = data(0)
    train.__class__ = Watched
    stage = Stage(
        "toy", EPOCHS, 0.05, "categorical_crossentropy", ["accuracy"], "least",
        save_every=save_every,
    )  # fmt: skip

    def measure(model: keras.Model) -> dict[str, float]:
        """What one process alone finds out, as the mAP of a detector."""
        return {"least": float(model.predict(data(1), verbose=0).min())}

    with distribute.joined(addresses or None, rank if addresses else None):
        model, history = finished_stage(
            folder / "done.keras",
            lambda: fit(
                net(),
                stage,
                lambda epoch: train.shuffled(0, epoch),
                data(1),
                folder,
                measure=measure,
            ),
        )
        sums = [float(np.abs(w).sum()) for w in model.get_weights()]
        print(json.dumps({"history": history, "weights": sums}), flush=True)


if __name__ == "__main__":
    folder, addresses, rank, *rest = sys.argv[1:]
    main(Path(folder), addresses, int(rank), *map(float, rest or (0, 0)))
