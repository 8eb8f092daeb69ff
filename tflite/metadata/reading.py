"""Metadata in a .tflite file for Android's MediaPipe Tasks: labels, normalization, boxes.

The buffer "TFLITE_METADATA" contains another flatbuffer, and the associated files, such as labels,
are a zip archive appended to the model. Field numbers are those of metadata_schema.fbs,
object_detector_metadata_schema.fbs and image_segmenter_metadata_schema.fbs in
https://github.com/google-ai-edge/mediapipe/tree/v0.10.21/mediapipe/tasks/metadata
"""

import dataclasses
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from kzoo.weights.readers.flatbuffer import read_tflite
from kzoo.weights.readers.tables import Reader, Table

BUFFER = "TFLITE_METADATA"
IDENTIFIER = b"M001"  # of that buffer, at its byte 4
LABELS, RUN, CALIBRATION = "labels.txt", "run.json", "score_calibration.txt"
MOST_BYTES = 1 << 24  # limit of an associated file, against zip bombs
AXIS_LABELS, VALUE_LABELS, AXIS_CALIBRATION = 2, 3, 4  # AssociatedFileType
NORMALIZATION, SCORE_CALIBRATION, SCORE_THRESHOLD = 1, 2, 3  # ProcessUnitOptions


@dataclasses.dataclass(frozen=True)
class ClassifierOutput:
    """A classifier: one output (1, classes)."""

    task: ClassVar[str] = "ImageClassifier"


@dataclasses.dataclass(frozen=True)
class SegmenterOutput:
    """A segmenter: one output (1, h, w, classes), to which the app applies `activation`."""

    activation: Literal["none", "sigmoid", "softmax"] = "softmax"
    task: ClassVar[str] = "ImageSegmenter"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATIONS)}. Received: {self.activation!r}"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class BoxOutputs:
    """A detector with outputs (1, A, 4) and (1, A, classes), which the app decodes and suppresses.

    anchors: (A, 4), yxyx in [0, 1].
    scales: factors in the encoded boxes (dy, dx, dh, dw): y = ya + dy / 10 * ha, and
        h = ha * exp(dh / 5).
    sigmoid: whether scores are logits, to which the app applies a sigmoid; otherwise they are
        probabilities. There is no background column.
    boxes, scores: names of the outputs.

    Raises ValueError for anchors of another shape.
    """

    anchors: np.ndarray
    scales: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    sigmoid: bool = False
    boxes: str = "boxes"
    scores: str = "scores"
    task: ClassVar[str] = "ObjectDetector"

    def __post_init__(self) -> None:
        anchors = np.asarray(self.anchors, np.float32)
        if anchors.ndim != 2 or anchors.shape[1] != 4:
            raise ValueError(f"anchors must be (A, 4). Received: shape {anchors.shape}")
        object.__setattr__(self, "anchors", anchors)


@dataclasses.dataclass(frozen=True)
class DetectionOutputs:
    """A detector with the four outputs of TFLite_Detection_PostProcess: decoded boxes after NMS."""

    order: tuple[str, str, str, str] = ("boxes", "classes", "scores", "count")  # output names
    task: ClassVar[str] = "ObjectDetector"


Values = float | tuple[float, ...]
Outputs = ClassifierOutput | SegmenterOutput | BoxOutputs | DetectionOutputs
ACTIVATIONS = ("none", "sigmoid", "softmax")  # enum Activation, in order from 0


@dataclasses.dataclass(frozen=True)
class Metadata:
    """The metadata of a .tflite file.

    labels: class names in order.
    title, description, version, author, license: free text.
    outputs: the kind of model; None infers a classifier or segmenter from the outputs' shapes.
    normalization: (mean, std) of (pixel - mean) / std, which an app applies to pixels in [0, 255]
        before a float32 input; tuples of one value per channel if channels differ. It does not
        apply to uint8 inputs.
    thresholds: for a multi-label classifier, the score threshold of each label in [0, 1], which
        MediaPipe applies by default.
    run: settings and figures of the training run: anything that is JSON.
    """

    labels: tuple[str, ...] = ()
    title: str = ""
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""
    outputs: Outputs | None = None
    normalization: tuple[Values, Values] = (0.0, 1.0)
    thresholds: tuple[float, ...] = ()
    run: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return "; ".join(f"{key} {text}" for key, text in self._items() if text)

    def _items(self) -> Iterator[tuple[str, str]]:
        yield "for", self.outputs.task if self.outputs else ""
        for key in ("title", "version", "author", "license"):
            yield key, getattr(self, key)
        if self.labels:
            yield f"{len(self.labels)} labels", ", ".join(self.labels[:3])
        if isinstance(self.outputs, BoxOutputs):
            yield f"{len(self.outputs.anchors)} anchors", ""
        if self.thresholds:
            yield "thresholds", ", ".join(f"{value:.2f}" for value in self.thresholds[:3])
        yield "run", ", ".join(self.run)


