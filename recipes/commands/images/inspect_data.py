"""`kzoo inspect`: statistics, issues and advice for a data set before training."""

import dataclasses
from typing import Any

from kzoo.recipes.configs.detect import BOX_FORMATS
from kzoo.recipes.configs.run import SIZE
from kzoo.recipes.inputs import require_data, size_given
from kzoo.recipes.options import Command, JsonOptions, option

TASKS = ("classify", "detect", "multilabel", "segment")


@dataclasses.dataclass(frozen=True)
class InspectOptions(JsonOptions):
    """What `kzoo inspect` takes."""

    data: str = option("data, as for classify, detect, multilabel or segment")
    task: str | None = option(f"{', '.join(TASKS)} (default: detected)", None, choices=TASKS)
    format: str | None = option(
        f"{', '.join(BOX_FORMATS)} (default: detected)", None, choices=BOX_FORMATS
    )
    size: int | tuple[int, int] | None = option(f"{SIZE} (default: the task's own)", None)
    void: str | int | None = option(
        "what masks ignore: a value, or class names separated by commas (default: 255)", None,
    )  # fmt: skip
    val_fraction: float = option("share of images for validation if the data has no split", 0.2)
    seed: int = option("random seed of that split", 0)
    items: bool = option("with --json: also list every example", False)
    near: bool = option("look for near-duplicate images in two classes or splits", True)
    out: str | None = option("page to write (default: inspect.html; none with --json)", None)


def run(options: InspectOptions) -> Any:
    require_data(options.data)
    from kzoo.recipes.inspection.inspection import inspect_data
    from kzoo.recipes.inspection.page import write_inspection

    size = None if options.size is None else size_given(options.size)
    given = vars(options) | {"size": size}
    out = options.out or (None if options.json else "inspect.html")
    found = inspect_data(**{key: given[key] for key in given if key not in ("json", "out")})
    return write_inspection(found, out) if out else found


COMMAND = Command(
    "inspect",
    "show how kzoo reads a data set: splits, classes, sizes, and what is wrong with it",
    InspectOptions,
    run,
    "kzoo inspect PHOTOS",
)
