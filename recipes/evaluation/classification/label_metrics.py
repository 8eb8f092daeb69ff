"""Multi-label metrics: precision, recall, F1 and average precision by label; thresholds."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from kzoo.files import finite
from kzoo.recipes.data.class_dataset import Split
from kzoo.recipes.evaluation.classification.class_details import ratio
from kzoo.recipes.evaluation.page import number
from kzoo.recipes.prediction import require_names

THRESHOLD = 0.5  # default threshold of a label


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """Probabilities (N, labels), and the threshold of each label."""

    probabilities: np.ndarray
    thresholds: np.ndarray

    @property
    def decisions(self) -> np.ndarray:
        """The predicted labels of each image, (N, labels) bool."""
        return self.probabilities >= self.thresholds


@dataclasses.dataclass(frozen=True, eq=False)
class LabelScore:
    """Multi-label scores. Arrays are (labels,); nan for labels that no image has."""

    thresholds: np.ndarray
    average_precision: np.ndarray
    true: np.ndarray  # number of true positives
    false: np.ndarray  # number of false positives
    missed: np.ndarray  # number of false negatives
    exact: float  # share of images with all labels correct

    @property
    def map(self) -> float:
        """Mean average precision over the labels that occur."""
        known = self.average_precision[~np.isnan(self.average_precision)]
        return float(known.mean()) if len(known) else float("nan")

    @property
    def f1(self) -> np.ndarray:
        """F1 of each label at its threshold."""
        return f1(self.true, self.false, self.missed)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the labels that occur."""
        known = self.f1[self.true + self.missed > 0]
        return float(known.mean()) if len(known) else float("nan")

    @property
    def micro_f1(self) -> float:
        """F1 of the decisions for all labels together."""
        return float(f1(*(x.sum() for x in (self.true, self.false, self.missed))))

    def figures(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return the figures for results.json, with None for nan."""
        columns = {
            "threshold": self.thresholds, "precision": share(self.true, self.false),
            "recall": share(self.true, self.missed), "f1": self.f1,
            "average_precision": self.average_precision, "images": self.true + self.missed,
        }  # fmt: skip
        by_label = {
            label: {name: finite(values[i]) for name, values in columns.items()}
            for i, label in enumerate(labels)
        }
        whole = ("map", "micro_f1", "macro_f1", "exact")
        return {name: finite(getattr(self, name)) for name in whole} | {"by_label": by_label}

    def as_json(self) -> dict[str, Any]:
        return self.figures([str(i) for i in range(len(self.thresholds))])

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in cells(self).items())


def share(part: Any, rest: Any) -> np.ndarray:
    """Return part / (part + rest); nan if both are 0."""
    return ratio(part, np.asarray(part + rest))


def f1(true: Any, false: Any, missed: Any) -> np.ndarray:
    """Return the harmonic mean of precision and recall; 0 if it is undefined."""
    return 2 * true / np.maximum(1, 2 * true + false + missed)


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the average precision of a label; nan if no image has it.

    scores, truth: (N,). The sum of (recall step) x precision, without interpolation; images with
    equal scores count as one step, as in scikit-learn's average_precision_score.
    """
    if not truth.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of those with one score
    found = np.cumsum(truth[order].astype(bool))[last]
    precision = found / (np.flatnonzero(last) + 1)
    return float((np.diff(found, prepend=0) * precision).sum() / truth.sum())


def best_thresholds(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the threshold with the highest F1 for each label (labels,); .5 if no image has it.

    Candidates lie midway between two scores. Among equally good ones the nearest to .5 is taken.
    """
    chosen = []
    for scores, truth in zip(probabilities.T, targets.T.astype(bool), strict=True):
        if not truth.any():
            chosen.append(THRESHOLD)
            continue
        levels = np.unique(scores.astype(float))
        candidates = np.append((levels[1:] + levels[:-1]) / 2, levels[0] / 2)
        given = scores >= candidates[:, None]
        quality = f1(
            (given & truth).sum(1), (given & ~truth).sum(1), (~given & truth).sum(1)
        )  # fmt: skip
        best = candidates[quality >= quality.max() - 1e-12]
        chosen.append(best[np.abs(best - THRESHOLD).argmin()])
    return np.array(chosen)


def score_labels(predictions: Scored, split: Split, labels: Sequence[str]) -> LabelScore:
    """Return the scores of predictions for the images of a split."""
    require_names(predictions.probabilities.shape[1], labels)
    truth, given = split.targets.astype(bool), predictions.decisions
    return LabelScore(
        predictions.thresholds,
        np.array([average_precision(predictions.probabilities[:, i], truth[:, i])
                  for i in range(len(labels))]),
        (given & truth).sum(axis=0), (given & ~truth).sum(axis=0), (~given & truth).sum(axis=0),
        float((given == truth).all(axis=1).mean()),
    )  # fmt: skip


def cells(score: LabelScore) -> dict[str, str]:
    values = {"mAP": score.map, "micro F1": score.micro_f1, "macro F1": score.macro_f1}
    return {name: number(value) for name, value in values.items()} | {
        "all labels right": f"{score.exact:.1%}"
    }