def read_metadata(file: str | os.PathLike[str] | bytes) -> Metadata | None:
    """Return the metadata of a .tflite file, also of other tools; None if it has none.

    file: a path, or the content as bytes.

    Raises ValueError for a truncated or damaged file. Associated files that cannot be read, or are
    larger than 16 MB, count as missing.
    """
    content = file if isinstance(file, bytes) else Path(file).read_bytes()
    model = read_tflite(content)
    if BUFFER not in model.metadata:
        return None
    data = bytes(model.buffers[model.metadata[BUFFER]])
    if data[4:8] != IDENTIFIER:
        raise ValueError(
            f"The metadata of this .tflite file are damaged: they begin with {data[4:8]!r}, not "
            f"{IDENTIFIER!r}."
        )
    reader = Reader(data)
    root = Table(reader, reader.scalar("I", 0))
    graph = next(iter(root.tables(3)), None)
    outputs = graph.tables(3) if graph else ()
    names = [
        f.text(0)
        for t in outputs
        for f in t.tables(6)
        if f.scalar(2, "b", 0) in (AXIS_LABELS, VALUE_LABELS)
    ]
    calibrated = any(f.scalar(2, "b", 0) == AXIS_CALIBRATION for t in outputs for f in t.tables(6))
    run = read_json(associated_file(content, RUN))
    labels = associated_file(content, names[0]) if names else None
    return Metadata(
        labels=tuple((labels or b"").decode("utf-8", "replace").splitlines()),
        title=root.text(0),
        description=root.text(1),
        version=root.text(2),
        author=root.text(4),
        license=root.text(5),
        outputs=read_outputs(graph, [t.text(0) for t in outputs]) if graph else None,
        normalization=read_normalization(graph) if graph else (0.0, 1.0),
        thresholds=read_thresholds(associated_file(content, CALIBRATION)) if calibrated else (),
        run=run,
    )


def read_normalization(graph: Table) -> tuple[Values, Values]:
    for tensor in graph.tables(2):
        for unit in tensor.tables(4):
            options = unit.table(1) if unit.scalar(0, "B", 0) == NORMALIZATION else None
            mean, std = (options.vector(i, "<f4") for i in (0, 1)) if options else ((), ())
            if mean and std:
                return one_or_all(mean), one_or_all(std)
    return 0.0, 1.0


def one_or_all(values: tuple[float, ...]) -> Values:
    return values[0] if len(set(values)) == 1 else values


def read_outputs(graph: Table, names: list[str]) -> Outputs:
    custom = {table.text(0): bytes(table.span(1, 1)) for table in graph.tables(9)}
    if "SEGMENTER_METADATA" in custom:
        number = root_of(custom["SEGMENTER_METADATA"]).scalar(0, "b", 0)
        known = 0 <= number < len(ACTIVATIONS)
        return SegmenterOutput(ACTIVATIONS[number] if known else "none")  # type: ignore[arg-type]
    if "DETECTOR_METADATA" in custom:
        root = root_of(custom["DETECTOR_METADATA"])
        fixed = (ssd := root.table(1)) and ssd.table(0)
        tables = fixed.tables(0) if fixed else ()
        found = [[a.scalar(i, "f", 0.0) for i in (1, 0, 3, 2)] for a in tables]
        centres, sides = np.split(np.reshape(np.array(found, np.float32), (-1, 4)), 2, axis=1)
        anchors = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
        decoding = root.table(2)
        x, y, w, h = (decoding.scalar(i, "f", 0.0) if decoding else 0.0 for i in (6, 7, 8, 9))
        sigmoid = bool(decoding and decoding.scalar(11, "?", False))
        return BoxOutputs(anchors, (y, x, h, w), sigmoid)
    return DetectionOutputs() if len(names) == 4 else ClassifierOutput()


def read_thresholds(calibration: bytes | None) -> tuple[float, ...]:
    """Return the score threshold of each label; () if a label has none."""
    lines = [line.split(",") for line in (calibration or b"").decode("utf-8", "replace").split()]
    try:
        return tuple(float(cells[3]) for cells in lines)
    except (IndexError, ValueError):
        return ()


def root_of(data: bytes) -> Table:
    reader = Reader(data)
    return Table(reader, reader.scalar("I", 0))


def associated_file(content: bytes, name: str) -> bytes | None:
    """Return a file of the zip archive after the model; None if it cannot be read."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(name) as file:
            inside = file.read(MOST_BYTES + 1)
    except (
        KeyError, ValueError, EOFError, OSError, RuntimeError, OverflowError,
        zipfile.BadZipFile, zlib.error, NotImplementedError,
    ):  # fmt: skip  # raised for damaged, encrypted or unsupported archives
        return None
    return inside if len(inside) <= MOST_BYTES else None


def read_json(content: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
