"""Metrics of class probabilities: accuracy, per-class figures, calibration, label errors."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kzoo.files import finite
from kzoo.recipes.data.class_dataset import Split
from kzoo.recipes.prediction import require_names

BINS = 15  # of the expected calibration error, as in https://arxiv.org/abs/1706.04599


@dataclasses.dataclass(frozen=True, eq=False)
class ByClass:
    """Figures of each class (classes,); nan where undefined."""

    images: np.ndarray  # number of images of the class
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def by_class(confusion: np.ndarray) -> ByClass:
    """Return precision, recall and F1 by class from a confusion matrix with truth in rows."""
    right, images = np.diag(confusion), confusion.sum(axis=1)
    predicted = confusion.sum(axis=0)
    return ByClass(
        images,
        ratio(right, predicted),
        ratio(right, images),
        ratio(2 * right, images + predicted),
    )


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole; nan where `whole` is 0."""
    out = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=out, where=np.asarray(whole) > 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Confidence and accuracy by bins of the predicted probability (a reliability diagram)."""

    images: np.ndarray  # (bins,)
    confidence: np.ndarray  # (bins,): mean probability of the predicted class
    accuracy: np.ndarray  # (bins,)

    @property
    def error(self) -> float:
        """Expected calibration error: mean |confidence - accuracy| over all images, in [0, 1]."""
        used = self.images > 0
        gaps = np.abs(self.confidence - self.accuracy)[used]
        return float((gaps * self.images[used]).sum() / max(1, self.images.sum()))


def calibration(probabilities: np.ndarray, targets: np.ndarray, *, bins: int = BINS) -> Calibration:
    """Return the calibration of probabilities (N, classes) for true classes (N,)."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    place = np.minimum((sure * bins).astype(int), bins - 1)
    images = np.bincount(place, minlength=bins)
    return Calibration(
        images,
        ratio(np.bincount(place, sure, minlength=bins), images),
        ratio(np.bincount(place, right, minlength=bins), images),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class ClassScore:
    """Scores of predicted classes."""

    confusion: np.ndarray  # (classes, classes) images: rows are the truth, columns the prediction
    calibration_error: float  # expected calibration error, in [0, 1]

    @property
    def accuracy(self) -> float:
        """Share of the images whose class is right, in [0, 1]."""
        return float(np.diag(self.confusion).sum() / max(1, self.confusion.sum()))

    def figures(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return what is kept in results.json, where nan is null."""
        found = dataclasses.asdict(by_class(self.confusion))
        own = {
            label: {name: finite(values[i]) for name, values in found.items()}
            for i, label in enumerate(labels)
        }
        return {
            "accuracy": self.accuracy, "calibration_error": self.calibration_error, "by_class": own,
        }  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        return {
            "accuracy": self.accuracy, "calibration_error": self.calibration_error,
            "confusion": self.confusion,
        }  # fmt: skip

    def __str__(self) -> str:
        return f"accuracy {self.accuracy:.3f}, calibration error {self.calibration_error:.3f}"


def score_classes(probabilities: np.ndarray, split: Split, labels: Sequence[str]) -> ClassScore:
    """Return the score of probabilities (N, classes) for the images of a split."""
    require_names(probabilities.shape[1], labels)
    confusion = np.zeros((len(labels), len(labels)), int)
    np.add.at(confusion, (split.targets, probabilities.argmax(1)), 1)
    return ClassScore(confusion, calibration(probabilities, split.targets).error)


def draw_reliability(found: dict[str, Calibration]) -> Figure:
    """Draw accuracy over confidence of each model, with how many images each bin has."""
    figure = Figure(figsize=(3.6 * len(found), 3.4), layout="constrained")
    for axes, (name, one) in zip(
        figure.subplots(1, len(found), squeeze=False).flat, found.items(), strict=True
    ):
        edges = np.arange(len(one.images)) / len(one.images)
        width = 1 / len(one.images)
        axes.bar(edges, np.nan_to_num(one.accuracy), width, align="edge", color="#8fb0f0")
        axes.plot([0, 1], [0, 1], color="#5b6475", linewidth=1)
        used = one.images > 0
        axes.scatter(
            one.confidence[used], one.accuracy[used], color="#2458d3",
            s=8 + 160 * one.images[used] / one.images.sum(),
        )  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xlabel="score of the answer", ylabel="accuracy")
        axes.set_title(f"{name}: ECE {one.error:.3f}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def changed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the indices of images with different classes in two models' probabilities.

    Those with the highest probabilities come first.
    """
    places = np.flatnonzero(first.argmax(axis=1) != second.argmax(axis=1))
    sure = first.max(axis=1) + second.max(axis=1)
    return places[np.argsort(-sure[places], kind="stable")]


def likely_label_errors(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the indices of images whose label is probably wrong, most probable first.

    Confident learning, https://arxiv.org/abs/1911.00068: an image is assigned to another class if
    its probability is at least the mean probability of images with that label.

    probabilities: (N, classes), of a model that was not trained on these images.
    targets: labels (N,).
    """
    classes = probabilities.shape[1]
    usual = np.array([
        probabilities[targets == k, k].mean() if (targets == k).any() else np.inf
        for k in range(classes)
    ])  # fmt: skip
    sure = np.where(probabilities >= usual, probabilities, -1.0)
    suggested = sure.argmax(axis=1)
    places = np.flatnonzero((sure.max(axis=1) >= 0) & (suggested != targets))
    own = probabilities[np.arange(len(targets)), targets]
    other = probabilities[np.arange(len(targets)), suggested]
    return places[np.argsort((own - other)[places], kind="stable")]
