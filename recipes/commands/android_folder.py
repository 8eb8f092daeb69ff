"""`kzoo android RUN`: what an Android app needs of a run, in one folder.

    assets/NAME.tflite, assets/labels.txt    the model, with its metadata inside
    Classifier.kt, Detector.kt or Segmenter.kt    a class around MediaPipe Tasks that fits this file
    build.gradle.kts                         the lines to add to the app's own
    MODEL_CARD.md                            what it is, how it was made, what it reached

The Kotlin is written after MediaPipe's guides (https://ai.google.dev/edge/mediapipe/solutions). It
has been compiled (Kotlin 2.4) against the signatures of MediaPipe's Java classes, not run on a
phone; the model itself is tested with MediaPipe 1.2.2 in Python (tests/clients), the same C++.
"""

import csv
import dataclasses
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

from kzoo.files import replacing
from kzoo.recipes.files import write_text
from kzoo.recipes.training.run_folder import read_config, read_labels
from kzoo.tflite import Audit, Metadata, audit

SURE = 0.95  # share of answers above the threshold that shall be right
DETECTION_THRESHOLD = 0.4  # as `kzoo predict` has it
# MediaPipe's minSdk: https://ai.google.dev/edge/mediapipe/solutions/setup_android
GRADLE = """// Lines for app/build.gradle.kts
android {{
    defaultConfig {{ minSdk = 28 }}
    androidResources {{ noCompress += "tflite" }}  // the model is mapped into memory as it is
}}
dependencies {{
    // Pin the version that you have tested with.
    implementation("com.google.mediapipe:tasks-vision:latest.release")
}}
"""
HEAD = """// {title}: {about}
// Put assets/{asset} and assets/labels.txt into app/src/main/assets.
package com.example.app  // yours

import android.content.Context
import android.graphics.Bitmap
import com.google.mediapipe.framework.image.BitmapImageBuilder
{imports}
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.vision.core.RunningMode
import com.google.mediapipe.tasks.vision.{package}.{task}
import com.google.mediapipe.tasks.vision.{package}.{task}.{task}Options

/** {doc}
 *
 * Not for the main thread; call [close] when done. */
class {name}(context: Context) : AutoCloseable {{
    private val task = {task}.createFromOptions(
        context,
        {task}Options.builder()
            .setBaseOptions(BaseOptions.builder().setModelAssetPath("{asset}").build())
            .setRunningMode(RunningMode.IMAGE)
{options}
            .build(),
    )

{body}
    override fun close() = task.close()
}}
"""


@dataclasses.dataclass(frozen=True)
class Kotlin:
    """A class around one of MediaPipe's tasks; braces as of str.format."""

    name: str
    package: str
    doc: str
    imports: str
    options: str
    body: str


KOTLIN = {
    "ImageClassifier": Kotlin(
        "Classifier",
        "imageclassifier",
        "What an image shows, the surest first; nothing where the model is not sure.",
        "import com.google.mediapipe.tasks.components.containers.Category",
        "            .setMaxResults({results})\n            .setScoreThreshold({threshold:.2f}f)",
        """    /** [image] of any size is scaled to {width} x {height}, as in training. */
    fun classify(image: Bitmap): List<Category> =
        task.classify(BitmapImageBuilder(image).build())
            .classificationResult().classifications().first().categories()
""",
    ),
    "ObjectDetector": Kotlin(
        "Detector",
        "objectdetector",
        "Objects in an image, each with its box in the image's pixels.",
        "import com.google.mediapipe.tasks.components.containers.Detection",
        "            .setMaxResults(20)\n            .setScoreThreshold({threshold:.2f}f)",
        """    /** [image] of any size is scaled to {width} x {height}, as in training. */
    fun detect(image: Bitmap): List<Detection> =
        task.detect(BitmapImageBuilder(image).build()).detections()
""",
    ),
    "ImageSegmenter": Kotlin(
        "Segmenter",
        "imagesegmenter",
        "The class of every pixel, one byte each, by its place in labels.txt.",
        "import com.google.mediapipe.framework.image.ByteBufferExtractor\n"
        "import java.nio.ByteBuffer",
        "            .setOutputCategoryMask(true)\n            .setOutputConfidenceMasks(false)",
        """    /** (width * height) bytes, row by row, of the size of [image]. */
    fun segment(image: Bitmap): ByteBuffer =
        ByteBufferExtractor.extract(
            task.segment(BitmapImageBuilder(image).build()).categoryMask().get()
        )
""",
    ),
}


