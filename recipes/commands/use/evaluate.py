"""`kzoo evaluate`: metrics of a model on labelled images."""

import dataclasses
from typing import Any

from kzoo.recipes.configs.detect import BOX_FORMATS
from kzoo.recipes.inputs import require_data, require_model, tiles_given
from kzoo.recipes.options import Command, JsonOptions, option


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(JsonOptions):
    """What `kzoo evaluate` takes."""

    model: str = option("run folder, .keras or .tflite file")
    data: str = option("labelled images, as for the command that trains such a model")
    format: str | None = option(
        f"annotation format: {', '.join(BOX_FORMATS)} (default: detected)",
        None,
        choices=BOX_FORMATS,
    )
    void: str | int | None = option(
        "what masks ignore: a value, or class names separated by commas (default: 255)", None,
    )  # fmt: skip
    tiles: str | None = option(
        "ROWSxCOLUMNS or auto: also measure a detector with tiles, as in kzoo predict --tiles",
        None,
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
    "measure a run or a model file on labelled images (the test split, if there is one)",
    EvaluateOptions,
    run,
    "kzoo evaluate runs/photos PHOTOS_OF_LATER",
)
