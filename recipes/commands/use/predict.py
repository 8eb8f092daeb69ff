"""`kzoo predict`: what a model says of images."""

import dataclasses

from kzoo.recipes.options import Command, Options, option


@dataclasses.dataclass(frozen=True)
class PredictOptions(Options):
    """What `kzoo predict` takes."""

    model: str = option("run folder, .keras or .tflite file")
    images: tuple[str, ...] = option("image files")
    top: int = option("classes to name", 3)


def run(options: PredictOptions) -> None:
    from kzoo.recipes.programs.predict_images import UNREAD, predict

    unread = 0
    for path, said in predict(options.model, options.images, top=options.top):
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
