"""What a detection run leaves for people: sections of its page, and predictions.csv."""

import csv
import dataclasses
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kzoo.detection.detections import Detections
from kzoo.files import replacing
from kzoo.recipes.data.box_dataset import BoxDataset, Example
from kzoo.recipes.evaluation.box_metrics import RECALLS, BoxScore
from kzoo.recipes.evaluation.drawings import draw_boxes
from kzoo.recipes.evaluation.evaluate import Evaluation, SplitEvaluation
from kzoo.recipes.evaluation.page import jpeg, number, plot, table
from kzoo.recipes.evaluation.results import RunResults
from kzoo.recipes.task import FLOAT, INT8, Report, Run

GALLERY = 12  # images shown, three times each
SHOWN = 0.4  # the least score that is drawn
SIDE = 300  # px of a drawn image
GREY, BLUE, GREEN = "#9aa5b8", "#2458d3", "#1b7f4b"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxResults(RunResults):
    """What a detection run reached on its validation images; precisions in [0, 1]."""

    float_map: float
    float_map50: float
    int8_map: float
    int8_map50: float

    @staticmethod
    def main_figures(evaluation: Evaluation) -> dict[str, Any]:
        return {
            f"{kind}_{name}": getattr(score, name)
            for kind, score in evaluation.val.scores.items()
            for name in ("map", "map50")
        }

    def summary(self) -> str:
        return (
            f"mAP {self.float_map:.3f} float, {self.int8_map:.3f} int8; "
            f"mAP50 {self.float_map50:.3f} float, {self.int8_map50:.3f} int8"
        )

    def test_summary(self) -> str:
        if not self.test:
            return ""
        exact, int8 = (self.test[kind] for kind in (FLOAT, INT8))
        pairs = [
            f"{name} {precision(exact[key])} float, {precision(int8[key])} int8"
            for name, key in (("mAP", "map"), ("mAP50", "map50"))
        ]
        return f"on the test images: {'; '.join(pairs)}"


def precision(value: float | None) -> str:
    """Return a precision of results.json as people read it."""
    return "-" if value is None else f"{value:.3f}"


def write_files(run: Run, evaluation: Evaluation) -> None:
    """Write predictions.csv, of the validation images."""
    file = run.folder / "predictions.csv"
    write_predictions(file, evaluation.val, run.dataset.labels)


def sections(run: Run, evaluation: Evaluation) -> dict[str, str]:
    """Return what the page shows of both models on the validation images."""
    scores = evaluation.val.scores
    return {
        "Precision and recall at IoU .5": plot(draw_precision(scores), "precision-recall curves"),
        "By class": table(
            ("", "mAP float", "mAP int8", "mAP50 float", "mAP50 int8"), by_class(scores)
        ),
        f"Truth, float and int8, from {SHOWN:.0%} on": triples(evaluation.val, run.dataset.labels),
        "The data": plot(draw_data(run.dataset), "objects by class, and their sizes"),
    }


def cells(score: BoxScore) -> dict[str, str]:
    values = {"mAP": score.map, "mAP50": score.map50, "mAP75": score.map75, **score.by_area}
    return {name: number(value) for name, value in values.items()}


def title(settings: Mapping[str, Any]) -> str:
    data = Path(settings["data"]).name
    return f"SSDLite on {settings['model']} {settings['alpha']:g}: {data}"


def by_class(scores: Mapping[str, BoxScore]) -> list[tuple[str, ...]]:
    return [
        (label, *(number(scores[name].by_class[label][i]) for i in (0, 1) for name in scores))
        for label in scores["float"].labels
    ]


def triples(split: SplitEvaluation, labels: Sequence[str]) -> str:
    """Return HTML: images three times, with what is on them and what either model finds."""
    chosen = np.random.default_rng(0).permutation(len(split.examples))[:GALLERY]
    rows = []
    for i in chosen:
        example = split.examples[i]
        drawn = [draw_boxes(example.path, truth(example), labels, SIDE, colour=GREEN)]
        drawn += [
            draw_boxes(example.path, found[i].above(SHOWN), labels, SIDE)
            for found in split.predictions.values()
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


def draw_precision(scores: Mapping[str, BoxScore]) -> Figure:
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


def write_predictions(file: Path, split: SplitEvaluation, labels: Sequence[str]) -> None:
    """Write one line per object that a model finds, from `SHOWN` on, boxes in the image's px."""
    with replacing(file) as part, part.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["file", "model", "label", "score", "ymin", "xmin", "ymax", "xmax"])
        for i, example in enumerate(split.examples):
            for name, found in split.predictions.items():
                for box, label, score in found[i].above(SHOWN).scaled(*example.size):
                    corners = [f"{value:.1f}" for value in box]
                    writer.writerow([example.path, name, labels[label], f"{score:.4f}", *corners])


REPORT = Report(
    Results=BoxResults,
    figures=lambda score, labels: score.figures(),
    cells=cells,
    title=title,
    curves=("class_loss", "box_loss", "map"),
    note="Precisions are by COCO's evaluation (pycocotools). Small objects have areas to 32 x 32 "
    "px of their image, medium ones to 96 x 96.",
    sections=sections,
    files=write_files,
)
