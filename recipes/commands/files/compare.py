"""`kzoo compare`: a run's float model and its int8 file."""

import dataclasses
from pathlib import Path
from typing import Any

from kzoo.recipes.inputs import require_run
from kzoo.recipes.options import Command, JsonOptions, option


@dataclasses.dataclass(frozen=True)
class CompareOptions(JsonOptions):
    """What `kzoo compare` takes."""

    run: str = option("run folder")


def run(options: CompareOptions) -> Any:
    require_run(options.run)
    from kzoo.recipes.evaluation.finished_runs import compare_run

    return compare_run(Path(options.run))


COMMAND = Command(
    "compare",
    "a run's float model and its int8 file on the validation images",
    CompareOptions,
    run,
    "kzoo compare runs/photos",
)
