"""The model card of a run: what the file is, what it reached, and how it was made."""

import hashlib
from typing import Any

from kzoo.sizes import height_width
from kzoo.tflite import Audit, Metadata
from kzoo.weights.named import is_name, published
from kzoo.weights.published import PUBLISHED


def is_mask(found: Audit) -> bool:
    """Return whether the file's output is a mask: one byte for each pixel (`end_in_mask`)."""
    first = found.outputs[0]
    return len(found.outputs) == 1 and first.dtype == "uint8" and len(first.shape) == 3


def task_of(found: Audit) -> str:
    """Return MediaPipe's name of the file's task. Raises ValueError if the file has no metadata."""
    outputs = found.metadata.outputs if found.metadata else None
    if outputs is None and not is_mask(found):
        raise ValueError(
            f"{found.path} does not say what its outputs are. Convert it with "
            "metadata=Metadata(outputs=...)."
        )
    return outputs.task if outputs else "ImageSegmenter"


def card(
    found: Audit, title: str, labels: list[str], config: dict[str, Any], results: dict[str, Any]
) -> str:
    """Return a model card (https://arxiv.org/abs/1810.03993) from what is known of a run."""
    content = found.path.read_bytes()
    about = found.metadata or Metadata()
    lines = [
        f"# {title}",
        "",
        f"A {config.get('model', 'MobileNet')} of width {config.get('alpha', 1):g} that was "
        f"fine-tuned and quantized with kzoo, for Android and MediaPipe's {task_of(found)}.",
        "",
        "## The file",
        "",
        table({
            "file": f"{found.path.name}, {len(content):,} bytes",
            "sha256": hashlib.sha256(content).hexdigest(),
            "input": str(found.inputs[0]),
            **{f"output {port.name}": f"{port.dtype} {list(port.shape)}" for port in found.outputs},
            "classes": ", ".join(labels),
            "author": about.author or "not stated",
            "licence": about.license or "not stated: say it before you hand the model on",
        }),
        "",
        "Images of any size are stretched to the input, upright, in RGB, values 0 to 255, with "
        "Pillow's bilinear filter; transparent parts are white.",
        "",
        "## What it reached",
        "",
        "Measured on the run's validation images, which also chose the best epoch, and on its test "
        "images, if it had any, which were used for no choice. The int8 figures are of "
        "this file, run by the TFLite interpreter.",
        "",
        table(reached(results)) if results else "This run has no results.json.",
        "",
        "## How it runs",
        "",
        table({
            "operators": f"{len(found.operators)}, of which {len(found.float_ops)} compute in "
            "floats before the last layers",
            "XNNPACK": f"{found.partitions} partition(s), {len(found.outside)} operators outside",
            **{verdict.target.title: f"{verdict.sentence} By its published list, not run."
               for verdict in found.targets},
        }),
        *(f"\n- {words}" for words in found.advice),
        "",
        "## How it was made",
        "",
        table({key: str(value) for key, value in config.items()}),
        "",
        "## Before you rely on it",
        "",
        "The model knows only what its training images show, and gives one of its classes for any "
        "image. Measure it on images of your app's users, separately for groups that matter. "
        "The licences of the pretrained weights and of the training images apply to it too."
        f"{pretrained(config)}",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def pretrained(config: dict[str, Any]) -> str:
    """Return whose published weights the run began with, and their licence; "" of none by name."""
    weights, size = config.get("weights"), config.get("size", 0)
    if not is_name(weights):
        return ""
    model, alpha, sides = config.get("model", ""), config.get("alpha", 1.0), height_width(size)
    heads = [row for row in PUBLISHED if row.name == weights and row.head]
    head = str(config.get("head", "ssdlite")).rstrip("+")  # deeplabv3+ begins with deeplabv3's
    own = [row for row in heads if row.head == head]
    row = own[0] if own else published(str(weights), model, alpha, sides=sides)
    return f" It began with {row.file} ({row.license}; {row.source})."


def table(rows: dict[str, str]) -> str:
    escaped = {key: value.replace("|", "\\|").replace("\n", " ") for key, value in rows.items()}
    return "\n".join(["| | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in escaped.items())])


def reached(results: dict[str, Any]) -> dict[str, str]:
    """Return the figures of a results.json, and of how many images; those on test ones say so."""
    names = {"train": "training images", "val": "validation images", "test": "test images"}
    images = results.get("images") or {}
    counts = {names[split]: f"{count:,}" for split, count in images.items() if split in names}
    own = {name.replace("_", " "): value for name, value in results.items()}
    test = {
        f"{model} {name}, test images": value
        for model, figures in (results.get("test") or {}).items()
        for name, value in figures.items()
    }
    return counts | {k: figure(value) for k, value in (own | test).items() if is_figure(value)}


def is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def figure(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
