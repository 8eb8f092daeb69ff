"""`kzoo android RUN`: an Android app around a run's model, to open in Android Studio and run.

    settings.gradle.kts, gradle/libs.versions.toml, app/build.gradle.kts    the Gradle project
    app/src/main/kotlin/PACKAGE/    MainActivity (camera, photos), Model (LiteRT), Task (outputs),
                                    Resample (the input's pixels), Draw, with --tiles Tiles
    app/src/main/assets/            the model with its metadata, labels.txt, a detector's anchors
    README.md, MODEL_CARD.md        what to do and what was tried; what the model is and reached

The files are copies of those in android_app/, in which words such as @PACKAGE@ are replaced.
Tests parse them; tests/clients/kotlin_client.py compiles the Kotlin and runs its arithmetic. No
phone and no Android SDK is there where kzoo is tested: the app's README says so.
"""

import csv
import dataclasses
import json
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from kzoo.detection.tiles import check_tiles
from kzoo.files import replacing, write_text
from kzoo.recipes.inputs import FILE, read_config, require_ended
from kzoo.recipes.programs.model_card import card, is_mask, task_of
from kzoo.recipes.training.run_folder import labels_of
from kzoo.sizes import Tiles, mean_side
from kzoo.tflite import Audit, BoxOutputs, DetectionOutputs, Metadata, audit

SURE = 0.95  # share of answers above the threshold that shall be right
DETECTION_THRESHOLD = 0.4  # as `kzoo predict` has it
# What step 4 of the README says, by the constant that Task.kt has.
TUNED = {
    "THRESHOLDS": "Change `THRESHOLDS` in `Task.kt`, in the order of `labels.txt`. Measure them",
    "THRESHOLD": "Change `THRESHOLD` in `Task.kt`. Measure it",
    "CLASSES": "Measure the masks",
}
MOST_BOXES = 20
APP = Path(__file__).with_name("android_app")
SOURCES = "app/src/main/kotlin"
CARD = "MODEL_CARD.md"  # written last: it marks a folder that may be written anew
ASSETS = "app/src/main/assets"
PACKAGE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
WORDS_OF_JAVA = frozenset(
    """abstract assert boolean break byte case catch char class const continue default do double
    else enum extends final finally float for goto if implements import instanceof int interface
    long native new package private protected public return short static strictfp super switch
    synchronized this throw throws transient try void volatile while true false null""".split()  # noqa: SIM905
)  # which no part of a package's name may be


def android(
    run: str | Path, out: str | Path | None = None, *, package: str | None = None,
    max_results: int | None = None, tiles: Tiles | None = None,
) -> Path:  # fmt: skip
    """Write an Android app with a run's model to the folder `out` and return the folder.

    run: a finished run's folder.
    out: by default RUN/android.
    package: the app's package name; by default com.example.NAME with the run's name.
    max_results: number of classes or boxes that the app shows; by default 3 classes, 20 boxes, and
        all labels of a multi-label model.
    tiles: (rows, columns) or "auto", for detectors: also use tiles of photos, for small objects;
        not for the camera.

    Raises ValueError if there is no finished run, if the folder has other files, for an invalid
    package name, and for a file whose input or outputs the app does not support.
    """
    run = Path(run)
    config = without_paths(read_config(run))
    file = run / FILE
    require_ended(run, FILE)
    found = audit(file)
    require_readable(found)
    title = run.resolve().name
    slug = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_") or "model"
    name = package or f"com.example.{slug if slug[0].isalpha() else f'run_{slug}'}"
    if not PACKAGE.fullmatch(name) or WORDS_OF_JAVA & set(name.split(".")):
        raise ValueError(
            f"{name!r} is not a valid package name: it needs two or more parts of lowercase "
            "letters, digits and _, none of them a Java keyword, such as com.example.flowers."
        )
    if max_results is not None and max_results < 1:
        raise ValueError(f"max_results must be at least 1. Received: {max_results}")
    if tiles and task_of(found) != "ObjectDetector":
        raise ValueError(f"Tiles are for detectors. The task of {file} is {task_of(found)}.")
    labels = labels_of(run / "model.tflite") or []
    results = results_of(run)
    folder = Path(out) if out else run / "android"
    if out and folder.exists() and any(folder.iterdir()) and not (folder / CARD).exists():
        raise ValueError(
            f"{folder} holds files of something else than an app of kzoo. Name a new folder with "
            "--out (out=), then copy what you need."
        )
    assets = folder / ASSETS
    assets.mkdir(parents=True, exist_ok=True)
    with replacing(assets / f"{slug}.tflite") as part:
        part.write_bytes(described(found, title, labels, config, results))
    found = audit(assets / f"{slug}.tflite")
    write_text(assets / "labels.txt", "".join(f"{label}\n" for label in labels))
    outputs = metadata_of(found).outputs
    if isinstance(outputs, BoxOutputs):
        with replacing(assets / "anchors.bin") as part:
            part.write_bytes(np.asarray(outputs.anchors, "<f4").tobytes())
    words = {
        "PACKAGE": name,
        "NAME": slug,
        "TITLE": escape(title),
        "APP_NAME": resource_text(title),
        **model_words(found),
        **result_words(found, run / "predictions.csv", len(labels), max_results),
    }
    words["PHOTO"] = "model.run(bitmap)"
    if tiles:
        grid, most = check_tiles(tiles), words["MAX_RESULTS"]
        if isinstance(grid, str):
            side = mean_side((int(words["HEIGHT"]), int(words["WIDTH"])))
            words["PHOTO"] = f"inAutoTiles(bitmap, {side:.3f}, {most}, model::run)"
        else:
            words["PHOTO"] = f"inTiles(bitmap, {grid[0]}, {grid[1]}, {most}, model::run)"
    sources = folder / SOURCES / Path(*name.split("."))
    tasks = {"Task.kt": f"{template_of(found)}.kt"} | ({"Tiles.kt": "Tiles.kt"} if tiles else {})
    files = {sources / place: APP / "tasks" / template for place, template in tasks.items()}
    for template in APP.rglob("*"):
        if template.is_file() and template.parent.name != "tasks":
            kotlin = template.suffix == ".kt"
            files[(sources / template.name) if kotlin else folder / template.relative_to(APP)] = (
                template
            )
    (sources / "Tiles.kt").unlink(missing_ok=True)  # of an app that had them
    for place, template in files.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, filled(template, words))
    write_text(folder / CARD, card(found, title, labels, config, results))
    return folder


