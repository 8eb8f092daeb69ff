"""Comparison and sensitivity analysis of finished runs."""

from collections.abc import Sequence
from pathlib import Path

from kzoo.qat import Sensitivity, sensitivity
from kzoo.recipes.data.images import Images, Source
from kzoo.recipes.evaluation.evaluate import Evaluation, evaluate
from kzoo.recipes.inputs import read_config, require_ended
from kzoo.recipes.task import Run, get_task
from kzoo.recipes.training.int8 import for_calibration
from kzoo.recipes.training.run_folder import check_images, fingerprint
from kzoo.sizes import Tiles
from kzoo.weights.saved_model import load_model

COMPARED = 8  # images for the comparison of each layer
MEASURED = 32  # images for the sensitivity analysis


def open_finished(folder: Path, *files: str) -> Run:
    """Return a finished run with its dataset.

    files: files that must exist, by default both models.

    Raises ValueError if there is no run, a file is missing, or the data have been moved or changed.
    """
    config = read_config(folder)
    require_ended(folder, *files)
    task = get_task(config["task"])
    if not Path(config["data"]).exists():
        raise ValueError(
            f"The run {folder} was trained on {config['data']}, which no longer exists: put it "
            "back, or correct the path in its config.json."
        )
    run = Run(task, config, task.read_dataset(config["data"], config), folder)
    check_images(folder, config, fingerprint(config["data"], [run.train, run.val]))
    return run


def compare_run(folder: Path, *, tiles: Tiles | None = None) -> Evaluation:
    """Return the evaluation of a run's float model and int8 file, with noise by layer.

    tiles: (rows, columns) or "auto", for detectors: also evaluate with tiles.
    """
    return evaluate(open_finished(folder), layers=COMPARED, tiles=tiles)


def run_sensitivity(folder: Path) -> Sensitivity:
    """Return the sensitivity of a run's float model to quantizing each layer, the worst first."""
    run = open_finished(folder)
    model = run.task.before_softmax(load_model(run.model))
    return sensitivity(
        model,
        calibration=for_calibration(run.train, run.size, seed=run.settings["seed"], count=128),
        images=Images(spread(run.val), run.size)[:],
    )


def spread(images: Sequence[Source]) -> list[Source]:
    """Return up to `MEASURED` images, evenly spaced, since they are ordered by class."""
    count = min(MEASURED, len(images))
    return [images[i * len(images) // count] for i in range(count)]
