"""Plots in the reports of all tasks."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kzoo.recipes.training.checkpoints import Row

MOST_WRITTEN = 25  # largest number of classes of a confusion matrix with numbers in its cells
LEAST_SHARE = 0.005  # smaller shares are not written


def known_curves(history: Sequence[Row], keys: Sequence[str]) -> list[str]:
    """Return the keys to plot, with "loss" for those that runs of earlier versions lack."""
    known = {name.removeprefix("val_") for row in history for name in row}
    return list(dict.fromkeys(key if key in known else "loss" for key in keys))


def draw_curves(history: list[Row], keys: Sequence[str]) -> Figure:
    """Plot training and validation values of `keys` over all epochs of all stages."""
    figure = Figure(figsize=(5 * len(keys), 3.6), layout="constrained")
    epochs = np.arange(1, len(history) + 1)
    for axes, key in zip(figure.subplots(1, len(keys), squeeze=False).flat, keys, strict=True):
        for name, label, colour in (
            (key, "training", "#9aa5b8"),
            (f"val_{key}", "validation", "#2458d3"),
        ):
            if any(name in row for row in history):
                values = [row.get(name, np.nan) for row in history]
                axes.plot(epochs, values, label=label, color=colour)
        begins = [
            i for i, row in enumerate(history) if not i or row["stage"] != history[i - 1]["stage"]
        ]
        for number, i in enumerate(begins):
            axes.axvline(i + 0.5, color="#d5dae3", linewidth=1, zorder=0)
            axes.text(  # at alternating heights, since a stage may have a single epoch
                i + 0.6, 1.0 + 0.07 * (number % 2), history[i]["stage"], fontsize=8,
                color="#5b6475", va="bottom", transform=axes.get_xaxis_transform(),
            )  # fmt: skip
        axes.set_xlabel("epoch")
        axes.set_ylabel({"map": "mAP"}.get(key, key.replace("_", " ")))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def plain_text(label: str) -> str:
    """Return a name with escaped dollar signs, which Matplotlib would read as a formula."""
    return label.replace("$", r"\$")


def draw_confusion(
    counts: np.ndarray, labels: Sequence[str], *, found: str = "predicted", shares: bool = False
) -> Figure:
    """Draw a confusion matrix: true classes in rows, predictions in columns.

    counts: (classes, classes), of images or pixels.
    found: label of the columns.
    shares: show shares of the true class instead of counts.
    """
    labels = [plain_text(label) for label in labels]
    share = counts / np.maximum(1, counts.sum(1, keepdims=True))
    side = min(12.0, 2.5 + 0.5 * len(labels))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel(found)
    axes.set_ylabel("true")
    if len(labels) <= MOST_WRITTEN:
        for (i, j), value in np.ndenumerate(share):
            if value >= (LEAST_SHARE if shares else 1e-12):
                text = f"{value:.0%}" if shares else str(counts[i, j])
                colour = "white" if value > 0.5 else "black"
                axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    return figure
