"""`add_metadata`: write metadata into a .tflite file; needs no package but flatbuffers."""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kzoo.tflite.metadata.reading import (
    ACTIVATIONS,
    AXIS_CALIBRATION,
    AXIS_LABELS,
    BUFFER,
    CALIBRATION,
    IDENTIFIER,
    LABELS,
    NORMALIZATION,
    RUN,
    SCORE_CALIBRATION,
    SCORE_THRESHOLD,
    VALUE_LABELS,
    BoxOutputs,
    ClassifierOutput,
    DetectionOutputs,
    Metadata,
    Outputs,
    SegmenterOutput,
)
from kzoo.tflite.ports import names
from kzoo.tflite.writer import as_text, flat, tflite_content
from kzoo.weights.readers.flatbuffer import TfliteGraph, TfliteModel, read_tflite

PARSER = "1.0.0"  # minimum parser version for these fields
FEATURE, IMAGE, BOUNDING_BOX = np.uint8(1), np.uint8(2), np.uint8(3)  # ContentProperties
# MediaPipe accepts only "boundaries" (left, top, right, bottom), also for boxes it decodes itself.
BOX = {0: BOUNDING_BOX, 1: {0: np.array([1, 0, 3, 2], np.uint32), 1: np.int8(1)}}
COLORS = {1: np.int8(2), 3: np.int8(1)}  # channels: ColorSpaceType, grayscale or RGB
INVERSE_LOGISTIC = np.int8(2)  # ScoreTransformationType
UNDER_THRESHOLD = -1.0  # the score that MediaPipe gives a label below its own threshold
PROBABILITIES = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}


