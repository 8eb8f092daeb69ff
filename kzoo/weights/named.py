"""Names of published weights, and the file that a name selects for a model."""

import difflib
from collections.abc import Sequence
from typing import Any

from kzoo.arguments import one_of
from kzoo.registry import list_models
from kzoo.weights.published import PUBLISHED, PublishedWeights

DATASETS = ("imagenet", "coco", "voc")
TASKS = ("classify", "detect", "segment")
USUAL_SIDE = 224  # px; assumed for inputs of open size or that are not square


def is_name(weights: Any) -> bool:
    """Return whether this is a name of published weights, such as "imagenet:timm", not a path."""
    return isinstance(weights, str) and weights.partition(":")[0] in DATASETS


def list_weights(model: str | None = None, task: str | None = None) -> tuple[PublishedWeights, ...]:
    """Return the published weight files that kzoo can load, one row per file.

    model: one of `kzoo.list_models()`, or None for all.
    task: "classify", "detect" or "segment", or None for all.

    A row has the file's name for `weights=`, model, alpha, resolution, URL and license. Raises
    ValueError for other models and tasks.
    """
    if model is not None:
        one_of("model", model, list_models())
    one_of("task", task, (*TASKS, None))
    return tuple(
        row for row in PUBLISHED if model in (None, row.model) and task in (None, row.task)
    )


def published(
    weights: str,
    model: str,
    alpha: float,
    *,
    include_top: bool = True,
    sides: Sequence[int | None] = (),
) -> PublishedWeights:
    """Return the file that `weights` selects for a backbone or classifier.

    weights: "imagenet" selects keras.applications' file if there is one, else timm's;
        "imagenet:timm" the best file of that publisher; the full name of a row that row.
    sides: (height, width) of the input. Among several files the one with the nearest training
        resolution is selected; of keras.applications' the one with the same resolution or, as
        there, 224.

    Raises ValueError if there is no such file.
    """
    dataset = weights.partition(":")[0]
    rows = [row for row in PUBLISHED if row.name.partition(":")[0] == dataset]
    own = [row for row in rows if (row.model, row.alpha) == (model, alpha)]
    if not own:
        raise ValueError(none_for(weights, model, alpha, rows))
    named = [row for row in own if weights in (dataset, row.name, publisher(row))]
    if not named:
        names = dict.fromkeys(name for row in own for name in (publisher(row), row.name))
        near = difflib.get_close_matches(weights, names, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"weights={weights!r}: there are none of that name for {model} at alpha {alpha}.{hint} "
            f"Choose one of {dataset}, {', '.join(names)}."
        )
    first = [row for row in named if publisher(row) == publisher(named[0])]
    first = [row for row in first if row.top == include_top] or first
    square = len(set(sides)) == 1 and sides[0]
    side = sides[0] if square and sides[0] else USUAL_SIDE
    if first[0].reader == "keras" and side not in {row.resolution for row in first}:
        side = USUAL_SIDE
    return min(first, key=lambda row: (abs(row.resolution - side), -(row.metric or 0)))


def published_head(weights: str, head: str) -> PublishedWeights:
    """Return the file of a name for a detector or segmenter; raise ValueError if there is none."""
    rows = [row for row in PUBLISHED if row.head]
    found = [row for row in rows if (row.name, row.head) == (weights, head)]
    if not found:
        there = ", ".join(f"{row.name} for {row.head}" for row in rows)
        raise ValueError(f"weights={weights!r}: there are none for {head}. There are: {there}.")
    return found[0]


def publisher(row: PublishedWeights) -> str:
    """Return the publisher of a row: imagenet:timm-e2400_r224 -> imagenet:timm."""
    return row.name.partition("-")[0]


def none_for(weights: str, model: str, alpha: float, rows: list[PublishedWeights]) -> str:
    there: dict[str, set[float]] = {}
    for row in rows:
        there.setdefault(row.model, set()).add(row.alpha)
    table = "; ".join(f"{name} {', '.join(map(str, sorted(there[name])))}" for name in there)
    return (
        f'weights="{weights}": there are none for {model} at alpha {alpha}. There are, at these '
        f"alphas: {table}. Use one of these, weights=None, or the path of a file."
    )
