"""`kzoo convert`: a run or a .keras file to a .tflite file that is held against it."""

import dataclasses
from pathlib import Path
from typing import Any

from kzoo.recipes.inputs import require_data, require_model
from kzoo.recipes.models import known_models
from kzoo.recipes.options import Command, JsonOptions, option

SCHEMES = {
    "float32": "as trained",
    "float16": "weights in float16, half the bytes, computes in float32",
    "dynamic": (
        "weights in int8, activations in float32: a quarter of the bytes, but 1.3 to 2.9x slower"
    ),
    "int8": "weights and activations in int8: a third of the bytes, in .4 to .7 of the time",
    "int16x8": (
        "weights in int8, activations in int16: 36x slower, reference kernels; no HARD_SWISH"
    ),
}
TARGETS = {
    "cpu": "int8, hard-swish in the parts that XNNPACK has",
    "gpu": "float16 weights, which GPUs compute in; int8 would be no faster",
    "npu": "int8, hard-swish as the one operator that NPUs have",
    "web": "int8 for LiteRT.js on the CPU; for WebGPU take gpu",
    "micro": "int8 throughout, input and outputs too",
    "edgetpu": "int8 throughout, for edgetpu_compiler",
}
HEADS = ("ssdlite320", "lraspp", "deeplabv3")  # published heads, of `published_model`
INPUTS = ("uint8", "float32", "int8")


@dataclasses.dataclass(frozen=True)
class ConvertOptions(JsonOptions):
    """What `kzoo convert` takes."""

    model: str = option(
        "run folder, .keras file, or a published net by name: one of kzoo list, ssdlite320, "
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
    check: str | None = option("folder of images to compare on (default: those)", None)
    agreement: float = option("share of images on which file and model must agree", 0.8)
    keep_float: tuple[str, ...] = option(
        "layers that stay in float in an int8 file: names that kzoo sensitivity prints", ()
    )
    max_drop: float | None = option(
        "points that int8 may lose, of accuracy for a run of kzoo classify, else of answers that "
        "change: tries calibration, more equalization, layers in float and the run's own training, "
        "and takes the first that holds", None,
    )  # fmt: skip
    pareto: str | None = option(
        "folder for the files that no other one beats in drop and time; tries all (--max-drop)",
        None,
    )  # fmt: skip
    labels: str | None = option(
        "file with one class name per line (default: labels.txt beside the model)", None
    )
    postprocess: bool = option(
        "end a detector's file in boxes, classes, scores and count of the objects found "
        "(TFLite_Detection_PostProcess), for apps that read those", False,
    )  # fmt: skip
    size: int | None = option("input side in px, if the model leaves it open", None)
    batch_size: int = option("images that the file takes at once", 1)
    alpha: float = option("width multiplier of a net that is named", 1.0)
    weights: str | None = option("of a net that is named (default: the usual ones)", None)
    title: str = option("written into the file", "")
    author: str = option("written into the file", "")
    license: str = option("written into the file", "")


def run(options: ConvertOptions) -> Any:
    named = not Path(options.model).exists() and options.model in (*known_models(), *HEADS)
    require_model(options.model, names=(*known_models(), *HEADS))
    if options.pareto is not None and options.max_drop is None:
        raise ValueError("--pareto goes with --max-drop: it keeps the files that that tries.")
    if options.max_drop is not None and options.target != "cpu":
        raise ValueError("--max-drop searches int8 files for the CPU: leave --target out.")
    for folder in (options.calibration, options.check):
        if folder is not None:
            require_data(folder)
    from kzoo.recipes.programs.convert_model import convert_file, convert_within_budget
    from kzoo.recipes.programs.published_model import published_model
    from kzoo.tflite import Metadata

    model: str | Path = options.model
    if named:
        model = published_model(
            options.model, alpha=options.alpha, weights=options.weights, size=options.size
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
        size=None if named else options.size,
        batch_size=options.batch_size,
        about=Metadata(**texts) if any(texts.values()) else None,
        postprocess=options.postprocess,
    )


COMMAND = Command(
    "convert",
    "a run or a .keras file to a .tflite file that is held against it",
    ConvertOptions,
    run,
    "kzoo convert runs/photos int16.tflite --scheme int16x8",
)
