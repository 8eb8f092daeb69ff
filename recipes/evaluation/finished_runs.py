"""A finished run looked at again: its int8 file beside its float model, layer by layer too."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from kzoo.qat import Sensitivity, sensitivity
from kzoo.recipes.data.box_dataset import read_boxes
from kzoo.recipes.data.class_dataset import Dataset, read_dataset
from kzoo.recipes.data.images import Images, Source
from kzoo.recipes.data.mask_dataset import full_mask, read_masks
from kzoo.recipes.evaluation.box_metrics import score_boxes
from kzoo.recipes.evaluation.detect_files import finder
from kzoo.recipes.evaluation.segment_files import masks_of
from kzoo.recipes.training.int8 import for_calibration
from kzoo.recipes.training.run_folder import check_images, fingerprint, read_config
from kzoo.segmentation.masks import score_masks
from kzoo.tflite import Comparison, compare

ASKED = 8  # images that each layer's values are compared on
MEASURED = 32  # images that the noise of one layer alone is measured on


@dataclasses.dataclass(frozen=True, eq=False)
class RunComparison:
    """What float model and int8 file make of the validation images."""

    outputs: Comparison | None  # None where the file ends in a mask and the model in logits
    scores: Mapping[str, Any]  # of "float" and "int8", where the task has scores of its own

    def __str__(self) -> str:
        lines = [str(self.outputs)] if self.outputs else []
        return "\n".join([*lines, *(f"{name:6} {score}" for name, score in self.scores.items())])


@dataclasses.dataclass(frozen=True, eq=False)
class Finished:
    """A run's folder, opened."""

    folder: Path
    config: Mapping[str, Any]
    dataset: Any
    train: Sequence[Source]
    val: Sequence[Source]

    @property
    def model(self) -> Path:
        return self.folder / "model.keras"

    @property
    def int8(self) -> Path:
        return self.folder / "model.tflite"

    @property
    def files(self) -> dict[str, Path]:
        return {"float": self.model, "int8": self.int8}

    @property
    def images(self) -> Any:
        """The validation images, (N, side, side, 3) uint8."""
        return Images(self.val, self.config["size"])[:]


def open_finished(folder: Path) -> Finished:
    """Raises ValueError where there is no run, or its data is not where and what it was."""
    config = read_config(folder)
    read, paths = READERS[config["task"]]
    if not Path(config["data"]).exists():
        raise ValueError(
            f"The run {folder} learnt from {config['data']}, which is not there any more: put it "
            "back, or correct that path in its config.json."
        )
    own = {"format": config["format"]} if config["task"] == "detect" else {}
    dataset = read(
        config["data"], val_fraction=config["val_fraction"], seed=config["seed"],
        damaged=config.get("damaged", "refuse"), **own,
    )  # fmt: skip
    splits = paths(dataset.train), paths(dataset.val)
    check_images(folder, config, fingerprint(config["data"], splits))
    return Finished(folder, config, dataset, *splits)


READERS: dict[str, tuple[Callable[..., Any], Callable[[Any], Sequence[Source]]]] = {
    "classify": (read_dataset, lambda split: split.paths),
    "detect": (read_boxes, lambda examples: [example.path for example in examples]),
    "segment": (read_masks, lambda pairs: [pair.image for pair in pairs]),
}


def read_run(folder: Path) -> tuple[keras.Model, Dataset, int]:
    """(The float model of a run of `kzoo classify`, its images, their side in px)."""
    run = open_finished(folder)
    task = run.config["task"]
    if task != "classify":
        raise ValueError(
            f"{folder} is a run of `kzoo {task}`; this reads those of `kzoo classify`."
        )
    return keras.saving.load_model(run.model), run.dataset, run.config["size"]


def compare_run(folder: Path) -> RunComparison:
    """A run's float model and its int8 file on its validation images."""
    run = open_finished(folder)
    return COMPARE[run.config["task"]](run)


def compare_classes(run: Finished) -> RunComparison:
    labels = run.dataset.val.targets
    return RunComparison(compare(run.model, run.int8, run.images, labels, layers=ASKED), {})


def compare_boxes(run: Finished) -> RunComparison:
    images, dataset = run.images, run.dataset
    found = {name: finder(file)(images) for name, file in run.files.items()}
    return RunComparison(
        compare(run.model, run.int8, images, layers=ASKED),
        {name: score_boxes(dataset.val, own, dataset.labels) for name, own in found.items()},
    )


def compare_masks(run: Finished) -> RunComparison:
    classes, pairs = len(run.dataset.labels), run.dataset.val
    truth = [full_mask(pair) for pair in pairs]
    scores = {
        name: score_masks(zip(truth, masks_of(file, pairs, name), strict=True), classes)
        for name, file in run.files.items()
    }
    alike = run.config["output"] == "logits"
    outputs = compare(run.model, run.int8, run.images, layers=ASKED) if alike else None
    return RunComparison(outputs, scores)


COMPARE: dict[str, Callable[[Finished], RunComparison]] = {
    "classify": compare_classes,
    "detect": compare_boxes,
    "segment": compare_masks,
}


def run_sensitivity(folder: Path) -> Sensitivity:
    """What each layer of a run's float model costs in int8, the worst first."""
    run = open_finished(folder)
    model = keras.saving.load_model(run.model, compile=False)
    if run.config["task"] == "classify":
        model = keras.Model(model.input, model.get_layer("predictions").input)
    size, seed = run.config["size"], run.config["seed"]
    return sensitivity(
        model,
        calibration=for_calibration(run.train, size, seed=seed, count=128),
        images=Images(run.val[:MEASURED], size)[:],
    )
