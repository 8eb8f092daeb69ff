"""`kzoo inspect`: what kzoo understood of a data set, before training on it."""

import dataclasses
from typing import Any

from kzoo.recipes.configs import BOX_FORMATS
from kzoo.recipes.inputs import require_data
from kzoo.recipes.options import Command, JsonOptions, option

TASKS = ("classify", "detect", "multilabel", "segment")


@dataclasses.dataclass(frozen=True)
class InspectOptions(JsonOptions):
    """What `kzoo inspect` takes."""

    data: str = option("what classify, detect, multilabel or segment would be given")
    task: str | None = option(f"{', '.join(TASKS)} (default: what is there)", None, choices=TASKS)
    format: str | None = option(
        f"{', '.join(BOX_FORMATS)} (default: what is there)", None, choices=BOX_FORMATS
    )
    size: int | None = option("side of the net's input in px (default: the task's own)", None)
    void: str | None = option(
        "what counts for nothing: a value of masks, or names of classes with commas between "
        "(default: 255)", None,
    )  # fmt: skip
    val_fraction: float = option("share of images to validate on where no split is given", 0.2)
    seed: int = option("of that split", 0)
    items: bool = option("with --json: every example too", False)
    near: bool = option("look for images that are nearly the same in two classes or splits", True)
    out: str | None = option("page to write (default: inspect.html, with --json none)", None)


def run(options: InspectOptions) -> Any:
    require_data(options.data)
    from kzoo.recipes.inspection.inspection import inspect_data
    from kzoo.recipes.inspection.page import write_inspection

    given = vars(options)
    out = options.out or (None if options.json else "inspect.html")
    found = inspect_data(**{key: given[key] for key in given if key not in ("json", "out")})
    return write_inspection(found, out) if out else found


COMMAND = Command(
    "inspect",
    "what kzoo understands of a data set: splits, classes, sizes, and what is wrong with it",
    InspectOptions,
    run,
    "kzoo inspect PHOTOS",
)