def require_readable(found: Audit) -> None:
    """Raise ValueError for a file that the app cannot feed, or whose outputs it does not read."""
    if found.inputs[0].dtype not in ("uint8", "float32"):
        raise ValueError(
            f"{found.path} takes {found.inputs[0].dtype} images, the app uint8 or float32: "
            'convert RUN/model.keras with io="uint8".'
        )
    for port in found.outputs:
        mask = port.dtype == "uint8" and len(port.shape) == 3
        if port.dtype != "float32" and not mask:
            raise ValueError(
                f"{found.path} gives {port.name} in {port.dtype}, the app reads float32: convert "
                "RUN/model.keras with kzoo convert."
            )


def template_of(found: Audit) -> str:
    """Return the name of the template in android_app/tasks that reads the file's outputs."""
    if isinstance(metadata_of(found).outputs, DetectionOutputs):
        return "ObjectDetectorOp"
    if metadata_of(found).thresholds:
        return "MultilabelClassifier"
    return "ImageSegmenterMask" if is_mask(found) else task_of(found)


def model_words(found: Audit) -> dict[str, str]:
    """Return the template values of Model.kt and the README for the file."""
    outputs, port = metadata_of(found).outputs, found.inputs[0]
    names = [end.name for end in found.outputs]
    if isinstance(outputs, BoxOutputs):
        names = [outputs.boxes, outputs.scores]
    if isinstance(outputs, DetectionOutputs):
        names = list(outputs.order)
    mean, deviation = metadata_of(found).normalization if port.dtype == "float32" else (0, 1)
    if not isinstance(mean, float | int) or not isinstance(deviation, float | int):
        raise ValueError(f"{found.path} normalizes channels apart, which the app does not do.")
    quantized = found.per_channel[1] > 0
    asks = (
        "the CPU, where XNNPACK runs int8 fastest. For the GPU give the app the float16 file of "
        "`kzoo convert RUN model.tflite --target gpu`, and put `Accelerator.GPU` first"
        if quantized
        else "the GPU, and for the CPU where the GPU does not take the whole file"
    )
    return {
        "ASSET": found.path.name,
        "INPUT": port.name,
        "HEIGHT": str(port.shape[1]),
        "WIDTH": str(port.shape[2]),
        "BYTES": str(port.dtype == "uint8").lower(),
        "MEAN": f"{float(mean):g}",
        "DEVIATION": f"{float(deviation):g}",
        "OUTPUTS": ", ".join(f'"{name}"' for name in names),
        "ACCELERATORS": "Accelerator.CPU" if quantized else "Accelerator.GPU, Accelerator.CPU",
        "ASKS": asks,
        "WHERE": "\n".join(f"- {v.target.title}: {v.sentence}" for v in found.targets
                           if v.target.key in ("cpu", "gpu", "qualcomm", "mediatek", "tensor")),
    }  # fmt: skip