def add_metadata(content: bytes, metadata: Metadata) -> bytes:
    """Return the .tflite file with `metadata`, replacing existing ones; deterministic.

    Raises ValueError if the outputs are not of the kind it states, or labels do not match them.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(packed(content, metadata), np.uint8)
    entries = [m for m in model.metadata or [] if as_text(m.name) != BUFFER]
    entry = schema.MetadataT()
    entry.name, entry.buffer = BUFFER, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*entries, entry]
    whole = io.BytesIO(tflite_content(model))
    files = associated(metadata)
    if files:
        with zipfile.ZipFile(whole, "a") as archive:
            for name, inside in files.items():
                info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # zip's earliest date
                info.create_system, info.external_attr = 3, 0o644 << 16
                archive.writestr(info, inside)
    return whole.getvalue()


def associated(metadata: Metadata) -> dict[str, bytes]:
    files = {}
    if metadata.labels:
        files[LABELS] = "\n".join(metadata.labels).encode(errors="backslashreplace")
    if metadata.thresholds:
        # scale, slope, offset, least score: sigmoid(1 * logit(score) + 0) is the identity.
        lines = [f"1,1,0,{threshold:.6g}" for threshold in metadata.thresholds]
        files[CALIBRATION] = "\n".join(lines).encode()
    if metadata.run:
        files[RUN] = json.dumps(dict(metadata.run), indent=1, sort_keys=True).encode()
    return files


def packed(content: bytes, metadata: Metadata) -> bytes:
    """Return the metadata as a flatbuffer."""
    file = read_tflite(content)
    graph = file.graphs[0]
    kind = metadata.outputs or kind_by_shapes(graph)
    if kind is None:
        shapes = [graph.tensors[i].shape for i in (*graph.inputs, *graph.outputs)]
        raise ValueError(
            f"The input and outputs {shapes} are neither a classifier's, (1, H, W, 3) and (1, "
            "classes), nor a segmenter's, (1, H, W, 3) and (1, h, w, classes): pass what they are, "
            "for example Metadata(outputs=BoxOutputs(anchors))."
        )
    outputs, extra = WRITE[type(kind)](file, kind, metadata)
    model = {
        0: metadata.title or kind.task,
        1: metadata.description,
        2: metadata.version,
        3: [{0: kind.task, 2: [image_input(graph, metadata)], 3: outputs, **extra}],
        4: metadata.author,
        5: metadata.license,
        6: [named_file(RUN, "How the model came about.", 1)] if metadata.run else [],
        7: PARSER,
    }
    return flat(model, IDENTIFIER)


def kind_by_shapes(graph: TfliteGraph) -> Outputs | None:
    """Return the kind of model by the shapes of input and outputs; None if unknown."""
    image, *more = (graph.tensors[i].shape for i in graph.inputs)
    outputs = [graph.tensors[i].shape for i in graph.outputs]
    if more or len(image) != 4 or image[3] not in COLORS or len(outputs) != 1:
        return None
    kinds: dict[int, Outputs] = {2: ClassifierOutput(), 4: SegmenterOutput()}
    return kinds.get(len(outputs[0]))


def image_input(graph: TfliteGraph, metadata: Metadata) -> dict[int, Any]:
    tensor = graph.tensors[graph.inputs[0]]
    if len(tensor.shape) != 4 or tensor.shape[3] not in COLORS:
        raise ValueError(
            f"Apps hand over images (1, H, W, 3) or (1, H, W, 1). Received: a file that takes "
            f"{tensor.shape}. Convert it without metadata."
        )
    _, height, width, _ = tensor.shape
    size = {0: np.uint32(width), 1: np.uint32(height)}
    given = {
        0: "image",
        1: "Input image.",
        3: {0: IMAGE, 1: {0: COLORS[tensor.shape[3]], 1: size}},
    }
    if tensor.dtype == "float32":
        mean, std = (np.atleast_1d(np.array(x, np.float32)) for x in metadata.normalization)
        low, high = ((np.float32(x) - mean) / std for x in (0, 255))
        given |= {4: [{0: np.uint8(NORMALIZATION), 1: {0: mean, 1: std}}], 5: {0: high, 1: low}}
    return given


def named_file(name: str, about: str, kind: int) -> dict[int, Any]:
    return {0: name, 1: about, 2: np.int8(kind)}


def label_file(metadata: Metadata, kind: int = AXIS_LABELS) -> list[dict[int, Any]]:
    return [named_file(LABELS, "Names of the classes.", kind)] if metadata.labels else []


def feature(name: str, about: str) -> dict[int, Any]:
    return {0: name, 1: about, 3: {0: FEATURE, 1: {}}}


def check_labels(metadata: Metadata, classes: int) -> None:
    if metadata.labels and len(metadata.labels) != classes:
        raise ValueError(
            f"The model has {classes} classes, but there are {len(metadata.labels)} labels: give "
            "one for each class, in the model's order."
        )


Written = tuple[list[dict[int, Any]], dict[int, Any]]  # (tables of outputs, more graph fields)


def classifier(file: TfliteModel, kind: ClassifierOutput, metadata: Metadata) -> Written:
    graph = file.graphs[0]
    (output,) = shapes_of(graph, [2], kind)
    check_labels(metadata, output[-1])
    last = next((op.name for op in graph.operators if graph.outputs[0] in op.outputs), "")
    about = "Scores, without an activation."
    stats = {}
    if last in PROBABILITIES:
        about = f"Probabilities, by {PROBABILITIES[last]}."
        stats = {5: {0: np.ones(1, np.float32), 1: np.zeros(1, np.float32)}}  # most, least
    units, files = thresholds(metadata, output[-1])
    table = feature("score", about) | stats | units
    return [table | {6: [*label_file(metadata), *files]}], {}


def thresholds(metadata: Metadata, classes: int) -> tuple[dict[int, Any], list[dict[int, Any]]]:
    """Return (process units, files) that make MediaPipe drop scores below each label's threshold.

    This uses MediaPipe's score calibration, with the identity as curve and a least score per label.
    """
    if not metadata.thresholds:
        return {}, []
    if len(metadata.thresholds) != classes:
        raise ValueError(
            f"The model has {classes} labels, but there are {len(metadata.thresholds)} thresholds: "
            "give one for each label."
        )
    calibration = {0: INVERSE_LOGISTIC, 1: np.float32(UNDER_THRESHOLD)}
    units = [
        {0: np.uint8(SCORE_CALIBRATION), 1: calibration},
        {0: np.uint8(SCORE_THRESHOLD), 1: {0: np.float32(min(metadata.thresholds))}},
    ]
    file = named_file(CALIBRATION, "Least scores of the labels.", AXIS_CALIBRATION)
    return {4: units}, [file]


def segmenter(file: TfliteModel, kind: SegmenterOutput, metadata: Metadata) -> Written:
    (output,) = shapes_of(file.graphs[0], [4], kind)
    check_labels(metadata, output[-1])
    gray = {0: IMAGE, 1: {0: np.int8(2)}, 2: {0: np.int32(1), 1: np.int32(2)}}
    mask = {0: "segmentation_masks", 1: "Scores of the classes.", 3: gray, 6: label_file(metadata)}
    activation = np.int8(ACTIVATIONS.index(kind.activation))
    options = flat({0: activation, 1: PARSER}, b"V001")
    return [mask], {9: [{0: "SEGMENTER_METADATA", 1: options}]}


def detector(file: TfliteModel, kind: BoxOutputs, metadata: Metadata) -> Written:
    graph = file.graphs[0]
    shapes_of(graph, [3, 3], kind)
    by_name = names_of_outputs(file, (kind.boxes, kind.scores))
    boxes, scores = (graph.tensors[by_name[n]].shape for n in (kind.boxes, kind.scores))
    if boxes[1:] != kind.anchors.shape or scores[1] != len(kind.anchors):
        raise ValueError(
            f"{len(kind.anchors)} anchors do not fit boxes {boxes} and scores {scores}: pass those "
            "of this net and input size."
        )
    check_labels(metadata, scores[2])
    tables = {
        by_name[kind.boxes]: {0: "location", 1: "Boxes.", 3: BOX},
        by_name[kind.scores]: feature("score", "Scores of the boxes.") | {6: label_file(metadata)},
    }
    y, x, h, w = map(np.float32, kind.scales)
    integers = (scores[2], len(kind.anchors), 4, 0, 0, 2)  # classes, boxes, coordinates, keypoints
    decoding: dict[int, Any] = dict(enumerate(map(np.int32, integers)))
    decoding |= {6: x, 7: y, 8: w, 9: h, 10: np.bool_(True), 11: np.bool_(kind.sigmoid)}
    least, most = np.split(kind.anchors, 2, axis=1)
    centred = np.concatenate([(least + most) / 2, most - least], axis=1)[:, [1, 0, 3, 2]]
    anchors = [dict(enumerate(anchor)) for anchor in centred]
    options = flat({0: PARSER, 1: {0: {0: anchors}}, 2: decoding}, b"V001")
    return [tables[i] for i in graph.outputs], {9: [{0: "DETECTOR_METADATA", 1: options}]}


def detections(file: TfliteModel, kind: DetectionOutputs, metadata: Metadata) -> Written:
    by_name = names_of_outputs(file, kind.order)
    two = {0: np.int32(2), 1: np.int32(2)}
    values = {0: FEATURE, 1: {}, 2: two}
    labels = label_file(metadata, VALUE_LABELS)
    boxes, classes, scores, count = kind.order
    tables = {
        boxes: {0: "location", 1: "Boxes.", 3: BOX | {2: two}},
        classes: {0: "category", 1: "Classes of the boxes.", 3: values, 6: labels},
        scores: {0: "score", 1: "Scores of the boxes.", 3: values},
        count: feature("number of detections", "How many boxes there are."),
    }
    group = {0: "detection_result", 1: ["location", "category", "score"]}
    by_tensor = {by_name[name]: table for name, table in tables.items()}
    return [by_tensor[i] for i in file.graphs[0].outputs], {8: [group]}


WRITE: dict[type, Callable[..., Written]] = {
    ClassifierOutput: classifier,
    SegmenterOutput: segmenter,
    BoxOutputs: detector,
    DetectionOutputs: detections,
}


def shapes_of(graph: TfliteGraph, axes: Sequence[int], kind: Outputs) -> list[tuple[int, ...]]:
    shapes = [graph.tensors[i].shape for i in graph.outputs]
    if [len(shape) for shape in shapes] != list(axes):
        raise ValueError(f"A {kind.task} has outputs of {axes} axes. Received: {shapes}")
    return shapes


def names_of_outputs(file: TfliteModel, wanted: Sequence[str]) -> dict[str, int]:
    found = names(file)[1]
    if sorted(found) != sorted(wanted):
        raise ValueError(
            f"The file's outputs are {sorted(found)}, the metadata name {sorted(wanted)}: give the "
            "file's names, BoxOutputs(boxes=..., scores=...) or DetectionOutputs(order=...)."
        )
    return found
