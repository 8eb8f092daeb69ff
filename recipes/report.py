"""One page about a run, report.html: it opens from disk and needs nothing beside it."""

import base64
import csv
import dataclasses
import html
import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from kzoo.recipes.data import Dataset, read_picture
from kzoo.recipes.files import write_json, write_text
from kzoo.recipes.fit import Row
from kzoo.recipes.run import Results, read_config
from kzoo.tflite.files import replacing

GALLERY = 24  # pictures shown
THUMBNAIL = 160  # px

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2330; background: #f6f7f9; margin: 0 }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px }
h1 { font-size: 28px; margin: 0 0 4px } h2 { font-size: 20px; margin: 40px 0 12px }
p.sub, figcaption, .quiet { color: #5b6475 }
section { background: #fff; border: 1px solid #e3e6ec; border-radius: 10px }
section { padding: 4px 24px 24px; margin-top: 24px }
table { border-collapse: collapse }
td, th { padding: 6px 20px 6px 0; text-align: left; border-bottom: 1px solid #e9ebf0 }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
img.plot { max-width: 100%; height: auto }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 16px }
figure { margin: 0 } figure img { width: 100%; border-radius: 6px; display: block }
figcaption { font-size: 13px; line-height: 1.35; padding-top: 4px }
.wrong { color: #b3261e } .right { color: #1b7f4b }
pre { background: #f1f3f6; padding: 12px 16px; border-radius: 6px; overflow-x: auto }
pre { font-size: 13px }
li { overflow-wrap: anywhere }
"""


def write_report(
    folder: Path,
    dataset: Dataset,
    history: list[Row],
    scores: dict[str, np.ndarray],
    comparison: Any,
) -> Results:
    """Writes report.html, results.json, predictions.csv and predictions.png; returns the results.

    `scores` holds the class probabilities (N, classes) of the "float" and of the "int8" model for
    the validation pictures; `comparison` is what `kzoo.tflite.compare` said of the two.
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
    title = f"{config['model']} {config['alpha']:g} on {Path(config['data']).name}"
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="sub">{html.escape(str(dataset))}</p>',
        section("Result", results_table(results, folder, comparison)),
    ]
    if history:
        body.append(section("Training", plot(draw_curves(history), "loss and accuracy by epoch")))
    body += [
        section(
            "Confusion of the int8 model",
            plot(
                draw_confusion(targets, scores["int8"].argmax(1), dataset.labels),
                "confusion matrix",
            ),
        ),
        section("The surest mistakes of the int8 model", gallery(dataset, scores["int8"], wrong)),
        section("Pictures of all kinds", gallery(dataset, scores["int8"], anyone)),
        section("Files that were not used as they stand", defects(dataset)),
        section("Settings", f"<pre>{html.escape(settings(config))}</pre>"),
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<main>{''.join(body)}</main></html>\n"
    )
    write_text(folder / "report.html", page)
    return results


def section(title: str, inside: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{inside}</section>"


def results_table(results: Results, folder: Path, comparison: Any) -> str:
    """Float and int8 side by side, and what `compare` says of them."""
    rows = "".join(
        f'<tr><td>{name}</td><td class="n">{accuracy:.1%}</td>'
        f'<td class="n">{(folder / file).stat().st_size / 1e6:.2f} MB</td><td>{file}</td></tr>'
        for name, accuracy, file in (
            ("float32, Keras", results.float_accuracy, "model.keras"),
            ("int8, TFLite", results.int8_accuracy, "model.tflite"),
        )
    )
    return (
        '<table><tr><th></th><th class="n">accuracy</th><th class="n">size</th><th></th></tr>'
        f"{rows}</table><p>Measured on the validation pictures; the int8 file was run by the "
        f"TFLite interpreter.</p><pre>{html.escape(str(comparison))}</pre>"
    )


def settings(config: dict[str, Any]) -> str:
    return "\n".join(f"{key:16} {value}" for key, value in config.items())


def defects(dataset: Dataset) -> str:
    items = "".join(f"<li>{html.escape(str(defect))}</li>" for defect in dataset.defects)
    return f"<ul>{items}</ul>" if items else "<p>None: every file was a picture.</p>"


def gallery(dataset: Dataset, scores: np.ndarray, chosen: Any) -> str:
    """Thumbnails with the true and the predicted class."""
    figures = []
    for i in chosen:
        guess, true = int(scores[i].argmax()), int(dataset.val.targets[i])
        said = f"{html.escape(dataset.labels[guess])} {scores[i][guess]:.0%}"
        verdict = f'<span class="{"right" if guess == true else "wrong"}">{said}</span>'
        if guess != true:
            verdict += f", but it is {html.escape(dataset.labels[true])}"
        path = dataset.val.paths[i]
        figures.append(
            f'<figure><img src="{thumbnail(path)}" alt="{html.escape(path.name)}" loading="lazy">'
            f"<figcaption>{verdict}</figcaption></figure>"
        )
    return f'<div class="gallery">{"".join(figures)}</div>' if figures else "<p>None.</p>"


def thumbnail(path: Path) -> str:
    """A small JPEG of the picture as a data: address."""
    out = io.BytesIO()
    Image.fromarray(read_picture(path, THUMBNAIL)).save(out, "JPEG", quality=80)
    return data_address(out.getvalue(), "image/jpeg")


def plot(figure: Figure, alt: str) -> str:
    """A figure as an <img> that holds its SVG."""
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "kzoo"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return f'<img class="plot" alt="{alt}" src="{data_address(out.getvalue(), "image/svg+xml")}">'


def data_address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def draw_curves(history: list[Row]) -> Figure:
    """Loss and accuracy over all epochs, the stages one after the other."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    epochs = np.arange(1, len(history) + 1)
    for axes, key in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [row[key] for row in history], label="training", color="#9aa5b8")
        axes.plot(
            epochs, [row[f"val_{key}"] for row in history], label="validation", color="#2458d3"
        )
        for i, row in enumerate(history):
            if i == 0 or row["stage"] != history[i - 1]["stage"]:
                axes.axvline(i + 0.5, color="#d5dae3", linewidth=1, zorder=0)
                axes.text(
                    i + 0.6, 1.0, row["stage"], fontsize=8, color="#5b6475", va="bottom",
                    transform=axes.get_xaxis_transform(),
                )  # fmt: skip
        axes.set_xlabel("epoch")
        axes.set_ylabel(key)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def draw_confusion(targets: np.ndarray, guesses: np.ndarray, labels: tuple[str, ...]) -> Figure:
    """How many pictures of each true class (rows) were taken for each class (columns)."""
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
    """Pictures with what the model says they are; wrong answers in red."""
    columns = 6
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(columns * 1.8, rows * 2), layout="constrained")
    for axes in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
        axes.axis("off")
    for axes, i in zip(grid.flat, chosen, strict=False):
        guess = int(scores[i].argmax())
        axes.imshow(read_picture(dataset.val.paths[i], THUMBNAIL))
        colour = "#1b7f4b" if guess == dataset.val.targets[i] else "#b3261e"
        axes.set_title(f"{dataset.labels[guess]} {scores[i][guess]:.0%}", fontsize=9, color=colour)
    return figure


def write_predictions(file: Path, dataset: Dataset, scores: dict[str, np.ndarray]) -> None:
    """One line per validation picture: its label, and what each model says, how surely."""
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
