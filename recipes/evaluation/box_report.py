"""The report of a detection run: sections of its page, and predictions.csv."""

import dataclasses
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure

from kzoo.detection.detections import Detections
from kzoo.files import write_csv
from kzoo.recipes.data.box_dataset import BoxDataset, Example
from kzoo.recipes.evaluation.box_metrics import (
    AREAS,
    RECALLS,
    SIDES,
    BoxErrors,
    BoxScore,
    agreement,
    box_errors,
)
from kzoo.recipes.evaluation.drawings import ERROR_COLOURS, draw_boxes, draw_errors
from kzoo.recipes.evaluation.evaluate import Evaluation, SplitEvaluation
from kzoo.recipes.evaluation.page import gallery, jpeg, number, plot, table
from kzoo.recipes.evaluation.plots import plain_text
from kzoo.recipes.evaluation.results import RunResults, SummaryFigures
from kzoo.recipes.task import FLOAT, INT8, Report, Run

GALLERY = 12  # number of images shown, three times each
SHOWN = 0.4  # lowest score of detections that are drawn
SIDE = 300  # px of the longer side of a drawn image
NAMED = 10  # number of classes, the worst, in the legend of the curves
GREY, BLUE, GREEN = "#9aa5b8", "#2458d3", "#1b7f4b"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxResults(RunResults):
    """Results of a detection run on its validation images; precisions in [0, 1]."""

    summary_figures: ClassVar[SummaryFigures] = (("map", "mAP"), ("map50", "mAP50"))
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


def write_files(run: Run, evaluation: Evaluation) -> None:
    """Write predictions.csv for the validation images."""
    file = run.folder / "predictions.csv"
    write_predictions(file, evaluation.val, run.dataset.labels)


def sections(run: Run, evaluation: Evaluation) -> dict[str, str]:
    """Return the page's sections on both models, for the validation images."""
    val, scores, labels = evaluation.val, evaluation.val.scores, run.dataset.labels
    errors = {
        name: [box_errors(*pair) for pair in zip(val.examples, sure(found), strict=True)]
        for name, found in val.predictions.items()
    }
    precisions = ("", "objects", "mAP float", "mAP int8", "mAP50 float", "mAP50 int8")
    return {
        "Precision and recall at IoU .5": plot(draw_precision(scores), "precision-recall curves"),
        "By class": table([name.removeprefix("m") for name in precisions], by_class(val)),
        "By size": table(precisions[:4], by_size(val)),
        f"Found and missed objects, scores of {SHOWN:.0%} or more": table(
            ("", "objects", *(f"{kind} {name}" for kind in FATES for name in errors)),
            fates(val, errors, labels),
        ),
        "The images with most errors of the int8 file": worst(val, errors[INT8], labels),
        f"Truth, float and int8, scores of {SHOWN:.0%} or more": triples(val, labels),
        "The data": plot(draw_data(run.dataset), "objects by class, and their sizes"),
    }


def sure(found: Sequence[Detections]) -> list[Detections]:
    """Return the detections of each image with at least the score `SHOWN`."""
    return [one.above(SHOWN) for one in found]


def float_and_int8(split: SplitEvaluation) -> str:
    """Return a sentence on the detections that both models have in common."""
    both, exact, int8 = agreement(*(sure(split.predictions[kind]) for kind in (FLOAT, INT8)))
    return (
        f"Of {exact} objects that the float model finds with a score of {SHOWN:.0%} or more, the "
        f"int8 file also finds {both}, with the same class in the same place (IoU .5), and "
        f"{int8 - both} others."
    )


def cells(score: BoxScore) -> dict[str, str]:
    values = {"mAP": score.map, "mAP50": score.map50, "mAP75": score.map75, **score.by_area}
    return {name: number(value) for name, value in values.items()}


def by_class(split: SplitEvaluation) -> list[tuple[str, ...]]:
    scores, counts = split.scores, objects_by_class(split)
    return [
        (
            label,
            str(counts.get(k, 0)),
            *(number(score.by_class[label][i]) for i in (0, 1) for score in scores.values()),
        )
        for k, label in enumerate(scores[FLOAT].labels)
    ]


def by_size(split: SplitEvaluation) -> list[tuple[str, ...]]:
    """Return a table row for each of COCO's ranges of areas."""
    sides = np.concatenate([
        np.sqrt(((boxes[:, 2:] - boxes[:, :2]) * example.size).prod(axis=1))
        for example in split.examples
        for boxes in [example.boxes[example.counted]]
    ])  # fmt: skip
    counts = np.bincount(np.searchsorted(SIDES, sides), minlength=len(AREAS))
    ranges = (f"to {SIDES[0]} px", f"to {SIDES[1]} px", f"over {SIDES[1]} px")
    return [
        (f"{name}, {wide}", str(n), *(number(s.by_area[name]) for s in split.scores.values()))
        for name, wide, n in zip(AREAS, ranges, counts.tolist(), strict=True)
    ]


def objects_by_class(split: SplitEvaluation) -> Counter[int]:
    return Counter(
        label for example in split.examples for label in example.labels[example.counted].tolist()
    )


FATES = ("found", "missed", "taken for another", "false boxes")


def fates(
    split: SplitEvaluation, errors: Mapping[str, Sequence[BoxErrors]], labels: Sequence[str]
) -> list[tuple[str, ...]]:
    """Return a table row for each class: found, missed and confused objects, and false boxes."""
    rows, objects = [], objects_by_class(split)
    counts = {
        name: counted(split.examples, split.predictions[name], errors[name]) for name in errors
    }
    for k, label in enumerate(labels):
        numbers = [str(counts[name][fate, k]) for fate in FATES for name in errors]
        rows.append((label, str(objects.get(k, 0)), *numbers))
    return rows


