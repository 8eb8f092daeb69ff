"""`kzoo convert`: convert a run or a .keras file to a .tflite file and compare the two."""

import dataclasses
from pathlib import Path
from typing import Any

from kzoo.files import require_suffix
from kzoo.recipes.inputs import require_data, require_model, size_given
from kzoo.recipes.models import known_models
from kzoo.recipes.options import Command, JsonOptions, option

SCHEMES = {
    "float32": "as trained",
    "float16": "weights in float16, computed in float32: half the bytes",
    "dynamic": (
        "weights in int8, activations in float32: a quarter of the bytes, but 1.3 to 2.9x slower"
    ),
    "int8": "weights and activations in int8: a third of the bytes, .4 to .7 of the time",
    "int16x8": (
        "weights in int8, activations in int16: 36x slower (reference kernels), no HARD_SWISH"
    ),
}
TARGETS = {
    "cpu": "int8, hard-swish split into operators that XNNPACK has",
    "gpu": "float16 weights, because GPUs compute in float16; int8 would be no faster",
    "npu": "int8, hard-swish as the one operator that NPUs have",
    "web": "int8 for LiteRT.js on the CPU; for WebGPU use gpu",
    "micro": "int8 everywhere, also input and outputs",
    "edgetpu": "int8 everywhere, for edgetpu_compiler",
}
HEADS = ("ssdlite320", "lraspp", "deeplabv3")  # published heads, of `published_model`
INPUTS = ("uint8", "float32", "int8")


@dataclasses.dataclass(frozen=True)
class ConvertOptions(JsonOptions):
    """What `kzoo convert` takes."""

    model: str = option(
        "run folder, .keras file, or a published model by name: one of kzoo list, ssdlite320, "
        "lraspp, deeplabv3"
    )
    out: str = option(".tflite file to write")
    target: str = option(
        "where it will run: " + "; ".join(f"{name}: {about}" for name, about in TARGETS.items()),
        "cpu", choices=tuple(TARGETS),
    )  # fmt: skip
    scheme: str | None = option(
        "; ".join(f"{name}: {about}" for name, about in SCHEMES.items())
        + " (default: the target's)", None, choices=tuple(SCHEMES),
    )  # fmt: skip
    io: str | None = option(
        f"input dtype: {', '.join(INPUTS)} (default: the target's)", None, choices=INPUTS
    )
    calibration: str | None = option(
        "folder of images like those the model will see (default: the run's own)", None
    )
    check: str | None = option(
        "folder of images to compare on (default: the calibration images)", None
    )
    agreement: float = option("share of images on which file and model must agree", 0.8)
    keep_float: tuple[str, ...] = option(
        "layers to keep in float in an int8 file (kzoo sensitivity prints their names)", ()
    )
    max_drop: float | None = option(
        "largest drop of int8 in percentage points: of accuracy for a run of kzoo classify, else "
        "of predictions equal to the float model's. Tries calibration, more equalization, layers "
        "in float and the run's own training, and keeps the first within the limit", None,
    )  # fmt: skip
    pareto: str | None = option(
        "folder for the Pareto-optimal files in drop and time; tries everything (--max-drop)",
        None,
    )  # fmt: skip
    labels: str | None = option(
        "file with one class name per line (default: labels.txt beside the model)", None
    )
    postprocess: bool = option(
        "end a detector's file in TFLite_Detection_PostProcess, for apps that expect boxes, "
        "classes, scores and a count", False,
    )  # fmt: skip
    size: int | tuple[int, int] | None = option(
        "input size in px, if the model leaves it open: one side, or WIDTHxHEIGHT", None
    )
    batch_size: int = option("batch size of the file", 1)
    alpha: float = option("width multiplier of a published model", 1.0)
    weights: str | None = option("weights of a published model (default: its usual ones)", None)
    title: str = option("title in the file's metadata", "")
    author: str = option("author in the file's metadata", "")
    license: str = option("license in the file's metadata", "")


def run(options: ConvertOptions) -> Any:
    named = not Path(options.model).exists() and options.model in (*known_models(), *HEADS)
    require_model(options.model, names=(*known_models(), *HEADS))
    size = None if options.size is None else size_given(options.size, 1)
    if options.pareto is not None and options.max_drop is None:
        raise ValueError("--pareto goes with --max-drop: it keeps the files that --max-drop tries.")
    if options.max_drop is not None and options.target != "cpu":
        raise ValueError("--max-drop searches int8 files for the CPU: leave --target out.")
    require_suffix(options.out, ".tflite")
    for folder in (options.calibration, options.check):
        if folder is not None:
            require_data(folder)
    from kzoo.recipes.programs.convert_model import convert_file, convert_within_budget
    from kzoo.recipes.programs.published_model import published_model
    from kzoo.tflite import Metadata

    model: str | Path = options.model
    if named:
        model = published_model(
            options.model, alpha=options.alpha, weights=options.weights, size=size
        )

    if options.max_drop is not None:
        return convert_within_budget(
            model, options.out, max_drop=options.max_drop, calibration=options.calibration,
            check=options.check, pareto=options.pareto, io=options.io, labels=options.labels,
        )  # fmt: skip
    texts = {field: getattr(options, field) for field in ("title", "author", "license")}
    return convert_file(
        model,
        options.out,
        target=options.target,
        keep_float=options.keep_float,
        scheme=options.scheme,
        io=options.io,
        calibration=options.calibration,
        check=options.check,
        agreement=options.agreement,
        labels=options.labels,
        size=None if named else size,
        batch_size=options.batch_size,
        about=Metadata(**texts) if any(texts.values()) else None,
        postprocess=options.postprocess,
    )


COMMAND = Command(
    "convert",
    "convert a run or a .keras file to a .tflite file and compare the two",
    ConvertOptions,
    run,
    "kzoo convert runs/photos int16.tflite --scheme int16x8",
)
