"""What a detection run leaves for people: report.html, predictions.csv, results.json."""

import csv
import dataclasses
import html
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kzoo.detection.detections import Detections
from kzoo.files import replacing
from kzoo.recipes.data.box_dataset import BoxDataset, Example
from kzoo.recipes.evaluation.box_metrics import RECALLS, BoxScore, score_boxes
from kzoo.recipes.evaluation.drawings import draw_boxes
from kzoo.recipes.evaluation.page import (
    draw_curves,
    jpeg,
    listed,
    number,
    plot,
    preformatted,
    settings,
    table,
    write_page,
)
from kzoo.recipes.files import write_json
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.run_folder import read_config

GALLERY = 12  # images shown, three times each
SHOWN = 0.4  # the least score that is drawn
SIDE = 300  # px of a drawn image
GREY, BLUE, GREEN = "#9aa5b8", "#2458d3", "#1b7f4b"


@dataclasses.dataclass(frozen=True)
class BoxResults:
    """What a detection run reached on its validation images; precisions in [0, 1]."""

    folder: Path
    float_map: float
    float_map50: float
    int8_map: float
    int8_map50: float

    def __str__(self) -> str:
        return (
            f"mAP {self.float_map:.3f} float, {self.int8_map:.3f} int8; "
            f"mAP50 {self.float_map50:.3f} float, {self.int8_map50:.3f} int8\n"
            f"Model:  {self.folder / 'model.tflite'}\nReport: {self.folder / 'report.html'}"
        )


def write_report(
    folder: Path, dataset: BoxDataset, history: list[Row], found: dict[str, list[Detections]],
    comparison: Any,
) -> BoxResults:  # fmt: skip
    """Writes report.html, results.json and predictions.csv; returns the results.

    `found` holds what the "float" and the "int8" model find on the validation images;
    `comparison` is what `kzoo.tflite.compare` said of the two.
    """
    scores = {name: score_boxes(dataset.val, own, dataset.labels) for name, own in found.items()}
    exact, int8 = scores["float"], scores["int8"]
    results = BoxResults(folder, exact.map, exact.map50, int8.map, int8.map50)
    figures = dataclasses.asdict(results) | {name: s.figures() for name, s in scores.items()}
    write_json(folder / "results.json", figures | {"folder": folder.name})
    write_predictions(folder / "predictions.csv", dataset, found)

    config = read_config(folder)
    keys = ("class_loss", "box_loss", "map")
    sections = {
        "Result": results_table(scores, folder, comparison),
        "Training": plot(draw_curves(history, keys), "losses and mAP by epoch") if history else "",
        "Precision and recall at IoU .5": plot(draw_precision(scores), "precision-recall curves"),
        "By class": table(
            ("", "mAP float", "mAP int8", "mAP50 float", "mAP50 int8"), by_class(scores)
        ),
        f"Truth, float and int8, from {SHOWN:.0%} on": triples(dataset, found),
        "The data": plot(draw_data(dataset), "objects by class, and their sizes"),
        "Remarks on the data": listed(dataset.issues, "None."),
        "Settings": settings(config),
    }
    title = f"SSDLite on {config['model']} {config['alpha']:g}: {Path(config['data']).name}"
    write_page(folder / "report.html", title, str(dataset), sections)
    return results


def results_table(scores: dict[str, BoxScore], folder: Path, comparison: Any) -> str:
    """Float and int8 side by side, and what `compare` says of them."""
    files = {"float": ("float32, Keras", "model.keras"), "int8": ("int8, TFLite", "model.tflite")}
    rows = []
    for name, score in scores.items():
        label, file = files[name]
        values = (score.map, score.map50, score.map75, *score.by_area.values())
        size = f"{(folder / file).stat().st_size / 1e6:.2f} MB"
        rows.append((label, *(number(value) for value in values), size, file))
    head = ("", "mAP", "mAP50", "mAP75", "small", "medium", "large", "size", "file")
    return (
        f"{table(head, rows)}<p>COCO's evaluation (pycocotools) on the validation images; the "
        f"int8 file was run by the TFLite interpreter. Small objects have areas to 32 x 32 px of "
        f"their image, medium ones to 96 x 96.</p>{preformatted(comparison)}"
    )


