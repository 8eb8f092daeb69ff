"""The settings of a training stage, and the choice of its best epoch."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from kzoo.recipes.training.checkpoints import Row


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a run: Adam with cosine decay from `learning_rate` to 0 after a warm-up.

    The best epoch has the highest `metric`, a key of the history, and among equals the lowest
    validation loss; for the metric "val_loss" it has the lowest.
    """

    name: str
    epochs: int
    learning_rate: float
    loss: Any = None  # as for `keras.Model.compile`; None if the model has its own
    metrics: Sequence[Any] = ()
    metric: str = "val_loss"
    warmup: float = 0.1  # fraction of all steps
    patience: int = 10  # epochs without improvement before the stage ends
    accumulate: int = 1  # steps whose gradients are accumulated for one update
    save_every: float = 0.0  # minutes between checkpoints within an epoch; 0: at its end only
    # Highest momentum of the moving average of the weights, which is evaluated and saved; 0: off.
    ema: float = 0.0
    title: str = ""  # for display; empty: its name
    cost: float = 1.0  # approximate time of an epoch relative to one of the whole network

    def schedule(self, steps: int, library: Any = keras) -> Any:
        """Return the learning rate schedule for that many steps; `library`: keras or tf_keras."""
        warmup = max(1, int(steps * self.warmup))
        return library.optimizers.schedules.CosineDecay(
            self.learning_rate / warmup,
            max(1, steps - warmup),
            warmup_target=self.learning_rate,
            warmup_steps=warmup,
        )

    def rank(self, row: Row) -> tuple[float, ...]:
        """Return a sort key that is larger for better epochs."""
        return (-row["val_loss"],) if self.metric == "val_loss" else (
            row[self.metric], -row["val_loss"],
        )  # fmt: skip


def best_epoch(history: list[Row], stage: Stage) -> int:
    """Return the index of the best epoch in the history of a stage."""
    return max(range(len(history)), key=lambda i: stage.rank(history[i]))
