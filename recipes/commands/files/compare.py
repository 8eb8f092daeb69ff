"""`kzoo compare`: a run's float model and its int8 file, or two runs."""

import dataclasses
from pathlib import Path
from typing import Any

from kzoo.recipes.inputs import require_ended, require_same_task, tiles_given
from kzoo.recipes.options import Command, JsonOptions, option


@dataclasses.dataclass(frozen=True)
class CompareOptions(JsonOptions):
    """What `kzoo compare` takes."""

    runs: tuple[str, ...] = option(
        "one run folder, to compare its float model and int8 file; or two, to compare the runs"
    )
    tiles: str | None = option(
        "ROWSxCOLUMNS or auto: also measure a detector with tiles, as in kzoo predict --tiles",
        None,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.runs) > 2:
            raise ValueError(f"compare takes one run folder or two. Received: {len(self.runs)}")
        if tiles_given(self.tiles) and len(self.runs) == 2:
            raise ValueError(
                "--tiles is for one run: two runs are compared by their saved results."
            )


def run(options: CompareOptions) -> Any:
    two = len(options.runs) == 2
    for folder in options.runs:
        require_ended(folder, *(["results.json"] if two else []))
    if two:
        require_same_task(*options.runs)
        from kzoo.recipes.programs.compare_runs import compare_runs

        return compare_runs(*options.runs)
    from kzoo.recipes.evaluation.finished_runs import compare_run

    return compare_run(Path(options.runs[0]), tiles=tiles_given(options.tiles))


COMMAND = Command(
    "compare",
    "compare a run's float model and int8 file on the validation images, or two runs",
    CompareOptions,
    run,
    "kzoo compare runs/photos runs/photos_large",
)
