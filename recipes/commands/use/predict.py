"""`kzoo predict`: what a model says of images."""

import dataclasses

from kzoo.recipes.options import Command, Options, option


@dataclasses.dataclass(frozen=True)
class PredictOptions(Options):
    """What `kzoo predict` takes."""

    model: str = option(
        "run folder, .keras or .tflite file; or a published net by name: one of kzoo list, "
        "ssdlite320, lraspp, deeplabv3"
    )
    images: tuple[str, ...] = option("image files")
    top: int = option("classes to name", 3)
    alpha: float = option("width multiplier of a net that is named", 1.0)
    weights: str | None = option("of a net that is named (default: the usual ones)", None)


def run(options: PredictOptions) -> None:
    from kzoo.recipes.programs.predict_images import UNREAD, predict

    unread = 0
    for path, said in predict(
        options.model,
        options.images,
        top=options.top,
        alpha=options.alpha,
        weights=options.weights,
    ):
        print(f"{path}: {said}")
        unread += said.startswith(UNREAD)
    if unread == len(options.images):
        raise ValueError("None of the images could be read.")


COMMAND = Command(
    "predict",
    "say what images show, by a run, a .keras or a .tflite file",
    PredictOptions,
    run,
    "kzoo predict runs/photos holiday.jpg",
)
