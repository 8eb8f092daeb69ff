"""What a segmentation run leaves for people: report.html, results.json, masks."""

import dataclasses
import html
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from kzoo.recipes.data.images import read_image
from kzoo.recipes.data.mask_dataset import MaskDataset, full_mask
from kzoo.recipes.evaluation.overlay import overlay
from kzoo.recipes.evaluation.page import (
    draw_curves,
    jpeg,
    listed,
    number,
    plot,
    settings,
    table,
    write_page,
)
from kzoo.recipes.files import write_json
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.run_folder import read_config
from kzoo.segmentation.masks import MaskScores, mean, score_masks

GALLERY = 12  # images shown, four times each
SIDE = 240  # px of a drawn image


@dataclasses.dataclass(frozen=True)
class MaskResults:
    """What a segmentation run reached on its validation images; shares in [0, 1]."""

    folder: Path
    float_iou: float
    int8_iou: float
    agreement: float  # pixels of which float and int8 say the same

    def __str__(self) -> str:
        return (
            f"mean IoU {self.float_iou:.3f} float, {self.int8_iou:.3f} int8; they agree on "
            f"{self.agreement:.1%} of the pixels\n"
            f"Model:  {self.folder / 'model.tflite'}\nReport: {self.folder / 'report.html'}"
        )


Masks = dict[str, list[np.ndarray]]  # of "float" and "int8", (H, W) for each validation image


def write_report(
    folder: Path, dataset: MaskDataset, history: list[Row], masks: Masks
) -> MaskResults:
    """Writes report.html and results.json; returns the results."""
    truth = [full_mask(pair) for pair in dataset.val]
    classes = len(dataset.labels)
    scores = {
        name: score_masks(zip(truth, own, strict=True), classes) for name, own in masks.items()
    }
    pairs = list(zip(masks["float"], masks["int8"], strict=True))
    agreement = sum(int((a == b).sum()) for a, b in pairs) / sum(a.size for a, _ in pairs)
    exact, int8 = scores["float"], scores["int8"]
    results = MaskResults(folder, exact.mean_iou, int8.mean_iou, agreement)
    figures = {name: figures_of(score, dataset.labels) for name, score in scores.items()}
    write_json(
        folder / "results.json", dataclasses.asdict(results) | figures | {"folder": folder.name}
    )
    config = read_config(folder)
    iou = [score_masks([pair], classes).mean_iou for pair in zip(truth, masks["int8"], strict=True)]
    worst = np.argsort(iou, kind="stable")
    keys = ("loss", "mean_iou", "pixel_accuracy")
    sections = {
        "Result": results_table(scores, folder, agreement),
        "Training": plot(draw_curves(history, keys), "loss, IoU and accuracy by epoch")
        if history
        else "",
        "By class": table(
            ("", "share", "IoU float", "IoU int8", "boundary F float", "boundary F int8"),
            by_class(dataset, scores),
        ),
        "The worst images": strips(dataset, truth, masks, worst[: GALLERY // 2], iou),
        "Images of all kinds": strips(
            dataset, truth, masks, np.random.default_rng(0).permutation(len(truth))[:GALLERY], iou
        ),
        "Which classes are taken for which": plot(draw_confusion(int8, dataset.labels), "confusion")
        if classes <= 40
        else "",
        "Remarks on the data": listed(dataset.issues, "None: every image has a mask."),
        "Settings": settings(config),
    }
    title = f"{config['head']} on {config['model']} {config['alpha']:g}: "
    write_page(folder / "report.html", title + Path(config["data"]).name, str(dataset), sections)
    return results


def figures_of(score: MaskScores, labels: tuple[str, ...]) -> dict[str, object]:
    iou = {label: round(float(v), 4) for label, v in zip(labels, score.iou, strict=True)}
    return {
        "mean_iou": score.mean_iou,
        "pixel_accuracy": score.pixel_accuracy,
        "boundary_f": mean(score.boundary_f),
        "iou": {label: None if np.isnan(value) else value for label, value in iou.items()},
    }


def results_table(scores: dict[str, MaskScores], folder: Path, agreement: float) -> str:
    """Float and int8 side by side."""
    files = {"float": ("float32, Keras", "model.keras"), "int8": ("int8, TFLite", "model.tflite")}
    rows = []
    for name, score in scores.items():
        label, file = files[name]
        values = (score.mean_iou, score.pixel_accuracy, mean(score.boundary_f))
        size = f"{(folder / file).stat().st_size / 1e6:.2f} MB"
        rows.append((label, *map(number, values), size, file))
    head = ("", "mean IoU", "pixel accuracy", "boundary F", "size", "file")
    return (
        f"{table(head, rows)}<p>Measured on the validation images at their own sizes, void left "
        f"out; the int8 file was run by the TFLite interpreter. The two agree on {agreement:.2%} "
        "of the pixels. The boundary F-score counts an outline as found within 0.75 % of the "
        "image's diagonal.</p>"
    )


def by_class(dataset: MaskDataset, scores: dict[str, MaskScores]) -> list[tuple[str, ...]]:
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


def strips(
    dataset: MaskDataset, truth: list[np.ndarray], masks: Masks, chosen: np.ndarray,
    iou: list[float],
) -> str:  # fmt: skip
    """Images in rows of four: as they are, with the true mask, the float and the int8 one."""
    rows = []
    for i in chosen:
        path = dataset.val[i].image
        image = read_image(path, SIDE)
        shown = [image, *(overlay(image, m[i]) for m in (truth, masks["float"], masks["int8"]))]
        said = f"{html.escape(path.name)}: mean IoU of int8 {number(iou[i])}"
        rows.append(
            f'<figure><img style="max-width:{4 * SIDE}px" src="{jpeg(np.concatenate(shown, 1))}" '
            f'alt="{html.escape(path.name)}" loading="lazy"><figcaption>{said}</figcaption>'
            "</figure>"
        )
    return f'<p class="quiet">Image, truth, float, int8</p>{"".join(rows)}'


def draw_confusion(score: MaskScores, labels: tuple[str, ...]) -> Figure:
    """Which share of each true class's pixels (rows) was taken for each class (columns)."""
    shares = score.confusion / np.maximum(1, score.confusion.sum(1, keepdims=True))
    side = min(12.0, 2.5 + 0.5 * len(labels))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("found")
    axes.set_ylabel("true")
    if len(labels) <= 25:
        for (i, j), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "white" if share > 0.5 else "black"
                axes.text(j, i, f"{share:.0%}", ha="center", va="center", color=colour, fontsize=8)
    return figure
