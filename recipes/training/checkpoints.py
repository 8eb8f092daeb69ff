"""Checkpoints of a training stage, from which an interrupted run resumes.

A checkpoint is a folder, which gets its name when it is complete. `whole-0002` is that after epoch
2 (the third), `whole-0003-000120` that after 120 steps of epoch 3.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo.files import replacing_folder
from kzoo.recipes import distributed as distribute

BEST = "best.npz"  # the weights of the best epoch
WITHIN = "within.npz"  # metrics and seeds in the middle of an epoch
Row = dict[str, Any]  # one epoch: stage, epoch, loss, val_loss, further figures, seconds
Weights = list[np.ndarray] | None  # of `keras.Model.get_weights`


def after(folder: Path, stage: str, epochs: int, steps: int = 0) -> Path:
    """Return the folder of the checkpoint after `epochs` epochs and `steps` steps of the next."""
    name = f"{epochs - 1:04d}" if epochs and not steps else f"{epochs:04d}-{steps:06d}"
    return folder / f"{stage}-{name}"


def place(kept: Path) -> tuple[int, int]:
    """Return (finished epochs, steps of the next) of a checkpoint."""
    *_, epoch, steps = re.split("-", kept.name)
    return (int(epoch), int(steps)) if len(steps) > 4 else (int(steps) + 1, 0)


def latest(folder: Path, stage: str) -> Path | None:
    """Return the last complete checkpoint of a stage, or None."""
    return max(whole(folder, stage), key=place, default=None)


def whole(folder: Path, stage: str) -> list[Path]:
    """Return the complete checkpoints of a stage, in any order."""
    pattern = re.compile(rf"{re.escape(stage)}-\d{{4}}(-\d{{6}})?")
    return [path for path in folder.glob("*") if pattern.fullmatch(path.name)]


def agreed(folder: Path, stage: str) -> Path | None:
    """Return the checkpoint that rank 0 sees: for other ranks a shared disk may lag behind."""
    kept = latest(folder, stage)
    epochs, steps = (distribute.agreed(n) for n in (place(kept) if kept else (-1, 0)))
    return after(folder, stage, epochs, steps) if epochs >= 0 else None


def read_history(kept: Path) -> list[Row]:
    return json.loads((kept / "history.json").read_text())


def keep(
    model: keras.Model, history: list[Row], target: Path, previous: Path | None, best: Weights
) -> Path:
    """Call `write_checkpoint` in the first process; return the folder in all."""
    if distribute.first():
        write_checkpoint(model, history, target, previous, best)
    distribute.together()
    return target


def write_checkpoint(
    model: keras.Model, history: list[Row], target: Path, previous: Path | None, best: Weights
) -> Path:
    """Write a checkpoint, delete the previous ones, and return its folder `target`.

    best: the weights of the best epoch; None if they are those of the previous checkpoint.
    """
    with replacing_folder(target) as part:
        model.save(part / "model.keras")
        np.savez(part / WITHIN, *map(keras.ops.convert_to_numpy, within_epoch(model)))
        if best is not None:
            np.savez(part / BEST, *best)
        elif previous and (previous / BEST).exists():  # missing within the first epoch
            shutil.copy2(previous / BEST, part)
        (part / "history.json").write_text(json.dumps(history, indent=1))
    stage = re.sub(r"-\d{4}(-\d{6})?$", "", target.name)
    for older in whole(target.parent, stage):  # also those that an interrupted run left
        if older != target:
            shutil.rmtree(older, ignore_errors=True)
    return target


def within_epoch(model: keras.Model) -> list[Any]:
    """Return the state within an epoch that a saved model lacks: metrics and dropout's seeds."""
    return [*model.metrics_variables, *seeds(model)]


def seeds(model: keras.Model) -> list[Any]:
    """Return the state variables of the random generators of layers such as dropout."""
    found: dict[int, Any] = {}
    for layer in model.layers:
        inner = seeds(layer) if isinstance(layer, keras.Model) else []
        own = [layer.seed_generator.state] if hasattr(layer, "seed_generator") else []
        found |= {id(state): state for state in (*inner, *own)}  # models may share layers
    return list(found.values())


def restore_epoch(model: keras.Model, kept: Path) -> None:
    """Restore the state of a model within an epoch from a checkpoint."""
    with np.load(kept / WITHIN) as values:
        for name, variable in zip(values, within_epoch(model), strict=True):
            variable.assign(values[name])
