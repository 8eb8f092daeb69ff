"""`kzoo convert`: convert a run or .keras file to a .tflite file, and check it on images."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.detection.detector import Detector
from kzoo.quantization.calibration import calibration_remarks
from kzoo.recipes import progress
from kzoo.recipes.data.images import BadImageError, Images
from kzoo.recipes.data.layout import images_below
from kzoo.recipes.evaluation.finished_runs import open_finished
from kzoo.recipes.evaluation.results import read_results
from kzoo.recipes.inputs import MODEL
from kzoo.recipes.programs.published_model import image_reader
from kzoo.recipes.task import Run
from kzoo.recipes.training.int8 import PTQ, for_calibration
from kzoo.recipes.training.run_folder import labels_of, read_labels
from kzoo.sizes import Size, height_width, simplest
from kzoo.tflite import Audit, Bounds, Comparison, Metadata, Search, audit, convert_within
from kzoo.tflite.convert.converter import STEPS, drafted
from kzoo.tflite.convert.postprocess import add_postprocess
from kzoo.tflite.convert.request import requested
from kzoo.tflite.convert.translation import SCHEMES
from kzoo.tflite.inspect.verify import LEAST_AGREEMENT, verify_draft
from kzoo.weights.saved_model import load_model

MOST_IMAGES = 256
TRAINED_ON = 1024  # images of a run for quantization-aware training
LEAST_SQNR_DB = 6.0  # of models with several outputs, such as detectors


@dataclasses.dataclass(frozen=True)
class Converted:
    """The result of `convert_file`."""

    audit: Audit
    comparison: Comparison | None  # with the model; None without images
    remarks: tuple[str, ...] = ()  # on the calibration images

    @property
    def verdict(self) -> str:
        """Sentences that say what was written, how good it is, and what to do next."""
        size = sum(self.audit.bytes.values())
        written = f"{self.audit.path} is written, {size:,} bytes."
        if self.comparison is None:
            return f"{written} Not compared with the model: give --calibration or --check."
        return f"{written} {self.comparison.verdict}"

    def __str__(self) -> str:
        tables = [self.audit.table, *([self.comparison.table] if self.comparison else [])]
        return "\n\n".join([self.verdict, *self.remarks, *tables])


def convert_file(
    model: str | Path, out: str | Path, *, scheme: Any = None, io: Any = None,
    calibration: str | Path | None = None, check: str | Path | None = None,
    agreement: float = LEAST_AGREEMENT, labels: str | Path | None = None, size: Size | None = None,
    batch_size: int = 1, about: Metadata | None = None, postprocess: bool = False,
    target: str = "cpu", keep_float: Sequence[str] = (),
) -> Converted:  # fmt: skip
    """Convert `model` to the .tflite file `out`, compare the two, and return audit and comparison.

    model: a run folder, whose float model is converted, or a .keras file.
    calibration: folder of images to calibrate on; default: the run's training images.
    check: folder of images to compare on; default: the run's validation images, or `calibration`.
    agreement: share of images, in [0, 1], on which file and model must agree.
    labels: file of class names; default: labels.txt beside the model.
    size: input size in px, for models of open size: a side or (height, width).
    about: further metadata.
    postprocess: add TFLite_Detection_PostProcess to a detector's file, after the comparison.
    scheme, io, batch_size, target, keep_float: as in `kzoo.tflite.convert`.

    Raises RejectedFile (a ValueError) if the file misses `agreement`: it is then renamed to
    NAME.rejected.tflite, and an older file `out` stays. Raises ValueError for unusable arguments.
    """
    run = open_finished(Path(model), MODEL) if Path(model).is_dir() else None
    model = run.model if run else Path(model)
    if not model.is_file():
        raise ValueError(f"There is no {model}. Name a run folder or a .keras file.")
    net = load_model(model)
    if postprocess and not isinstance(net, Detector):
        raise ValueError(f"--postprocess is for detectors; {model} is a {type(net).__name__}.")
    names = read_labels(Path(labels)) if labels else labels_of(model)
    seen_size = size or simplest(*net.input_shape[1:3])
    images = None if calibration is None else sample(Path(calibration), seen_size, model)
    seen = images if check is None else sample(Path(check), seen_size, model)
    if run and images is None:
        images = for_calibration(run.train, seen_size, seed=run.settings["seed"], count=MOST_IMAGES)
    if run and seen is None:
        seen = Images(run.val, run.size)[:]
    with progress.bar("converting", len(STEPS) + 1) as bar:

        def step(name: str) -> None:
            bar.advance(description=name)

        request = requested(
            Path(out), target, scheme=scheme, io=io, labels=None if names is None else tuple(names),
            image_size=height_width(size) if size else None, metadata=about, batch_size=batch_size,
            keep_float=tuple(keep_float),
        )  # fmt: skip
        several = len(net.outputs) > 1
        bounds = Bounds(None, LEAST_SQNR_DB) if several else Bounds(agreement)
        comparison = None
        with drafted(net, request, images, step) as draft:
            step("comparing with the model")
            if seen is not None:
                comparison = verify_draft(net, draft, request.out, seen, bounds=bounds)
            if postprocess:
                add_postprocess(draft, draft)
    remarks: list[str] = []
    if images is not None and SCHEMES[request.scheme].calibrated:
        remarks = calibration_remarks(iter([images]))
    return Converted(audit(out), comparison, tuple(remarks))


def convert_within_budget(
    model: str | Path, out: str | Path, *, max_drop: float, calibration: str | Path | None = None,
    check: str | Path | None = None, pareto: str | Path | None = None, io: Any = None,
    labels: str | Path | None = None,
) -> Search:  # fmt: skip
    """Write the first int8 file of a run or .keras file that loses at most `max_drop` points.

    For a run of `kzoo classify` these are points of accuracy on its validation images; its own
    int8 file is tried after calibration, and then quantization-aware training unless that file has
    its weights. Otherwise they are changed predictions on the images of `check`, by default
    those of `calibration`. See `kzoo.tflite.convert_within`. Raises ValueError, with a table of
    all attempts, if no file is within the limit.
    """
    run = open_finished(Path(model), MODEL) if Path(model).is_dir() else None
    source = run.model if run else Path(model)
    net = load_model(source)
    names = read_labels(Path(labels)) if labels else labels_of(source)
    size = simplest(*net.input_shape[1:3])
    images = None if calibration is None else sample(Path(calibration), size, source)
    seen = images if check is None else sample(Path(check), size, source)
    truth, trained = None, {}
    if run and images is None:
        images = for_calibration(run.train, size, seed=run.settings["seed"], count=MOST_IMAGES)
    if run and seen is None:
        seen = Images(run.val, run.size)[:]
        truth = getattr(run.dataset.val, "targets", None)
    if run and run.int8.is_file():
        trained = {"the run's own file": run.int8}
    training = None
    if run and is_calibrated_alone(run):
        seed = run.settings["seed"]
        training = partial(for_calibration, run.train, size, seed=seed, count=TRAINED_ON)
    if images is None or seen is None:
        raise ValueError("--max-drop needs images to measure on: pass --calibration FOLDER.")
    found = convert_within(
        net, out, max_drop=max_drop, calibration=images, images=seen, labels=truth,
        trained_files=trained, training_images=training, pareto_folder=pareto,
        convert_options={"io": io, "labels": names},
    )  # fmt: skip
    if found.chosen is None:
        raise ValueError(str(found))
    return found


def is_calibrated_alone(run: Run) -> bool:
    """Return whether the run has no int8 file with weights of quantization-aware training."""
    if not ((run.folder / "results.json").is_file() and run.settings.get("qat_epochs")):
        return True
    return bool(read_results(run.folder, run.task.report.Results).chosen == PTQ)


def sample(folder: Path, size: Size | None, model: Path) -> np.ndarray:
    """Return up to MOST_IMAGES readable images below a folder, evenly spaced by file name.

    For a published model they are resized as in the evaluation of its weights.
    """
    if size is None:
        raise ValueError("The model has no fixed input size: pass --size.")
    read = image_reader(model)
    paths = images_below(folder) if folder.is_dir() else []
    count = min(MOST_IMAGES, len(paths))
    images = []
    for path in (paths[i * len(paths) // count] for i in range(count)):
        try:
            images.append(read(path, size)[0])
        except BadImageError:
            continue
    if not images:
        raise ValueError(f"{folder} contains no images.")
    return np.stack(images)
