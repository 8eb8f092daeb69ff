"""Weights by name: which published file a name means for a model."""

import difflib
from collections.abc import Sequence
from typing import Any

from kzoo.arguments import one_of
from kzoo.registry import list_models
from kzoo.weights.published import PUBLISHED, PublishedWeights

DATASETS = ("imagenet", "coco", "voc")
TASKS = ("classify", "detect", "segment")
USUAL_SIDE = 224  # of an image whose size is left open or is not square


def is_name(weights: Any) -> bool:
    """Whether this names published weights, as "imagenet" and "imagenet:timm" do."""
    return isinstance(weights, str) and weights.partition(":")[0] in DATASETS


def list_weights(model: str | None = None, task: str | None = None) -> tuple[PublishedWeights, ...]:
    """Return the published weight files that kzoo knows, one row per file.

    model: one of `kzoo.list_models()`; None for all. task: "classify", "detect", "segment" or None.
    Raises ValueError for others.
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
    """Return the file that a name means for a backbone or classifier.

    "imagenet" is keras.applications' file where it has one, else timm's. "imagenet:timm" and the
    like are the best of a publisher, and the whole name of a row is that row. Of several, the one
    trained at the resolution nearest to the image's; of keras.applications, at the same or at 224,
    as it chooses itself. Raises ValueError where there is none.
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
    """Return the file that a name means for a detector or segmenter: ValueError where none is."""
    rows = [row for row in PUBLISHED if row.head]
    found = [row for row in rows if (row.name, row.head) == (weights, head)]
    if not found:
        there = ", ".join(f"{row.name} for {row.head}" for row in rows)
        raise ValueError(f"weights={weights!r}: there are none for {head}. There are: {there}.")
    return found[0]


def publisher(row: PublishedWeights) -> str:
    """imagenet:timm-e2400_r224 -> imagenet:timm"""
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
