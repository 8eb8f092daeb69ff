"""`kzoo sensitivity`: the layers of a run's model that lose most accuracy in int8."""

import dataclasses
from pathlib import Path
from typing import Any

from kzoo.recipes.inputs import require_ended
from kzoo.recipes.options import Command, JsonOptions, option


@dataclasses.dataclass(frozen=True)
class SensitivityOptions(JsonOptions):
    """What `kzoo sensitivity` takes."""

    run: str = option("run folder")
    top: int = option("number of layers to list", 20)


def run(options: SensitivityOptions) -> Any:
    require_ended(options.run)
    from kzoo.recipes.evaluation.finished_runs import run_sensitivity

    found = run_sensitivity(Path(options.run))
    return found if options.json else found.table(options.top)


COMMAND = Command(
    "sensitivity",
    "list the layers of a run's model that lose most in int8",
    SensitivityOptions,
    run,
    "kzoo sensitivity runs/photos",
)