def result_words(
    found: Audit, predictions: Path, classes: int, max_results: int | None
) -> dict[str, str]:
    """Return the template values of Task.kt for the file's outputs."""
    task, outputs = task_of(found), metadata_of(found).outputs
    words = {"MAX_RESULTS": str(max_results or min(5, classes))}
    if task == "ImageClassifier" and metadata_of(found).thresholds:
        values = metadata_of(found).thresholds
        words = {
            "MAX_RESULTS": str(max_results or classes),
            "THRESHOLDS": ", ".join(f"{value:.4f}f" for value in values),
        }
    elif task == "ImageClassifier":
        words = {
            "MAX_RESULTS": str(min(max_results or 3, classes)),
            "THRESHOLD": f"{threshold(predictions, classes):.2f}",
            "THRESHOLD_SOURCE": f"{SURE:.0%} of the validation images above it are right"
            if predictions.is_file() else "twice chance, for want of the run's predictions.csv",
        }  # fmt: skip
    if task == "ObjectDetector":
        words = {
            "MAX_RESULTS": str(max_results or MOST_BOXES),
            "THRESHOLD": f"{DETECTION_THRESHOLD:.2f}",
            "THRESHOLD_SOURCE": "as kzoo predict has it",
        }
    if isinstance(outputs, BoxOutputs):
        words["SIGMOID"] = str(outputs.sigmoid).lower()
        words["SCALES"] = ", ".join(f"{float(scale):g}f" for scale in outputs.scales)
    if task == "ImageSegmenter":
        shape = found.outputs[0].shape
        words |= {"MASK_HEIGHT": str(shape[1]), "MASK_WIDTH": str(shape[2])}
        words["CLASSES"] = str(shape[-1])
    return words | {"TUNED": next(said for name, said in TUNED.items() if name in words)}


def metadata_of(found: Audit) -> Metadata:
    """Return the file's metadata, empty if it has none."""
    return found.metadata or Metadata()


def filled(template: Path, words: Mapping[str, str]) -> str:
    """Return a template of android_app/ with its @WORDS@ replaced."""
    text = template.read_text(encoding="utf-8")
    return re.sub(r"@([A-Z_]+)@", lambda match: words[match[1]], text)


def resource_text(text: str) -> str:
    """Return a text escaped for Android's string resources, where quotes, @ and ? are special."""
    quoted = re.sub(r"[\\\\'\"]|^[@?]", lambda found: f"\\{found[0]}", text)
    return escape(quoted)


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Return a run's settings without folders of this machine: paths become file names."""
    kept = {key: value for key, value in config.items() if key not in ("labels", "out")}
    return {k: last_part(v) if isinstance(v, str) else v for k, v in kept.items()}


def last_part(text: str) -> str:
    """Return the last part of a path, of this system or of Windows; other texts unchanged."""
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1] if re.search(r"[/\\]", text) else text


def described(
    found: Audit, title: str, labels: list[str], config: dict[str, Any], results: dict[str, Any]
) -> bytes:
    """Return the file with the run's metadata added; its description of outputs stays."""
    from kzoo.tflite.metadata.writing import add_metadata

    if found.metadata is None and is_mask(found):
        return found.path.read_bytes()  # segmenter metadata can only describe scores
    metadata = found.metadata or Metadata(labels=tuple(labels))
    made = {"config": config, "results": results}
    return add_metadata(
        found.path.read_bytes(),
        dataclasses.replace(
            metadata, title=metadata.title or title, run=dict(metadata.run) or made
        ),
    )


def results_of(run: Path) -> dict[str, Any]:
    """Return a run's results.json without folders of this machine; {} without one."""
    file = run / "results.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if "command" in (made := found.get("made") or {}):  # it names the folder of the images
        words = map(last_part, shlex.split(made["command"]))
        found["made"] = made | {"command": shlex.join(words)}
    return found


def threshold(predictions: Path, classes: int) -> float:
    """Return the lowest score above which the share SURE of int8 predictions is right.

    From predictions.csv of the run. Without it, or if there is no such score, twice the score of
    chance.
    """
    chance = min(0.5, 2 / max(1, classes))
    if not predictions.is_file():
        return chance
    with predictions.open(encoding="utf-8", newline="") as rows:
        ranked = sorted(
            (float(row["int8_probability"]), row["int8"] == row["label"])
            for row in csv.DictReader(rows)
        )[::-1]
    best, right = chance, 0
    for i, (score, correct) in enumerate(ranked, 1):
        right += correct
        last = i == len(ranked) or ranked[i][0] < score  # of those with this score
        if last and right >= SURE * i:
            best = score
    return math.floor(100 * best) / 100  # as it is written: rounded up, it would shut some out
