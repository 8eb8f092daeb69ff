"""`kzoo predict`: predictions of a model for images."""

import csv
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

from kzoo.recipes.commands.files.convert import HEADS
from kzoo.recipes.commands.json_output import json_text
from kzoo.recipes.inputs import require_model, tiles_given
from kzoo.recipes.models import known_models
from kzoo.recipes.options import Command, JsonOptions, option


@dataclasses.dataclass(frozen=True)
class PredictOptions(JsonOptions):
    """What `kzoo predict` takes."""

    model: str = option(
        "run folder, .keras or .tflite file; or a published model by name: one of kzoo list, "
        "ssdlite320, lraspp, deeplabv3"
    )
    images: tuple[str, ...] = option(
        "image files, folders, patterns such as 'photos/*.jpg', or - to read a list from "
        "standard input"
    )
    top: int | None = option(
        "classes or objects to print per image (default: 3; all labels of a multi-label model)",
        None,
    )
    alpha: float = option("width multiplier of a published model", 1.0)
    weights: str | None = option("weights of a published model (default: its usual ones)", None)
    tiles: str | None = option(
        "ROWSxCOLUMNS: also run a detector on tiles of each photo, for small objects in large "
        "photos; 2x2 takes five times as long. auto: as many as find more on each photo", None,
    )  # fmt: skip
    csv: bool = option("print CSV with a header: a row for each class or object found", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.csv and self.json:
            raise ValueError("--csv and --json are two forms of one output: give one of them.")
        tiles_given(self.tiles)


def run(options: PredictOptions) -> Any:
    require_model(options.model, (".keras", ".tflite"), (*known_models(), *HEADS))
    from kzoo.recipes.programs.predict_images import model_file, predict

    file = model_file(options.model, alpha=options.alpha, weights=options.weights)
    found, unread, tiles = [], [], tiles_given(options.tiles)

    def readable() -> Iterator[Any]:
        """Yield the predictions; report images that cannot be read on stderr."""
        for prediction in predict(file, options.images, top=options.top, tiles=tiles):
            if prediction.problem:
                unread.append(prediction)
                print(f"kzoo: {prediction}", file=sys.stderr, flush=True)
            else:
                found.append(prediction)
                yield prediction

    if options.csv:
        write_rows(readable())
    elif options.json:
        list(readable())
        print(json_text({"model": file, "predictions": found, "unread": unread}))
    else:
        print(f"model {file}")
        for prediction in readable():
            print(prediction, flush=True)
    if unread:
        raise ValueError(f"{len(unread)} of {len(unread) + len(found)} images could not be read.")


def write_rows(predictions: Iterator[Any]) -> None:
    """Print the predictions as CSV; a box is in px of the image."""
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["image", "label", "score", "ymin", "xmin", "ymax", "xmax"])
    for prediction in predictions:
        for one in prediction.found:
            box = [f"{value:.1f}" for value in one.box or ()] or [""] * 4
            rows.writerow([prediction.image, one.label, f"{one.score:.4f}", *box])


COMMAND = Command(
    "predict",
    "predict images with a run, a .keras or a .tflite file",
    PredictOptions,
    run,
    "kzoo predict runs/photos holiday.jpg 'more/*.jpg' --top 1",
)
