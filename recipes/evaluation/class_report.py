"""What a classification run leaves for people: report.html, predictions.csv and .png."""

import csv
import dataclasses
import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kzoo.files import replacing
from kzoo.recipes.data.class_dataset import Dataset
from kzoo.recipes.data.images import read_image
from kzoo.recipes.evaluation.page import (
    THUMBNAIL,
    draw_curves,
    gallery,
    listed,
    plot,
    preformatted,
    settings,
    table,
    write_page,
)
from kzoo.recipes.files import write_json
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.run_folder import Results, read_config

GALLERY = 24  # images shown


def write_report(
    folder: Path,
    dataset: Dataset,
    history: list[Row],
    scores: dict[str, np.ndarray],
    comparison: Any,
) -> Results:
    """Writes report.html, results.json, predictions.csv and predictions.png; returns the results.

    `scores` holds the class probabilities (N, classes) of the "float" and of the "int8" model for
    the validation images; `comparison` is what `kzoo.tflite.compare` said of the two.
    """
    targets = dataset.val.targets
    accuracy = {name: float((s.argmax(1) == targets).mean()) for name, s in scores.items()}
    results = Results(
        folder, accuracy["float"], accuracy["int8"], comparison.agreement, comparison.sqnr_db
    )
    write_json(folder / "results.json", dataclasses.asdict(results) | {"folder": folder.name})
    write_predictions(folder / "predictions.csv", dataset, scores)
    sure = np.argsort(-scores["int8"].max(1), kind="stable")
    wrong = [i for i in sure if scores["int8"][i].argmax() != targets[i]][:GALLERY]
    anyone = np.random.default_rng(0).permutation(len(targets))[:GALLERY]
    with replacing(folder / "predictions.png") as part:
        draw_gallery(dataset, scores["int8"], anyone).savefig(part, dpi=100)

    config = read_config(folder)
    confusion = draw_confusion(targets, scores["int8"].argmax(1), dataset.labels)
    sections = {
        "Result": results_table(results, folder, comparison),
        "Training": plot(draw_curves(history, ("loss", "accuracy")), "loss and accuracy by epoch")
        if history
        else "",
        "Confusion of the int8 model": plot(confusion, "confusion matrix"),
        "The surest mistakes of the int8 model": answers(dataset, scores["int8"], wrong),
        "Images of all kinds": answers(dataset, scores["int8"], anyone),
        "Files that were not used as they stand": listed(
            dataset.issues, "None: every file was an image."
        ),
        "Settings": settings(config),
    }
    title = f"{config['model']} {config['alpha']:g} on {Path(config['data']).name}"
    write_page(folder / "report.html", title, str(dataset), sections)
    return results


def results_table(results: Results, folder: Path, comparison: Any) -> str:
    """Float and int8 side by side, and what `compare` says of them."""
    rows = (
        (name, f"{accuracy:.1%}", f"{(folder / file).stat().st_size / 1e6:.2f} MB", file)
        for name, accuracy, file in (
            ("float32, Keras", results.float_accuracy, "model.keras"),
            ("int8, TFLite", results.int8_accuracy, "model.tflite"),
        )
    )
    return (
        f"{table(('', 'accuracy', 'size', 'file'), rows)}<p>Measured on the validation images; "
        f"the int8 file was run by the TFLite interpreter.</p>{preformatted(comparison)}"
    )


def answers(dataset: Dataset, scores: np.ndarray, chosen: Iterable[int]) -> str:
    """Thumbnails with the true and the predicted class."""
    figures = []
    for i in chosen:
        guess, true = int(scores[i].argmax()), int(dataset.val.targets[i])
        said = f"{html.escape(dataset.labels[guess])} {scores[i][guess]:.0%}"
        verdict = f'<span class="{"right" if guess == true else "wrong"}">{said}</span>'
        if guess != true:
            verdict += f", but it is {html.escape(dataset.labels[true])}"
        path = dataset.val.paths[i]
        figures.append((read_image(path, THUMBNAIL), path.name, verdict))
    return gallery(figures)


def draw_confusion(targets: np.ndarray, guesses: np.ndarray, labels: tuple[str, ...]) -> Figure:
    """How many images of each true class (rows) were taken for each class (columns)."""
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(counts, (targets, guesses), 1)
    side = min(12.0, 2.5 + 0.5 * len(labels))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts / np.maximum(1, counts.sum(1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(labels) <= 25:
        for (i, j), count in np.ndenumerate(counts):
            if count:
                dark = count > counts[i].sum() / 2
                axes.text(j, i, count, ha="center", va="center", color="white" if dark else "black")
    return figure


def draw_gallery(dataset: Dataset, scores: np.ndarray, chosen: np.ndarray) -> Figure:
    """Images with what the model says they are; wrong answers in red."""
    columns = 6
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(columns * 1.8, rows * 2), layout="constrained")
    for axes in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
        axes.axis("off")
    for axes, i in zip(grid.flat, chosen, strict=False):
        guess = int(scores[i].argmax())
        axes.imshow(read_image(dataset.val.paths[i], THUMBNAIL))
        colour = "#1b7f4b" if guess == dataset.val.targets[i] else "#b3261e"
        axes.set_title(f"{dataset.labels[guess]} {scores[i][guess]:.0%}", fontsize=9, color=colour)
    return figure


def write_predictions(file: Path, dataset: Dataset, scores: dict[str, np.ndarray]) -> None:
    """One line per validation image: its label, and what each model says, how surely."""
    with replacing(file) as part, part.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(
            ["file", "label", *(f"{n}{c}" for n in scores for c in ("", "_probability"))]
        )
        for i, path in enumerate(dataset.val.paths):
            said = [
                cell
                for s in scores.values()
                for cell in (dataset.labels[s[i].argmax()], f"{s[i].max():.4f}")
            ]
            writer.writerow([path, dataset.labels[dataset.val.targets[i]], *said])
