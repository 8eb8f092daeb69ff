"""`kzoo weights`: list, fetch, check and locate published weight files."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kzoo.recipes.models import known_models
from kzoo.recipes.options import Command, JsonOptions, did_you_mean, option
from kzoo.weights.places import cache_folder, places
from kzoo.weights.published import PUBLISHED, PublishedWeights

TASKS = ("classify", "detect", "segment")
NAMED = 5  # of the files that could not be downloaded


@dataclasses.dataclass(frozen=True)
class WeightsOptions(JsonOptions):
    """What `kzoo weights` takes."""

    words: tuple[str, ...] = option(
        "list (the default), get NAME, verify [NAME], or path NAME. NAME is a file, a model "
        "(all its files), coco, voc, or all",
        (), positional=True,
    )  # fmt: skip
    model: str | None = option("list only weights of this model", None, choices=known_models)
    task: str | None = option(f"list only weights for {', '.join(TASKS)}", None, choices=TASKS)
    to: str | None = option("folder that get writes to (default: Keras's cache)", None)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A published file and its local path, not checked; None if it is not on this machine."""

    weights: PublishedWeights
    path: Path | None

    def as_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self.weights), "path": self.path}


@dataclasses.dataclass(frozen=True)
class WeightsTable:
    """Published files with their figures and local paths."""

    entries: tuple[Entry, ...]
    without: str = "There are none. kzoo weights lists what there is."  # what to say without files

    def as_json(self) -> list[dict[str, Any]]:
        return [entry.as_json() for entry in self.entries]

    def __str__(self) -> str:
        if not self.entries:
            return self.without
        head = f"{'model':32}{'alpha':>6} {'weights=':30}{'px':>4}{'%':>7}  {'checked by':11}file"
        return "\n".join([head, *map(line, self.entries), "", FIGURES])


def line(entry: Entry) -> str:
    row = entry.weights
    part = row.head or ("" if row.top else "no top")
    name = f"{row.name} ({part})" if part else row.name
    metric = "" if row.metric is None else f"{row.metric:.1f}"
    check = row.digest.partition(":")[0] if row.digest else "first use"
    return (
        f"{row.model:32}{row.alpha:6g} {name:30}{row.resolution:4}{metric:>7}  {check:11}"
        f"{row.file}{'  (here)' if entry.path else ''}"
    )


FIGURES = (
    "%: top-1 on ImageNet; of coco box mAP, of voc mean IoU, as published (--json has the sources "
    "and licences).\nFirst use: no hash is published beside the file; the SHA-256 that it has at "
    "first is kept beside it and must stay."
)


def run(options: WeightsOptions) -> Any:
    action, *names = options.words or ("list",)
    if action not in ACTIONS:
        raise ValueError(
            f"kzoo weights has no {action!r}: it has {', '.join(ACTIONS)}"
            f"{did_you_mean(action, ACTIONS)}"
        )
    return ACTIONS[action](names, options)


def listed(names: Sequence[str], options: WeightsOptions) -> WeightsTable:
    rows = rows_named(names) if names else list(PUBLISHED)
    rows = [row for row in rows if options.model in (None, row.model)]
    return WeightsTable(
        tuple(Entry(row, here(row)) for row in rows if options.task in (None, row.task))
    )


def got(names: Sequence[str], options: WeightsOptions) -> WeightsTable:
    """Fetch files and check existing ones; errors are raised after all have been tried."""
    rows = rows_named(names)
    from kzoo.weights.download import fetch  # imports Keras

    folder = Path(options.to) if options.to else None
    entries, faults = [], []
    for row in rows:
        try:
            entries.append(Entry(row, fetch(row, folder)))
        except (ConnectionError, ValueError) as error:
            faults.append((row, error))
    if len(faults) == 1 and not entries:
        raise faults[0][1]
    if faults:
        missing = ", ".join(row.file for row, _ in faults[:NAMED])
        missing += f" and {len(faults) - NAMED} others" if len(faults) > NAMED else ""
        raise ConnectionError(
            f"{len(faults)} of {len(faults) + len(entries)} files could not be downloaded: "
            f"{missing}. The first: {faults[0][1]}"
        )
    return WeightsTable(tuple(entries))


def verified(names: Sequence[str], options: WeightsOptions) -> WeightsTable:
    """Check the files on this machine; raise ValueError if one is damaged."""
    rows = rows_named(names) if names else PUBLISHED
    entries = [Entry(row, path) for row in rows if (path := here(row))]
    if faults := faults_of(entries):
        raise ValueError(
            "Not the published files:\n  "
            + "\n  ".join(faults)
            + "\nDelete them and fetch them again: kzoo weights get NAME"
        )
    if names and len(entries) < len(rows):
        missing = [row.file for row in rows if here(row) is None]
        fetch = f"kzoo weights get {' '.join(names)}"
        raise ValueError(f"Not on this machine: {', '.join(missing)}. Fetch: {fetch}")
    return WeightsTable(tuple(entries), "None of them is on this machine: kzoo weights get NAME")


def faults_of(entries: Sequence[Entry]) -> list[str]:
    """Return a line for each damaged file on this machine."""
    if not entries:
        return []
    from kzoo.weights.download import fault  # imports Keras

    return [f"{e.path}: {why}" for e in entries if e.path and (why := fault(e.path, e.weights))]


def path(names: Sequence[str], options: WeightsOptions) -> str:
    """Return the local paths of files, one per line; raise ValueError if one is missing."""
    found = verified(names, options).entries if names else ()
    return "\n".join(str(entry.path) for entry in found) or str(cache_folder())


ACTIONS = {"list": listed, "get": got, "verify": verified, "path": path}


def here(row: PublishedWeights) -> Path | None:
    return next((path for path in places(row) if path.is_file()), None)


def rows_named(names: Sequence[str]) -> list[PublishedWeights]:
    """Return the rows for names of files, models, weights or "all"; raise ValueError for others."""
    found: dict[str, PublishedWeights] = {}
    for name in names:
        rows = [row for row in PUBLISHED if name in ("all", row.file, row.model, row.name)]
        if not rows:
            known = {word for row in PUBLISHED for word in (row.file, row.model, row.name)}
            raise ValueError(
                f"There are no published weights named {name!r}{did_you_mean(name, known) or '.'} "
                "kzoo weights lists them."
            )
        found |= {row.file: row for row in rows}
    if not found:
        raise ValueError("Say what to download: a file, a model, coco, voc, or all.")
    return list(found.values())


COMMAND = Command(
    "weights",
    "list, download and verify published weights",
    WeightsOptions,
    run,
    "kzoo weights get mobilenet_v3_small --to /media/stick",
)
