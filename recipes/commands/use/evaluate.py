"""`kzoo evaluate`: what a model reaches on labelled images."""

import dataclasses
from typing import Any

from kzoo.recipes.configs import BOX_FORMATS
from kzoo.recipes.inputs import require_data, require_model, tiles_given
from kzoo.recipes.options import Command, JsonOptions, option


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(JsonOptions):
    """What `kzoo evaluate` takes."""

    model: str = option("run folder, .keras or .tflite file")
    data: str = option("labelled images: what the command that trains such a model takes")
    format: str | None = option(
        f"of boxes: {', '.join(BOX_FORMATS)} (default: what is there)", None, choices=BOX_FORMATS
    )
    void: str | None = option(
        "what counts for nothing: a value of masks, or names of classes with commas between "
        "(default: 255)", None,
    )  # fmt: skip
    tiles: str | None = option(
        "ROWSxCOLUMNS: measure a detector besides with so many parts of each photo looked at, as "
        "kzoo predict --tiles does", None,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        tiles_given(self.tiles)


def run(options: EvaluateOptions) -> Any:
    require_model(options.model, (".keras", ".tflite"))
    require_data(options.data)
    from kzoo.recipes.programs.evaluate import evaluate_on

    return evaluate_on(
        options.model, options.data, format=options.format, void=options.void,
        tiles=tiles_given(options.tiles),
    )  # fmt: skip


COMMAND = Command(
    "evaluate",
    "what a run or a model file reaches on labelled images, those given as test if there are any",
    EvaluateOptions,
    run,
    "kzoo evaluate runs/photos PHOTOS_OF_LATER",
)