def counted(
    examples: Sequence[Example], found: Sequence[Detections], errors: Sequence[BoxErrors]
) -> Counter[tuple[str, int]]:
    """Return the number of objects of each class by fate, and of its false boxes."""
    counts: Counter[tuple[str, int]] = Counter()
    for example, one, error in zip(examples, sure(found), errors, strict=True):
        own = {
            "found": [example.labels[j] for _, j in error.right],
            "missed": [example.labels[j] for j in error.missed],
            "taken for another": [example.labels[j] for _, j in error.confused],
            "false boxes": [one.labels[i] for i in error.false],
        }
        counts.update((fate, int(label)) for fate, kinds in own.items() for label in kinds)
    return counts


def worst(split: SplitEvaluation, errors: Sequence[BoxErrors], labels: Sequence[str]) -> str:
    """Return HTML: the images with most errors of the int8 file, with errors in colours."""
    chips = "".join(
        f'<span style="color:{colour};margin-right:1em">\u25a0 {name}</span>'
        for name, colour in ERROR_COLOURS.items()
    )
    shown = []
    for i in sorted(range(len(errors)), key=lambda i: -errors[i].count)[:GALLERY]:
        own, example, found = errors[i], split.examples[i], split.predictions[INT8][i]
        if own.count:
            drawn = draw_errors(example.path, truth(example), found.above(SHOWN), own, labels)
            caption = (
                f"{html.escape(example.path.name)}: {len(own.missed)} missed, {len(own.false)} "
                f"false, {len(own.confused)} taken for another class"
            )
            shown.append((drawn, example.path.name, caption))
    return f'<p class="quiet">{chips}</p>{gallery(shown, wide=True)}'


def triples(split: SplitEvaluation, labels: Sequence[str]) -> str:
    """Return HTML: images with the ground truth, the float and the int8 model's detections."""
    chosen = np.random.default_rng(0).permutation(len(split.examples))[:GALLERY]
    rows = []
    for i in chosen:
        example = split.examples[i]
        drawn = [draw_boxes(example.path, truth(example), labels, SIDE, colour=GREEN)]
        drawn += [
            draw_boxes(example.path, found[i].above(SHOWN), labels, SIDE)
            for found in split.predictions.values()
        ]
        gap = np.full((len(drawn[0]), 6, 3), 255, "uint8")
        strip = np.concatenate([drawn[0], gap, drawn[1], gap, drawn[2]], axis=1)
        name = html.escape(example.path.name)
        rows.append(
            f'<figure><img src="{jpeg(strip)}" alt="{name}" '
            f'style="max-width: {strip.shape[1]}px"><figcaption>{name}</figcaption></figure>'
        )
    return "".join(rows)


def truth(example: Example) -> Detections:
    return Detections(example.boxes, example.labels, np.ones(len(example.labels)))


def draw_precision(scores: Mapping[str, BoxScore]) -> Figure:
    """Draw precision-recall curves of all classes, the worst in the legend, and their mean."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    last = list(scores.values())[-1]
    order = sorted(last.labels, key=lambda label: np.nan_to_num(last.by_class[label][1], nan=2))
    colours = {label: f"C{i}" for i, label in enumerate(order[:NAMED])}
    for axes, (name, score) in zip(
        figure.subplots(1, len(scores), squeeze=False).flat, scores.items(), strict=True
    ):
        for label in reversed(order):
            curve = score.precision[score.labels.index(label)]
            if (curve > -1).all():
                name_and_score = f"{plain_text(label)} {score.by_class[label][1]:.2f}"
                text = name_and_score if label in colours else None
                colour = colours.get(label, GREY)
                axes.plot(RECALLS, curve, color=colour, linewidth=1, label=text)
        real = score.precision[(score.precision > -1).all(axis=-1)]
        if len(real):
            axes.plot(RECALLS, real.mean(axis=0), color="black", linewidth=2, label="mean")
            few = "" if len(order) <= NAMED else f", the {NAMED} worst of {len(order)}"
            axes.legend(
                frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5),
                title=f"AP50{few}", title_fontsize=7, reverse=True,
            )  # fmt: skip
        axes.set_title(f"{name}: mAP50 {number(score.map50)}", fontsize=10)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_data(dataset: BoxDataset) -> Figure:
    """Draw the number of objects by class and by image, and their sizes."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    labels = np.concatenate([example.labels for example in dataset.train])
    counts = np.bincount(labels, minlength=len(dataset.labels))
    first.barh(range(len(counts)), counts, color=BLUE)
    names = [plain_text(label) for label in dataset.labels]
    first.set_yticks(range(len(counts)), names, fontsize=8 if len(counts) < 25 else 4)
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
    """Write one line per detection of each model with score `SHOWN` or more, boxes in image px."""
    rows = (
        (example.path, name, labels[label], f"{score:.4f}", *(f"{value:.1f}" for value in box))
        for i, example in enumerate(split.examples)
        for name, found in split.predictions.items()
        for box, label, score in found[i].above(SHOWN).scaled(*example.size)
    )
    head = ("file", "model", "label", "score", "ymin", "xmin", "ymax", "xmax")
    write_csv(file, [head, *rows])


REPORT = Report(
    Results=BoxResults,
    figures=lambda score, labels: score.figures(),
    cells=cells,
    net="SSDLite with {model}",
    curves=("class_loss", "box_loss", "map"),
    note="Precisions are from COCO's evaluation (pycocotools). Small objects have areas of up to "
    "32 x 32 px of their image, medium ones up to 96 x 96.",
    agreement=float_and_int8,
    sections=sections,
    files=write_files,
)
