"""`kzoo convert`: a run or a .keras file to a .tflite file, calibrated and checked on images."""

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
from kzoo.recipes.inputs import MODEL
from kzoo.recipes.programs.published_model import image_reader
from kzoo.recipes.training.int8 import for_calibration
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
TRAINED_ON = 1024  # images of a run, in int8
LEAST_SQNR_DB = 6.0  # of nets with several outputs, boxes among them: noise of half the amplitude


@dataclasses.dataclass(frozen=True)
class Converted:
    """A file that `kzoo convert` has written."""

    audit: Audit
    comparison: Comparison | None  # with the model; None where there were no images
    remarks: tuple[str, ...] = ()  # on the calibration images

    @property
    def verdict(self) -> str:
        """What was written and how good it is, in a sentence, and what to do next."""
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
    """Convert `model`, compare the file with it, and return what was found.

    `calibration` and `check` are folders of images, of which some are taken; without `check` the
    file is compared on those of `calibration`. Of a run's folder the float model is converted, by
    default on the images that it was trained and validated on. `labels` is a file of names, by
    default labels.txt beside the model. With `postprocess` a detector's file ends in the objects
    found: it is compared before the operator that finds them is put behind it. Raises RejectedFile
    (a ValueError) where the two agree on less than `agreement` of the images: the file is then
    called NAME.rejected.tflite, and one that `out` was before stays. The layers `keep_float` stay
    in float in an int8 file.
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

    Of a run of `kzoo classify` points of accuracy on its validation images; its own int8 file is
    tried after calibration, and training in int8 where the run had none (--qat-epochs 0). Else
    answers that change on the images of `check`, by default those of `calibration`. Raises
    ValueError where none holds, with what was tried.
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
    if run and not run.settings.get("qat_epochs"):  # its own file is of calibration alone
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


def sample(folder: Path, size: Size | None, model: Path) -> np.ndarray:
    """Return up to MOST_IMAGES readable images below a folder, spread over its file names.

    They are resized as `model`'s weights were measured, where it is a published net's file.
    """
    if size is None:
        raise ValueError("The model has no fixed input size: pass --size.")
    read_image = image_reader(model)
    paths = images_below(folder) if folder.is_dir() else []
    count = min(MOST_IMAGES, len(paths))
    images = []
    for path in (paths[i * len(paths) // count] for i in range(count)):
        try:
            images.append(read_image(path, size))
        except BadImageError:
            continue
    if not images:
        raise ValueError(f"{folder} contains no images.")
    return np.stack(images)
