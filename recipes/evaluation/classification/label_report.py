"""The report of a multi-label run: results, sections of its page, predictions.csv."""

import csv
import dataclasses
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure

from kzoo.files import write_csv
from kzoo.recipes.data.class_dataset import Split
from kzoo.recipes.data.images import read_image
from kzoo.recipes.evaluation.classification.class_report import (
    GALLERY,
    PREDICTIONS,
    image_names,
    some_images,
)
from kzoo.recipes.evaluation.classification.label_metrics import (
    THRESHOLD,
    LabelScore,
    Scored,
    cells,
    share,
)
from kzoo.recipes.evaluation.evaluate import Evaluation
from kzoo.recipes.evaluation.page import THUMBNAIL, gallery, number, paragraph, plot, table
from kzoo.recipes.evaluation.plots import plain_text
from kzoo.recipes.evaluation.results import RunResults, SummaryFigures
from kzoo.recipes.prediction import (
    Found,
    Prediction,
    Predictor,
    label_of,
    open_model,
    require_names,
)
from kzoo.recipes.task import FLOAT, INT8, Report, Run
from kzoo.recipes.training.run_folder import labels_of
from kzoo.tflite.metadata.reading import read_metadata

MOST_CURVES = 12  # largest number of labels with a precision-recall curve
DOTS = "The red dot is the label's threshold."
COLOURS = (
    "Green: a label that the file gives and the image has. Red: one that the image does not have. "
    "Red with 'not': one that the image has and the file does not give."
)


def thresholds_of(file: Path, labels: int) -> np.ndarray:
    """Return the thresholds (labels,) in a .tflite file's metadata, .5 if it has none."""
    metadata = read_metadata(file) if file.is_file() else None
    found = metadata.thresholds if metadata else ()
    return np.array(found) if len(found) == labels else np.full(labels, THRESHOLD)


def has_thresholds(file: Path) -> bool:
    """Return whether a .tflite file has thresholds in its metadata."""
    metadata = read_metadata(file) if file.suffix == ".tflite" else None
    return bool(metadata and metadata.thresholds)


def label_predictor(file: Path, top: int) -> Predictor:
    """Return a predictor of the labels of images: the `top` of those that reach their threshold.

    The thresholds are those of the file or, for a .keras file, of model.tflite beside it.
    """
    classifier, labels = open_model(file), labels_of(file)
    own = file if file.suffix == ".tflite" else file.with_name("model.tflite")

    def run(paths: Sequence[Path], images: np.ndarray) -> list[Prediction]:
        scores = classifier(images)
        if labels:
            require_names(scores.shape[1], labels)
        thresholds = thresholds_of(own, scores.shape[1])
        return [
            Prediction(path, tuple(
                Found(label_of(labels, i), float(row[i])) for i in np.argsort(-row)
                if row[i] >= thresholds[i]
            )[:top])
            for path, row in zip(paths, scores, strict=True)
        ]  # fmt: skip

    return Predictor(classifier.size, run)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelResults(RunResults):
    """Results of a multi-label run on its validation images; figures in [0, 1]."""

    summary_figures: ClassVar[SummaryFigures] = (
        ("map", "mAP"),
        ("micro_f1", "F1 of all decisions"),
    )
    float_map: float
    int8_map: float
    float_micro_f1: float
    int8_micro_f1: float
    float_macro_f1: float
    int8_macro_f1: float
    agreement: float  # share of equal decisions of float model and int8 file, over all labels
    sqnr_db: float
    thresholds: Mapping[str, float]  # by label

    @staticmethod
    def main_figures(evaluation: Evaluation) -> dict[str, Any]:
        assert evaluation.comparison
        scores = evaluation.val.scores
        return {
            **{
                f"{kind}_{name}": getattr(score, name)
                for kind, score in scores.items() for name in ("map", "micro_f1", "macro_f1")
            },
            "agreement": evaluation.comparison.agreement,
            "sqnr_db": evaluation.comparison.sqnr_db,
            "thresholds": {},
        }  # fmt: skip

    @classmethod
    def of(cls, run: Run, evaluation: Evaluation, history: Sequence[Any] = ()) -> "LabelResults":
        found = evaluation.val.scores[INT8].thresholds
        by_label = dict(zip(run.dataset.labels, map(float, found), strict=True))
        return dataclasses.replace(super().of(run, evaluation, history), thresholds=by_label)

    def summary(self) -> str:
        return (
            f"{super().summary()}; they agree on {self.agreement:.1%} of the decisions (SQNR of "
            f"the logits {self.sqnr_db:.1f} dB)"
        )


