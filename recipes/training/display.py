"""Display of a run's stages: one line per epoch, and a progress bar on a terminal."""

import contextlib
import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from kzoo.recipes import progress
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.stage import Stage, best_epoch

METRICS = {"val_map": "mAP", "val_mean_iou": "mean IoU"}  # display names
WHERE = "on the validation images"


def metric_name(key: str) -> str:
    """Return the display name of a key of the history: "mAP" for "val_map"."""
    return METRICS.get(key, key.removeprefix("val_").replace("_", " "))


def duration(seconds: float) -> str:
    """Return "45 s", "3 min" or "2 h 10 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 100 else f"{minutes} min"


class Advance(keras.callbacks.Callback):
    """Advances a progress bar with every batch."""

    def __init__(self, bar: progress.Bar):
        super().__init__()
        self.bar = bar

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.bar.advance()

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self.bar.advance()

    def on_test_begin(self, logs: Any = None) -> None:
        self.bar.advance(0, description=f"measuring {WHERE}")


@dataclasses.dataclass(frozen=True)
class StageDisplay:
    """Displays the progress of one stage."""

    stage: Stage
    number: str = "Stage"  # "Stage 2 of 4"
    later: float = 0.0  # cost of the later stages, in epochs of the whole network

    @property
    def heading(self) -> str:
        return f"{self.number}: {self.stage.title or self.stage.name}"

    def show(self, words: str) -> None:
        progress.show(f"{self.heading}{words}")

    def resuming(self, epoch: int, steps: int) -> None:
        """Show where the stage resumes; `epoch` counts from 0."""
        after = f", after {steps} steps" if steps else ""
        where = self.number.lower().partition(" of ")[0]
        self.show(f", resuming at epoch {epoch + 1} of {where}{after}")

    def before_training(self, row: Row) -> None:
        """Show the figures of an int8 model after calibration alone."""
        key = self.stage.metric
        self.show(f", before it: {metric_name(key)} {row[key]:.3f} {WHERE}")

    @contextlib.contextmanager
    def epoch(self, epoch: int, steps: int) -> Iterator[Advance]:
        """Show a progress bar of the epoch; yield the callback that advances it."""
        text = f"{self.heading}, epoch {epoch + 1}/{self.stage.epochs}"
        with progress.bar(text, steps) as bar:
            yield Advance(bar)

    def ended(self, history: list[Row]) -> None:
        """Show the last epoch of the history."""
        row, best = history[-1], best_epoch(history, self.stage)
        key = self.stage.metric
        found = f"{metric_name(key)} {row[key]:.3f} {WHERE}"
        if best == len(history) - 1:
            found += ", the best so far"
        else:
            found += f" (best {history[best][key]:.3f} in epoch {best + 1})"
        self.show(
            f", epoch {len(history)}/{self.stage.epochs}: {found}; loss {row['loss']:.4g}; "
            f"{duration(row['seconds'])}{self.left(history)}"
        )

    def left(self, history: list[Row]) -> str:
        """Return the estimated time left for the stage and the run; "" at the end."""
        # The first epoch includes compilation.
        each = statistics.median(row["seconds"] for row in history[-3:][len(history) > 1 :])
        stage = each * (self.stage.epochs - len(history))
        run = stage + each / self.stage.cost * self.later
        words = [f"{duration(stage)} of the stage"] if stage else []
        words += [f"about {duration(run)} of the run"] if self.later else []
        return f"; left {', '.join(words)}" if words else ""

    def out_of_patience(self) -> None:
        self.show(f": no better epoch in {self.stage.patience}, so the stage ends")


def fallen_behind(trained: Sequence[tuple[Stage, list[Row]]]) -> str | None:
    """Return a remark if the last stage's best epoch is worse than that of an earlier one.

    trained: stages with their histories. None if it is not worse, or if their metrics differ.
    """
    best = [(stage, rows[best_epoch(rows, stage)]) for stage, rows in trained if rows]
    for stage, row in best[:-1]:
        last, found = best[-1]
        key = last.metric
        if stage.metric == key != "val_loss" and found[key] < row[key]:
            return (
                f"The stage of {last.title} ends with {metric_name(key)} {found[key]:.3f} {WHERE}, "
                f"that of {stage.title} with {row[key]:.3f}. Train longer (--epochs) or at a lower "
                "--learning-rate, in another --out"
            )
    return None


def stage_displays(stages: Sequence[Stage], *, last: str) -> tuple[list[StageDisplay], str]:
    """Return (displays of a run's stages, the heading of the last step: "Stage 4 of 4: LAST")."""
    count = len(stages) + 1
    displays = [
        StageDisplay(
            stage, f"Stage {i} of {count}", sum(later.epochs * later.cost for later in stages[i:])
        )
        for i, stage in enumerate(stages, 1)
    ]
    return displays, f"Stage {count} of {count}: {last}"
