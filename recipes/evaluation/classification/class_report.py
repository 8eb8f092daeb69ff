"""What a classification run leaves for people: sections of its page, predictions.csv and .png."""

import csv
import dataclasses
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kzoo.files import replacing
from kzoo.recipes.data.class_dataset import Split
from kzoo.recipes.data.images import read_image
from kzoo.recipes.evaluation.evaluate import Evaluation
from kzoo.recipes.evaluation.page import THUMBNAIL, gallery, plot
from kzoo.recipes.evaluation.plots import draw_confusion
from kzoo.recipes.evaluation.results import RunResults
from kzoo.recipes.task import FLOAT, INT8, Report, Run
from kzoo.tflite.inspect.verify import LEAST_AGREEMENT

GALLERY = 24  # images shown


@dataclasses.dataclass(frozen=True, eq=False)
class ClassScore:
    """How good predicted classes are."""

    confusion: np.ndarray  # (classes, classes) images: rows are the truth, columns the prediction

    @property
    def accuracy(self) -> float:
        """Share of the images whose class is right, in [0, 1]."""
        return float(np.diag(self.confusion).sum() / max(1, self.confusion.sum()))

    def as_json(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy, "confusion": self.confusion}

    def __str__(self) -> str:
        return f"accuracy {self.accuracy:.3f}"


def score_classes(probabilities: np.ndarray, split: Split, labels: Sequence[str]) -> ClassScore:
    """Return the score of probabilities (N, classes) for the images of a split."""
    confusion = np.zeros((len(labels), len(labels)), int)
    np.add.at(confusion, (split.targets, probabilities.argmax(1)), 1)
    return ClassScore(confusion)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassResults(RunResults):
    """What a classification run reached on its validation images; accuracies in [0, 1]."""

    float_accuracy: float
    int8_accuracy: float
    agreement: float
    sqnr_db: float

    @staticmethod
    def main_figures(evaluation: Evaluation) -> dict[str, Any]:
        assert evaluation.comparison
        return {
            **{f"{kind}_accuracy": s.accuracy for kind, s in evaluation.val.scores.items()},
            "agreement": evaluation.comparison.agreement,
            "sqnr_db": evaluation.comparison.sqnr_db,
        }

    def summary(self) -> str:
        poor = self.agreement < LEAST_AGREEMENT
        advice = ". That is little: kzoo compare and kzoo sensitivity show where it is lost"
        return (
            f"accuracy {self.float_accuracy:.3f} float, {self.int8_accuracy:.3f} int8; they agree "
            f"on {self.agreement:.1%} of the images (SQNR of the logits {self.sqnr_db:.1f} dB)"
            f"{advice if poor else ''}"
        )

    def test_summary(self) -> str:
        if not self.test:
            return ""
        exact, int8 = (self.test[kind]["accuracy"] for kind in (FLOAT, INT8))
        return f"on the test images: accuracy {exact:.3f} float, {int8:.3f} int8"


def write_files(run: Run, evaluation: Evaluation) -> None:
    """Write predictions.csv and predictions.png, of the validation images."""
    split, labels = evaluation.val.examples, run.dataset.labels
    predictions = evaluation.val.predictions
    write_predictions(run.folder / "predictions.csv", split, labels, predictions)
    with replacing(run.folder / "predictions.png") as part:
        drawn = draw_gallery(split, labels, predictions[INT8], some_images(len(split)))
        drawn.savefig(part, dpi=100)


def some_images(count: int) -> np.ndarray:
    """Return the places of the images that are shown whatever is predicted of them."""
    return np.random.default_rng(0).permutation(count)[:GALLERY]


def sections(run: Run, evaluation: Evaluation) -> dict[str, str]:
    """Return what the page shows of the int8 model on the validation images."""
    split, labels = evaluation.val.examples, run.dataset.labels
    int8 = evaluation.val.predictions[INT8]
    surest = np.argsort(-int8.max(1), kind="stable")
    wrong = [i for i in surest if int8[i].argmax() != split.targets[i]][:GALLERY]
    confusion = draw_confusion(evaluation.val.scores[INT8].confusion, labels)
    return {
        "Confusion of the int8 model": plot(confusion, "confusion matrix"),
        "The surest mistakes of the int8 model": thumbnails(split, labels, int8, wrong),
        "Images of all kinds": thumbnails(split, labels, int8, some_images(len(split))),
    }


def thumbnails(
    split: Split, labels: Sequence[str], scores: np.ndarray, chosen: Iterable[int]
) -> str:
    """Return HTML: images with the true and the predicted class."""
    shown = []
    for i in chosen:
        guess, true = int(scores[i].argmax()), int(split.targets[i])
        answer = f"{html.escape(labels[guess])} {scores[i][guess]:.0%}"
        caption = f'<span class="{"right" if guess == true else "wrong"}">{answer}</span>'
        if guess != true:
            caption += f", but it is {html.escape(labels[true])}"
        path = split.paths[i]
        shown.append((read_image(path, THUMBNAIL), path.name, caption))
    return gallery(shown)


def draw_gallery(
    split: Split, labels: Sequence[str], scores: np.ndarray, chosen: np.ndarray
) -> Figure:
    """Draw images with their predicted classes; wrong ones in red."""
    columns = 6
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(columns * 1.8, rows * 2), layout="constrained")
    for axes in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
        axes.axis("off")
    for axes, i in zip(grid.flat, chosen, strict=False):
        guess = int(scores[i].argmax())
        axes.imshow(read_image(split.paths[i], THUMBNAIL))
        colour = "#1b7f4b" if guess == split.targets[i] else "#b3261e"
        axes.set_title(f"{labels[guess]} {scores[i][guess]:.0%}", fontsize=9, color=colour)
    return figure


def write_predictions(
    file: Path, split: Split, labels: Sequence[str], predictions: Mapping[str, np.ndarray]
) -> None:
    """Write one line per image: its label, and each model's class and probability."""
    with replacing(file) as part, part.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(
            ["file", "label", *(f"{n}{c}" for n in predictions for c in ("", "_probability"))]
        )
        for i, path in enumerate(split.paths):
            cells = [
                cell
                for scores in predictions.values()
                for cell in (labels[scores[i].argmax()], f"{scores[i].max():.4f}")
            ]
            writer.writerow([path, labels[split.targets[i]], *cells])


def title(settings: Mapping[str, Any]) -> str:
    return f"{settings['model']} {settings['alpha']:g} on {Path(settings['data']).name}"


REPORT = Report(
    Results=ClassResults,
    figures=lambda score, labels: {"accuracy": score.accuracy},
    cells=lambda score: {"accuracy": f"{score.accuracy:.1%}"},
    title=title,
    curves=("loss", "accuracy"),
    sections=sections,
    files=write_files,
)
