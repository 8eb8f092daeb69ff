"""A stage of training, and which of its epochs was the best."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from kzoo.recipes.training.checkpoints import Row


@dataclasses.dataclass(frozen=True)
class Stage:
    """One leg of a training run: Adam on a cosine from `learning_rate` to 0 after a warm-up.

    The best epoch has the highest `metric`, a key of the history, and among equals the lowest loss
    on the validation images. Where the metric is "val_loss" it has the lowest.
    """

    name: str
    epochs: int
    learning_rate: float
    loss: Any = None  # as `keras.Model.compile` takes it; None where the model computes its own
    metrics: Sequence[Any] = ()
    metric: str = "val_loss"
    warmup: float = 0.1  # fraction of all steps
    patience: int = 10  # epochs without a better one before the stage ends
    accumulate: int = 1  # steps whose gradients make one update
    save_every: float = 0.0  # minutes between checkpoints within an epoch; 0: at its end only
    # Momentum, by step, of the mean of the weights that is measured and kept; 0: the weights.
    ema: float = 0.0
    title: str = ""  # what people call it; empty: its name
    cost: float = 1.0  # time that an epoch takes, about, against one of the whole network

    def schedule(self, steps: int, library: Any = keras) -> Any:
        """Return the learning rate over that many steps; `library`: keras or tf_keras."""
        warmup = max(1, int(steps * self.warmup))
        return library.optimizers.schedules.CosineDecay(
            self.learning_rate / warmup,
            max(1, steps - warmup),
            warmup_target=self.learning_rate,
            warmup_steps=warmup,
        )

    def rank(self, row: Row) -> tuple[float, ...]:
        """Return what is the larger the better an epoch is."""
        return (-row["val_loss"],) if self.metric == "val_loss" else (
            row[self.metric], -row["val_loss"],
        )  # fmt: skip


def best_epoch(history: list[Row], stage: Stage) -> int:
    """Return the place of the best epoch in the history of a stage."""
    return max(range(len(history)), key=lambda i: stage.rank(history[i]))