def by_class(scores: dict[str, BoxScore]) -> list[tuple[str, ...]]:
    return [
        (label, *(number(scores[name].by_class[label][i]) for i in (0, 1) for name in scores))
        for label in scores["float"].labels
    ]


def triples(dataset: BoxDataset, found: dict[str, list[Detections]]) -> str:
    """Images three times: with what is on them, and what either model finds."""
    chosen = np.random.default_rng(0).permutation(len(dataset.val))[:GALLERY]
    rows = []
    for i in chosen:
        example = dataset.val[i]
        drawn = [draw_boxes(example.path, truth(example), dataset.labels, SIDE, colour=GREEN)]
        drawn += [
            draw_boxes(example.path, own[i].above(SHOWN), dataset.labels, SIDE)
            for own in found.values()
        ]
        gap = np.full((SIDE, 6, 3), 255, "uint8")
        strip = np.concatenate([drawn[0], gap, drawn[1], gap, drawn[2]], axis=1)
        name = html.escape(example.path.name)
        rows.append(
            f'<figure><img src="{jpeg(strip)}" alt="{name}" loading="lazy" '
            f'style="max-width: {strip.shape[1]}px"><figcaption>{name}</figcaption></figure>'
        )
    return "".join(rows)


def truth(example: Example) -> Detections:
    return Detections(example.boxes, example.labels, np.ones(len(example.labels)))


def draw_precision(scores: dict[str, BoxScore]) -> Figure:
    """Precision over recall: every class thin, their mean thick."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, (name, score) in zip(
        figure.subplots(1, len(scores), squeeze=False).flat, scores.items(), strict=True
    ):
        real = score.precision[(score.precision > -1).all(axis=-1)]
        for curve in real:
            axes.plot(RECALLS, curve, color=GREY, linewidth=0.8)
        if len(real):
            axes.plot(RECALLS, real.mean(axis=0), color=BLUE, linewidth=2)
        axes.set_title(f"{name}: mAP50 {number(score.map50)}", fontsize=10)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_data(dataset: BoxDataset) -> Figure:
    """Objects by class, how many an image has, and their sides."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    labels = np.concatenate([example.labels for example in dataset.train])
    counts = np.bincount(labels, minlength=len(dataset.labels))
    first.barh(range(len(counts)), counts, color=BLUE)
    first.set_yticks(range(len(counts)), dataset.labels, fontsize=8 if len(counts) < 25 else 4)
    first.invert_yaxis()
    first.set_xlabel("objects to train on")
    many = np.bincount([len(example.labels) for example in dataset.train])
    second.bar(range(len(many)), many, color=BLUE)
    second.set(xlabel="objects in an image", ylabel="images")
    boxes = np.concatenate([example.boxes for example in dataset.train])
    height, width = (boxes[:, 2:] - boxes[:, :2]).T
    third.scatter(width, height, s=4, alpha=0.4, color=BLUE)
    third.set(xlabel="width of objects / image", ylabel="height", xlim=(0, 1), ylim=(0, 1))
    for axes in (first, second, third):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def write_predictions(file: Path, dataset: BoxDataset, found: dict[str, list[Detections]]) -> None:
    """One line per object that a model finds, from `SHOWN` on, boxes in the image's px."""
    with replacing(file) as part, part.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["file", "model", "label", "score", "ymin", "xmin", "ymax", "xmax"])
        for i, example in enumerate(dataset.val):
            for name, own in found.items():
                for box, label, score in own[i].above(SHOWN).scaled(*example.size):
                    corners = [f"{value:.1f}" for value in box]
                    writer.writerow(
                        [example.path, name, dataset.labels[label], f"{score:.4f}", *corners]
                    )
