"""What each choice of post-training int8 is worth: signal to noise of the logits, classes, time.

    uv run python tests/bench/ptq_choices.py RUN

RUN is the folder of a `kzoo classify` run; its float model is quantized with 256 of its training
images and computed in Keras on its validation images. KL is the divergence of class
probabilities from the float model's. Cost: half a minute a row.
"""

import argparse
import time
from pathlib import Path

import keras
import numpy as np

import kzoo
from kzoo.recipes.data.images import Images
from kzoo.recipes.evaluation.finished_runs import read_run

CHOICES: tuple[dict, ...] = (
    {},
    {"equalization": False},
    {"bias_correction": False},
    {"equalization": False, "bias_correction": False},
    {"ranges": 1e-4},
    {"ranges": "minmax"},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    model, dataset, size = read_run(options.run)
    logits = keras.Model(model.input, model.get_layer("predictions").input)
    train = Images(dataset.train.paths, size)
    chosen = np.random.default_rng(0).permutation(len(train))[:256]
    calibration = np.stack([train[i] for i in chosen])
    images = Images(dataset.val.paths, size)[:].astype("float32")
    exact = centred(logits.predict(images, verbose=0))
    right = np.mean(exact.argmax(-1) == dataset.val.targets)
    print(f"float accuracy {right:.3f}, {len(images)} images\n{'dB':>6}{'KL':>8} classes right")
    for choice in CHOICES:
        start = time.perf_counter()
        int8 = kzoo.quantize(logits, calibration=calibration, **choice)
        seconds = time.perf_counter() - start
        found = centred(int8.predict(images, verbose=0))
        ratio = np.square(exact - exact.mean(0)).sum() / np.square(found - exact).sum()
        p, q = log_softmax(exact), log_softmax(found)
        divergence = (np.exp(p) * (p - q)).sum(-1).mean()
        same = np.mean(found.argmax(-1) == exact.argmax(-1))
        right = np.mean(found.argmax(-1) == dataset.val.targets)
        print(
            f"{10 * np.log10(ratio):6.2f}{divergence:8.4f}{same:8.3f}{right:6.3f}"
            f"  {choice or 'as it is'}  ({seconds:.0f} s)",
            flush=True,
        )


def centred(logits: np.ndarray) -> np.ndarray:
    """Without what all classes have in common, which no softmax sees."""
    return logits - logits.mean(axis=-1, keepdims=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    largest = logits.max(axis=-1, keepdims=True)
    return logits - largest - np.log(np.exp(logits - largest).sum(axis=-1, keepdims=True))


if __name__ == "__main__":
    main()
