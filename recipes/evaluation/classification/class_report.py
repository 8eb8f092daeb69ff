"""The report of a classification run: sections of its page, predictions.csv and .png."""

import csv
import dataclasses
import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure

from kzoo.files import replacing, write_csv
from kzoo.recipes.data.class_dataset import Split
from kzoo.recipes.data.images import Images, read_image
from kzoo.recipes.evaluation.classification.attention import class_maps, shown_on
from kzoo.recipes.evaluation.classification.class_details import (
    by_class,
    calibration,
    changed,
    draw_reliability,
    likely_label_errors,
)
from kzoo.recipes.evaluation.classification.temperature import at_temperature, fit_temperature
from kzoo.recipes.evaluation.evaluate import SPLIT_NAMES, Evaluation, SplitEvaluation
from kzoo.recipes.evaluation.page import THUMBNAIL, gallery, number, paragraph, plot, table
from kzoo.recipes.evaluation.plots import draw_confusion, plain_text
from kzoo.recipes.evaluation.results import RunResults, SummaryFigures
from kzoo.recipes.inputs import data_root
from kzoo.recipes.task import FLOAT, INT8, Report, Run
from kzoo.tflite.inspect.verify import LEAST_AGREEMENT

GALLERY = 24  # number of images shown
CROSS_ENTROPY = "cross_entropy"  # a metric, since the loss of some stages uses smoothed labels
PREDICTIONS = {"val": "predictions.csv", "test": "predictions_test.csv"}
SEEN = (
    "Beside each photo, bright: the places that the float model's answer depends on, measured by "
    "how much the pooled score drops without each. For a linear head this is the class activation "
    "map."
)
ONE_CLASS = (
    "The float model predicts one class for all validation images: it has not learned to tell them "
    "apart. Train for more epochs, start from pretrained weights, or check the labels with "
    "kzoo inspect"
)
ODD = (
    "Found by confident learning: the model is at least as sure of another class as it is, on "
    "average, of images with that label. It was not trained on these images, but its best epoch "
    "was chosen on the validation images. Look at them before you change a label: some are only "
    "difficult."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassResults(RunResults):
    """Results of a classification run on its validation images; accuracies in [0, 1]."""

    summary_figures: ClassVar[SummaryFigures] = (("accuracy", "accuracy"),)
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
        words = (
            f"{super().summary()}; they agree on {self.agreement:.1%} of the images (SQNR of the "
            f"logits {self.sqnr_db:.1f} dB){advice if poor else ''}"
        )
        return f"{words}. {ONE_CLASS}" if names_one_class(self.val[FLOAT]["by_class"]) else words


def names_one_class(by_class: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether a model predicts one class for images of several classes."""
    found = by_class.values()
    named = sum(one["precision"] is not None for one in found)  # None for classes never predicted
    return named == 1 and sum(one["images"] > 0 for one in found) > 1


def write_files(run: Run, evaluation: Evaluation) -> None:
    """Write predictions.csv and .png (validation images) and predictions_test.csv."""
    split, labels = evaluation.val.examples, run.dataset.labels
    for part in evaluation.splits:
        file = run.folder / PREDICTIONS[part.name]
        write_predictions(file, part.examples, labels, part.predictions)
    with replacing(run.folder / "predictions.png") as part_file:
        int8 = evaluation.val.predictions[INT8]
        draw_gallery(split, labels, int8, some_images(len(split))).savefig(part_file, dpi=100)


def some_images(count: int) -> np.ndarray:
    """Return the indices of a random sample of images to show."""
    return np.random.default_rng(0).permutation(count)[:GALLERY]


def sections(run: Run, evaluation: Evaluation) -> dict[str, str]:
    """Return the page's sections on both models, for the validation images unless stated."""
    val, labels = evaluation.val, run.dataset.labels
    split, int8 = val.examples, val.predictions[INT8]
    surest = np.argsort(-int8.max(1), kind="stable")
    wrong = [i for i in surest if int8[i].argmax() != split.targets[i]][:GALLERY]
    confusion = draw_confusion(val.scores[INT8].confusion, labels)
    last = evaluation.test or val
    return {
        **{
            f"By class, {SPLIT_NAMES[part.name]} images": table(
                ("", "images", *(f"{column} {kind}" for kind in (FLOAT, INT8)
                                 for column in ("precision", "recall", "F1"))),
                rows_by_class(part, labels),
            )
            for part in evaluation.splits
        },
        "Confusion matrix of the int8 file, validation images": plot(confusion, "confusion matrix"),
        f"Reliability diagram, {SPLIT_NAMES[last.name]} images": reliability(
            run, evaluation
        ),
        "Answers that int8 changed": changed_answers(evaluation.splits, labels),
        "The surest mistakes of the int8 file, validation images": mistakes(run, evaluation, wrong),
        "Labels that may be wrong": odd_labels(evaluation.splits, labels),
        "Random validation images": thumbnails(split, labels, int8, some_images(len(split))),
    }  # fmt: skip


def rows_by_class(part: SplitEvaluation, labels: Sequence[str]) -> list[tuple[str, ...]]:
    found = [by_class(part.scores[kind].confusion) for kind in (FLOAT, INT8)]
    return [
        (
            label,
            str(found[0].images[i]),
            *(number(values[i]) for one in found for values in (one.precision, one.recall, one.f1)),
        )
        for i, label in enumerate(labels)
    ]


def reliability(run: Run, evaluation: Evaluation) -> str:
    """Return HTML: reliability diagrams of both models, and the effect of temperature scaling."""
    part = evaluation.test or evaluation.val
    found = {
        kind: calibration(scores, part.examples.targets)
        for kind, scores in part.predictions.items()
    }
    words = (
        "On the diagonal, 80 % of the answers with a score of 80 % are right. ECE, the expected "
        f"calibration error, is the mean gap, here over {len(part.examples)} images: a bin with "
        "few images (a small dot) is not reliable."
    )
    return (
        plot(draw_reliability(found), "reliability diagrams")
        + paragraph(words)
        + paragraph(temperature_words(run, evaluation, part))
    )


def temperature_words(run: Run, evaluation: Evaluation, part: SplitEvaluation) -> str:
    """Return a sentence on the run's temperature, or on the calibration error with one."""
    if run.settings.get("temperature"):
        return (
            "The logits of model and file were divided by a temperature fitted on the validation "
            "images (--temperature)."
        )
    val = evaluation.val
    temperature = fit_temperature(val.predictions[FLOAT], val.examples.targets)
    errors = [
        f"{score.calibration_error:.3f} to "
        f"{calibration(at_temperature(scores, temperature), part.examples.targets).error:.3f} "
        f"({kind})"
        for (kind, score), scores in zip(
            part.scores.items(), part.predictions.values(), strict=True
        )
    ]  # fmt: skip
    same = "" if evaluation.test else ", on the images that it was fitted on"
    return (
        f"With logits divided by {temperature:.2f}, a temperature fitted on the validation images, "
        f"the ECE would go from {' and from '.join(errors)}{same}; no answer would change. A run "
        "with --temperature builds it into the model and the file."
    )


def changed_answers(parts: Sequence[SplitEvaluation], labels: Sequence[str]) -> str:
    """Return HTML: images on which float and int8 differ, and the largest drop in recall."""
    shown, words = [], []
    for part in parts:
        exact, int8 = (part.predictions[kind] for kind in (FLOAT, INT8))
        places = changed(exact, int8)
        drops = np.subtract(*(by_class(part.scores[kind].confusion).recall
                              for kind in (FLOAT, INT8)))  # fmt: skip
        text = f"{len(places)} of {len(exact)} {SPLIT_NAMES[part.name]} images"
        if not np.isnan(drops).all() and np.nanmax(drops) > 0:
            worst = int(np.nanargmax(drops))
            count = part.scores[INT8].confusion[worst].sum()
            text += (
                f"; the recall of {labels[worst]!r} falls most, by {drops[worst]:.3f} of its "
                f"{count} images"
            )
        words.append(text)
        for i in places:
            true = part.examples.targets[i]
            answers = []
            for scores in (exact[i], int8[i]):
                guess = int(scores.argmax())
                kind = "right" if guess == true else "wrong"
                name = f"{html.escape(labels[guess])} {scores[guess]:.0%}"
                answers.append(f'<span class="{kind}">{name}</span>')
            path = part.examples.paths[i]
            caption = (
                f"{' &rarr; '.join(answers)}; labelled {html.escape(labels[true])}"
                f"<br>{html.escape(path.name)} ({SPLIT_NAMES[part.name]})"
            )
            shown.append((path, caption))
    images = [(read_image(path, THUMBNAIL), path.name, text) for path, text in shown[:GALLERY]]
    return paragraph(". ".join(words) + ".") + (gallery(images) if images else "")


def mistakes(run: Run, evaluation: Evaluation, chosen: Sequence[int]) -> str:
    """Return HTML: misclassified images with activation maps of the float model."""
    split, int8 = evaluation.val.examples, evaluation.val.predictions[INT8]
    places = None
    if evaluation.model is not None and chosen:
        images = Images([split.paths[i] for i in chosen], run.size)[:]
        guesses = [int(int8[i].argmax()) for i in chosen]
        places = class_maps(evaluation.model, images, guesses)
    page = thumbnails(split, run.dataset.labels, int8, chosen, places)
    return page if places is None else paragraph(SEEN) + page


def odd_labels(parts: Sequence[SplitEvaluation], labels: Sequence[str]) -> str:
    """Return HTML: the most probable label errors of each split, by the float model."""
    page = paragraph(ODD)
    for part in parts:
        scores, targets = part.predictions[FLOAT], part.examples.targets
        if len(set(scores.argmax(1))) == 1 < len(set(targets)):
            where = f"the {SPLIT_NAMES[part.name]} images"
            page += paragraph(f"Not looked for in {where}: the model predicts one class for all.")
            continue
        places = likely_label_errors(scores, targets)
        share = f"{len(places)} of {len(targets)} {SPLIT_NAMES[part.name]} images"
        page += paragraph(f"{share}, the likeliest first:") if len(places) else paragraph(share)
        if len(places):
            page += thumbnails(part.examples, labels, scores, places[: GALLERY // 2])
    return page


def thumbnails(
    split: Split, labels: Sequence[str], scores: np.ndarray, chosen: Iterable[int],
    places: np.ndarray | None = None,
) -> str:  # fmt: skip
    """Return HTML: images with the true and the predicted class and the file's name.

    places: activation maps (len(chosen), h, w) to show beside them.
    """
    shown = []
    for k, i in enumerate(chosen):
        guess, true = int(scores[i].argmax()), int(split.targets[i])
        answer = f"{html.escape(labels[guess])} {scores[i][guess]:.0%}"
        caption = f'<span class="{"right" if guess == true else "wrong"}">{answer}</span>'
        if guess != true:
            caption += f", labelled {html.escape(labels[true])}"
        path = split.paths[i]
        caption += f"<br>{html.escape(path.name)}"
        image = read_image(path, THUMBNAIL)
        if places is not None:
            image = np.concatenate([image, shown_on(image, places[k])], axis=1)
        shown.append((image, path.name, caption))
    return gallery(shown, wide=places is not None)


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
        answer = f"{plain_text(labels[guess])} {scores[i][guess]:.0%}"
        axes.set_title(answer, fontsize=9, color=colour)
    return figure


def write_predictions(
    file: Path, split: Split, labels: Sequence[str], predictions: Mapping[str, np.ndarray]
) -> None:
    """Write one line per image: its label, and each model's class and probability."""
    head = ["file", "label", *(f"{n}{c}" for n in predictions for c in ("", "_probability"))]
    rows = (
        [path, labels[split.targets[i]], *(
            cell for scores in predictions.values()
            for cell in (labels[scores[i].argmax()], f"{scores[i].max():.4f}")
        )]
        for i, path in enumerate(split.paths)
    )  # fmt: skip
    write_csv(file, [head, *rows])


def right_answers(folder: Path, split: str) -> dict[tuple[str, str], dict[str, float]]:
    """Return {(image, label): {model: 1 if its prediction is right, else 0}} of predictions.csv."""
    file = folder / PREDICTIONS[split]
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8", newline="") as table:
        rows = {row["file"]: row for row in csv.DictReader(table)}
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for path, name in image_names(folder, rows).items():
        row, label = rows[path], rows[path]["label"]
        scores[name, label] = {kind: float(row[kind] == label) for kind in (FLOAT, INT8)}
    return scores


def image_names(folder: Path, paths: Iterable[str]) -> dict[str, str]:
    """Return {path: name} with names of images relative to the run's data.

    For images elsewhere, the last two parts of the path. Images whose names are not unique are
    left out.
    """
    root = data_root(folder)
    names = {path: "/".join(parts_from(root, Path(path))) for path in paths}
    counts = Counter(names.values())
    return {path: name for path, name in names.items() if counts[name] == 1}


def parts_from(root: Path, path: Path) -> tuple[str, ...]:
    """Return the parts of a path below `root` or a folder of that name; else the last two."""
    if root in path.parents:
        return path.relative_to(root).parts
    folders = path.parts[:-1]
    return path.parts[folders.index(root.name) + 1 :] if root.name in folders else path.parts[-2:]


REPORT = Report(
    Results=ClassResults,
    figures=lambda score, labels: score.figures(labels),
    cells=lambda score: {
        "accuracy": f"{score.accuracy:.1%}",
        "ECE": f"{score.calibration_error:.3f}",
    },
    curves=(CROSS_ENTROPY, "accuracy"),
    sections=sections,
    files=write_files,
    image_scores=right_answers,
)