def sections(run: Run, evaluation: Evaluation) -> dict[str, str]:
    """Return the page's sections on both models."""
    val, labels = evaluation.val, run.dataset.labels
    split, int8 = val.examples, val.predictions[INT8]
    errors = (int8.decisions != split.targets.astype(bool)).sum(axis=1)
    far = np.abs(int8.probabilities - int8.thresholds).max(axis=1)  # to order equal counts
    worst = [i for i in np.lexsort((-far, -errors)) if errors[i]][:GALLERY]
    shown = {
        f"By label, {name} images": table(
            ("", "images", "threshold", *(
                f"{column} {kind}" for kind in (FLOAT, INT8)
                for column in ("precision", "recall", "F1", "AP")
            )),
            by_label(part.scores, labels),
        )
        for name, part in (("validation", val), ("test", evaluation.test)) if part
    }  # fmt: skip
    return shown | {
        "Precision and recall of the int8 file, validation images": (
            plot(draw_precision(val, labels), "precision over recall") + paragraph(DOTS)
        ),
        "The worst answers of the int8 file, validation images": paragraph(COLOURS)
        + thumbnails(split, labels, int8, worst),
        "Random validation images": thumbnails(split, labels, int8, some_images(len(split))),
    }


def by_label(scores: Mapping[str, LabelScore], labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Return a table row for each label."""
    any_score = scores[INT8]
    return [
        (
            label,
            str(any_score.true[i] + any_score.missed[i]),
            f"{any_score.thresholds[i]:.2f}",
            *(
                number(values[i]) for kind in (FLOAT, INT8) for values in (
                    share(scores[kind].true, scores[kind].false),
                    share(scores[kind].true, scores[kind].missed),
                    scores[kind].f1, scores[kind].average_precision,
                )
            ),
        )
        for i, label in enumerate(labels)
    ]  # fmt: skip


def draw_precision(val: Any, labels: Sequence[str]) -> Figure:
    """Draw precision-recall curves of the int8 file, with each label's threshold marked."""
    some = [i for i in range(len(labels)) if val.examples.targets[:, i].any()][:MOST_CURVES]
    columns = min(4, max(1, len(some)))
    rows = -(-max(1, len(some)) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    found, score = val.predictions[INT8], val.scores[INT8]
    for axes in grid.flat[len(some) :]:
        axes.axis("off")
    for axes, i in zip(grid.flat, some, strict=False):
        order = np.argsort(-found.probabilities[:, i], kind="stable")
        right = np.cumsum(val.examples.targets[order, i])
        axes.plot(right / right[-1], right / np.arange(1, len(right) + 1), color="#2458d3")
        axes.plot(
            *(share(score.true, other)[i] for other in (score.missed, score.false)), "o",
            color="#b3261e",
        )  # fmt: skip
        axes.set(xlim=(0, 1.03), ylim=(0, 1.03), xlabel="recall", ylabel="precision")
        axes.set_title(plain_text(labels[i]), fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def thumbnails(split: Split, labels: Sequence[str], found: Scored, chosen: Iterable[int]) -> str:
    """Return HTML: images with their predicted and their missed labels."""
    shown = []
    for i in chosen:
        words = []
        for k in np.argsort(-found.probabilities[i]):
            true, given = bool(split.targets[i, k]), bool(found.decisions[i, k])
            name = f"{html.escape(labels[k])} {found.probabilities[i, k]:.0%}"
            if given:
                words.append(f'<span class="{"right" if true else "wrong"}">{name}</span>')
            elif true:
                words.append(f'<span class="wrong">not {name}</span>')
        path = split.paths[i]
        caption = f"{', '.join(words) or 'no label'}<br>{html.escape(path.name)}"
        shown.append((read_image(path, THUMBNAIL), path.name, caption))
    return gallery(shown)


def write_files(run: Run, evaluation: Evaluation) -> None:
    """Write predictions.csv and predictions_test.csv: a row for each image and label."""
    for part in evaluation.splits:
        write_predictions(run.folder / PREDICTIONS[part.name], part, run.dataset.labels)


def write_predictions(file: Path, val: Any, labels: Sequence[str]) -> None:
    columns = (f"{kind}{what}" for kind in val.predictions for what in ("", "_probability"))
    rows = (
        [path, label, int(val.examples.targets[i, k]), *(
            cell for found in val.predictions.values()
            for cell in (int(found.decisions[i, k]), f"{found.probabilities[i, k]:.4f}")
        )]
        for i, path in enumerate(val.examples.paths)
        for k, label in enumerate(labels)
    )  # fmt: skip
    write_csv(file, [["file", "label", "true", *columns], *rows])


def right_decisions(folder: Path, split: str) -> dict[tuple[str, str], dict[str, float]]:
    """Return {(image, its labels): {model: share of correct decisions}} from predictions.csv."""
    file = folder / PREDICTIONS[split]
    if not file.is_file():
        return {}
    found: dict[str, list[dict[str, str]]] = {}
    with file.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            found.setdefault(row["file"], []).append(row)
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for path, name in image_names(folder, found).items():
        own = found[path]
        labels = ", ".join(sorted(row["label"] for row in own if row["true"] == "1"))
        scores[name, labels] = {
            kind: sum(row[kind] == row["true"] for row in own) / len(own) for kind in (FLOAT, INT8)
        }
    return scores


REPORT = Report(
    Results=LabelResults,
    figures=lambda score, labels: score.figures(labels),
    cells=cells,
    curves=("loss", "map"),
    note="Each label has its own threshold, chosen for the highest F1 of the int8 file on the "
    "validation images; the float model uses the same thresholds. The figures of the validation "
    "images are therefore optimistic.",
    sections=sections,
    files=write_files,
    image_scores=right_decisions,
)
