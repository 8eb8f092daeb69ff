"""Quantization-aware training by tensorflow-model-optimization (`--qat-engine tfmot`).

tfmot needs tf-keras and TensorFlow, so it runs in a separate process, whatever Keras' backend. That
process reads a job file and the run's model.keras, and writes model.tflite. Interrupted, it resumes
from the last epoch.
"""

import dataclasses
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo.files import replacing
from kzoo.interop import quantize_model, to_tf_keras
from kzoo.interop.tf_keras import neighbour
from kzoo.recipes.data.class_dataset import Dataset
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.display import StageDisplay
from kzoo.recipes.training.stage import Stage, best_epoch
from kzoo.tflite.convert.prepare import absorb_preprocessing, copy_in_float32

Batch = tuple[np.ndarray, np.ndarray]
LEARNING_RATE = 1e-4  # with class probabilities as the only targets
JOB, KEPT, HISTORY = "job.pickle", "epoch.npz", "history.json"  # in checkpoint/tfmot of a run


def train_by_tfmot(folder: Path, config: Any, dataset: Dataset) -> tuple[Path, list[Row]]:
    """Return (the int8 file trained by tfmot from a run's model.keras, its history)."""
    place = folder / "checkpoint" / "tfmot"
    place.mkdir(parents=True, exist_ok=True)
    alone = dataclasses.replace(config, distribute=None, rank=None)
    (place / JOB).write_bytes(pickle.dumps((alone, dataset)))
    code = "import sys; from kzoo.recipes.classify import tfmot_work; tfmot_work(sys.argv[1])"
    command = [sys.executable, "-c", code, str(folder)]
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    # Its standard input is closed when this process ends, upon which it exits too.
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
    try:
        ended = process.wait()
    finally:
        process.kill()
    if ended:
        raise RuntimeError(f"The process that trains with tfmot ended with code {ended}.")
    return folder / "model.tflite", json.loads((place / HISTORY).read_text())


def prepared(
    net: keras.Model, images: np.ndarray, *, frozen_norms: bool
) -> tuple[Any, Callable[[np.ndarray], np.ndarray]]:
    """Return (tfmot's quantized model of `net`, function from pixels to its input).

    The model has no Rescaling, which the scale and zero point of the file's input replace.
    """
    body, grid = absorb_preprocessing(copy_in_float32(net))
    real = grid.real if grid else lambda x: x.astype("float32")
    twin = to_tf_keras(body)
    for layer in twin.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.trainable = not frozen_norms
    images = images.copy()
    images[0, 0, :2] = [[0], [255]]  # so that the input's range covers all bytes
    return quantize_model(twin, calibration=real(images)), real


def fit_tf_keras(
    quantized: Any, stage: Stage, train: Callable[[int], Any], val: Any,
    real: Callable[[np.ndarray], np.ndarray], file: Path,
) -> list[Row]:  # fmt: skip
    """Train a tf-keras model as `training.stages.fit` does, to its best epoch; return the history.

    train: returns the batches (pixels, targets) of an epoch. real: converts pixels to the model's
    input. file: the checkpoint.
    """
    tf_keras = neighbour("tf_keras", "tfmot")
    steps = stage.epochs * len(train(0)) if stage.epochs else 1
    optimizer = tf_keras.optimizers.Adam(stage.schedule(steps, tf_keras))
    quantized.compile(optimizer, "categorical_crossentropy", ["accuracy"])
    optimizer.build(quantized.trainable_variables)
    state = [*quantized.weights, *optimizer.variables]
    history: list[Row] = []
    best = quantized.get_weights()
    if file.exists():
        with np.load(file) as kept:
            for i, variable in enumerate(state):
                variable.assign(kept[f"state{i}"])
            history = json.loads(str(kept["history"]))
            best = [kept[f"best{i}"] for i in range(len(best))]
    display = StageDisplay(stage)
    for epoch in range(len(history), stage.epochs):
        if history and len(history) - 1 - best_epoch(history, stage) >= stage.patience:
            break
        start = time.perf_counter()
        shown = train(epoch)
        fitted = quantized.fit(
            fed(shown, real),
            steps_per_epoch=len(shown),
            epochs=epoch + 1,
            initial_epoch=epoch,
            verbose=0,
        )
        row = {key: float(value[-1]) for key, value in fitted.history.items()}
        seen = quantized.evaluate(fed(val, real), steps=len(val), verbose=0, return_dict=True)
        row |= {f"val_{key}": float(value) for key, value in seen.items()}
        seconds = round(time.perf_counter() - start, 2)
        history.append({"stage": stage.name, "epoch": epoch, **row, "seconds": seconds})
        if best_epoch(history, stage) == epoch:
            best = quantized.get_weights()
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part, part.open("wb") as out:
            arrays = {f"state{i}": variable.numpy() for i, variable in enumerate(state)}
            arrays |= {f"best{i}": value for i, value in enumerate(best)}
            np.savez(out, history=json.dumps(history), **arrays)
        display.ended(history)
    quantized.set_weights(best)
    return history


def fed(batches: Any, real: Callable[[np.ndarray], np.ndarray]) -> Iterator[Batch]:
    for i in range(len(batches)):
        pixels, targets = batches[i]
        yield real(pixels), targets


def end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)