def android(run: str | Path, out: str | Path | None = None) -> Path:
    """Writes the folder `out` (by default RUN/android) and returns it.

    Raises ValueError for what is no run, or whose file MediaPipe Tasks do not take.
    """
    run = Path(run)
    config = without_paths(read_config(run))
    file = run / "model.tflite"
    if not file.is_file():
        raise ValueError(f"{run} has no model.tflite yet: let the run come to its end.")
    found = audit(file)
    if found.inputs[0].dtype not in ("uint8", "float32"):
        raise ValueError(
            f"{file} takes {found.inputs[0].dtype} images, MediaPipe Tasks uint8 or float32: "
            'convert RUN/model.keras with io="uint8".'
        )
    labels = read_labels(run / "labels.txt")
    title = run.resolve().name
    asset = f"{re.sub(r'[^a-z0-9]+', '_', title.lower()).strip('_') or 'model'}.tflite"
    folder = Path(out) if out else run / "android"
    (folder / "assets").mkdir(parents=True, exist_ok=True)
    with replacing(folder / "assets" / asset) as part:
        part.write_bytes(described(found, title, labels, config, results_of(run)))
    found = audit(folder / "assets" / asset)
    write_text(folder / "assets" / "labels.txt", "".join(f"{label}\n" for label in labels))
    write_text(folder / "build.gradle.kts", GRADLE.format())
    kotlin = KOTLIN[task_of(found)]
    write_text(folder / f"{kotlin.name}.kt", snippet(kotlin, found, title, run))
    write_text(folder / "MODEL_CARD.md", card(found, title, labels, config, results_of(run)))
    return folder


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """A run's settings as they may be handed on: file names, without the folders they are in."""
    kept = {key: value for key, value in config.items() if key not in ("labels", "out")}
    return {k: Path(v).name if isinstance(v, str) and "/" in v else v for k, v in kept.items()}


def described(
    found: Audit, title: str, labels: list[str], config: dict[str, Any], results: dict[str, Any]
) -> bytes:
    """The file with the run's metadata; what it says of its outputs stays."""
    from kzoo.tflite.metadata.writing import add_metadata

    said = found.metadata or Metadata(labels=tuple(labels))
    made = {"config": config, "results": results}
    return add_metadata(
        found.path.read_bytes(),
        dataclasses.replace(said, title=said.title or title, run=dict(said.run) or made),
    )


def task_of(found: Audit) -> str:
    assert found.metadata
    assert found.metadata.outputs
    return found.metadata.outputs.task


def results_of(run: Path) -> dict[str, Any]:
    file = run / "results.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def snippet(kotlin: Kotlin, found: Audit, title: str, run: Path) -> str:
    _, height, width, _ = found.inputs[0].shape
    labels = found.metadata.labels if found.metadata else ()
    values = {
        "width": width,
        "height": height,
        "results": min(3, len(labels)),
        "threshold": threshold(run / "predictions.csv", len(labels))
        if kotlin.name == "Classifier"
        else DETECTION_THRESHOLD,
    }
    return HEAD.format(
        title=title,
        about=f"{len(labels)} classes, {found.inputs[0].dtype} images {width} x {height}",
        asset=found.path.name,
        package=kotlin.package,
        task=task_of(found),
        doc=kotlin.doc,
        name=kotlin.name,
        imports=kotlin.imports,
        options=kotlin.options.format(**values),
        body=kotlin.body.format(**values),
    )


def threshold(predictions: Path, classes: int) -> float:
    """The lowest score from which on SURE of the int8 model's answers are right.

    By predictions.csv of the run, on its validation images. Twice the score of chance without it,
    and where there is no such score.
    """
    chance = min(0.5, 2 / max(1, classes))
    if not predictions.is_file():
        return chance
    with predictions.open(encoding="utf-8", newline="") as rows:
        said = sorted(
            (float(row["int8_probability"]), row["int8"] == row["label"])
            for row in csv.DictReader(rows)
        )[::-1]
    best, right = chance, 0
    for i, (score, correct) in enumerate(said, 1):
        right += correct
        last = i == len(said) or said[i][0] < score  # of those with this score
        if last and right >= SURE * i:
            best = score
    return math.floor(100 * best) / 100  # as it is written: rounded up, it would shut some out


def card(
    found: Audit, title: str, labels: list[str], config: dict[str, Any], results: dict[str, Any]
) -> str:
    """A model card: https://arxiv.org/abs/1810.03993, as far as a run knows."""
    content = found.path.read_bytes()
    about = found.metadata
    assert about
    lines = [
        f"# {title}",
        "",
        f"A {config.get('model', 'MobileNet')} of width {config.get('alpha', 1):g} that was "
        f"fine-tuned and quantized with kzoo, for MediaPipe's {task_of(found)}.",
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
        "Images of any size are stretched to the input, upright, in RGB, values 0 to 255.",
        "",
        "## What it reached",
        "",
        "On the run's validation images, which also chose the best epoch; the int8 figures are "
        "of this file, by the TFLite interpreter.",
        "",
        table({key: figure(value) for key, value in results.items() if is_figure(value)})
        if results else "This run has no results.json.",
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
        "It knows what its training images showed, and answers with one of its classes to any "
        "image. Measure it on images of your app's own users, by group where groups matter. "
        "The licences of the pretrained weights and of the training images bind it as well.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def table(rows: dict[str, str]) -> str:
    escaped = {key: value.replace("|", "\\|").replace("\n", " ") for key, value in rows.items()}
    return "\n".join(["| | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in escaped.items())])


def is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def figure(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
