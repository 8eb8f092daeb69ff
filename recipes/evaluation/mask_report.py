"""The report of a segmentation run: metrics and sections of its page."""

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from kzoo.files import finite
from kzoo.recipes.data.images import read_image, upright_size
from kzoo.recipes.data.mask_dataset import MaskDataset
from kzoo.recipes.data.masks.pairs import Pair, full_mask
from kzoo.recipes.evaluation.drawings import clear_class, fitting, overlay, palette
from kzoo.recipes.evaluation.evaluate import Evaluation, SplitEvaluation
from kzoo.recipes.evaluation.page import jpeg, number, plot, table
from kzoo.recipes.evaluation.plots import draw_confusion
from kzoo.recipes.evaluation.results import RunResults, SummaryFigures
from kzoo.recipes.task import FLOAT, INT8, Report, Run
from kzoo.segmentation.masks import MaskScores, mean, score_masks

MOST_CLASSES = 40  # largest number of classes for a confusion matrix
GALLERY = 12  # number of images shown, four times each
SIDE = 240  # px of the longer side of a drawn image


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskResults(RunResults):
    """Results of a segmentation run on its validation images; figures in [0, 1]."""

    summary_figures: ClassVar[SummaryFigures] = (("mean_iou", "mean IoU"),)
    float_iou: float
    int8_iou: float
    agreement: float  # share of pixels with the same class in float and int8

    @staticmethod
    def main_figures(evaluation: Evaluation) -> dict[str, Any]:
        val = evaluation.val
        pairs = list(zip(val.predictions[FLOAT], val.predictions[INT8], strict=True))
        return {
            **{f"{kind}_iou": score.mean_iou for kind, score in val.scores.items()},
            "agreement": sum((a == b).sum() for a, b in pairs) / sum(a.size for a, _ in pairs),
        }

    def summary(self) -> str:
        return f"{super().summary()}; they agree on {self.agreement:.1%} of the pixels"


def score_pairs(
    masks: Sequence[np.ndarray], pairs: Sequence[Pair], labels: Sequence[str]
) -> MaskScores:
    """Return the scores of predicted masks for the images of a split."""
    return score_masks(zip(map(full_mask, pairs), masks, strict=True), len(labels))


def score_figures(score: MaskScores, labels: Sequence[str]) -> dict[str, Any]:
    iou = zip(labels, np.round(score.iou.astype(float), 4), strict=True)
    return {
        "mean_iou": score.mean_iou,
        "pixel_accuracy": score.pixel_accuracy,
        "boundary_f": mean(score.boundary_f),
        "iou": {label: finite(value) for label, value in iou},
    }


def cells(score: MaskScores) -> dict[str, str]:
    values = {
        "mean IoU": score.mean_iou,
        "pixel accuracy": score.pixel_accuracy,
        "boundary F": mean(score.boundary_f),
    }
    return {name: number(value) for name, value in values.items()}


def sections(run: Run, evaluation: Evaluation) -> dict[str, str]:
    """Return the page's sections on both models, for the validation images."""
    val, labels = evaluation.val, run.dataset.labels
    pairs, found = val.examples, val.predictions[INT8]
    truth = [full_mask(pair) for pair in pairs]
    iou = [score_masks([both], len(labels)).mean_iou for both in zip(truth, found, strict=True)]
    worst = np.argsort(iou, kind="stable")[: GALLERY // 2]
    some = np.random.default_rng(0).permutation(len(truth))[:GALLERY]
    columns = ("", "share", "IoU float", "IoU int8", "boundary F float", "boundary F int8")
    shown = {
        "By class": table(columns, by_class(run.dataset, val.scores)),
        "The worst images": strips(val, truth, worst, iou, labels),
        "Random validation images": strips(val, truth, some, iou, labels),
    }
    if len(labels) <= MOST_CLASSES:
        confusion = draw_confusion(val.scores[INT8].confusion, labels, found="found", shares=True)
        shown["Confusion matrix of the int8 file"] = plot(confusion, "confusion")
    return shown


def by_class(dataset: MaskDataset, scores: Mapping[str, MaskScores]) -> list[tuple[str, ...]]:
    shares = dataset.pixels / dataset.pixels.sum()
    return [
        (
            label,
            f"{shares[i]:.1%}",
            *(number(score.iou[i]) for score in scores.values()),
            *(number(score.boundary_f[i]) for score in scores.values()),
        )
        for i, label in enumerate(dataset.labels)
    ]


def legend(labels: Sequence[str]) -> str:
    """Return HTML: a legend of the classes' colours in masks."""
    clear, colours = clear_class(labels), palette()
    chips = [
        f'<span style="background:rgb{tuple(colours[i].tolist())};display:inline-block;width:1em;'
        f'height:1em;vertical-align:-2px;margin:0 4px 0 12px"></span>{html.escape(label)}'
        for i, label in enumerate(labels[:MOST_CLASSES])
        if i != clear
    ]
    return f'<p class="quiet">{"".join(chips)}</p>'


def strips(
    split: SplitEvaluation, truth: Sequence[np.ndarray], chosen: np.ndarray, iou: Sequence[float],
    labels: Sequence[str],
) -> str:  # fmt: skip
    """Return HTML: rows of image, true mask, float mask and int8 mask."""
    rows, clear = [], clear_class(labels)
    for i in chosen:
        path = split.examples[i].image
        image = read_image(path, fitting(upright_size(path), SIDE))
        masks = (truth[i], *(found[i] for found in split.predictions.values()))
        shown = [image, *(overlay(image, mask, clear=clear) for mask in masks)]
        caption = f"{html.escape(path.name)}: mean IoU of int8 {number(iou[i])}"
        strip = np.concatenate(shown, 1)
        rows.append(
            f'<figure><img style="max-width:{strip.shape[1]}px" src="{jpeg(strip)}" '
            f'alt="{html.escape(path.name)}"><figcaption>{caption}</figcaption>'
            "</figure>"
        )
    return f'<p class="quiet">Image, truth, float, int8</p>{legend(labels)}{"".join(rows)}'


REPORT = Report(
    Results=MaskResults,
    figures=score_figures,
    cells=cells,
    net="{head} with {model}",
    curves=("loss", "mean_iou", "pixel_accuracy"),
    note="Masks were compared at the images' own sizes, without void pixels. The boundary F-score "
    "counts an outline as found within 0.75 % of the image's diagonal.",
    sections=sections,
)
