"""The head of a detector in a .tflite file: its operators, and TF's order of anchors."""

import dataclasses
import math

import numpy as np

from kzoo.weights.checkpoint import Unit
from kzoo.weights.readers.flatbuffer import TfliteOperator
from kzoo.weights.readers.tflite_values import Values

POSTPROCESS = "TFLite_Detection_PostProcess"
BACKBONE_STRIDE = 32  # of the backbone's last feature map; coarser maps belong to the head
# Operators that may lie between a predictor and its output.
ARRANGES = {"RESHAPE", "SQUEEZE", "CONCATENATION", "STRIDED_SLICE", "LOGISTIC", "SOFTMAX",
            "QUANTIZE", "DEQUANTIZE"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Head:
    """The location of a detector's head in its file.

    order: the operators in graph order, the backbone's first.
    first: index of the head's first operator in `order`.
    columns: by id of a predictor's last convolution, its output channels in kzoo's order of anchors
        and classes; empty if the file is kzoo's own.
    """

    order: list[tuple[int, TfliteOperator]]
    first: int
    columns: dict[int, np.ndarray]


def find_head(values: Values) -> Head | None:
    """Return the head of a detector's file; None for other files.

    A detector has boxes (1, A, 4) and classes (1, A, C), as outputs or as inputs of
    TFLite_Detection_PostProcess, each predicted by one convolution per feature map.
    """
    ends = box_and_class_tensors(values)
    if ends is None:
        return None
    boxes, classes = (predictors(values, end) for end in ends)
    image, *maps = [
        values.graph.tensors[i].shape
        for i in (*values.graph.inputs[:1], *(chain[0].inputs[0] for chain in boxes))
    ]
    if len(boxes) != len(classes) or any(len(shape) != 4 for shape in (image, *maps)):
        return None
    side = math.ceil(image[1] / BACKBONE_STRIDE)
    last = [chain for chain, shape in zip(boxes, maps, strict=True) if shape[1] == side]
    if not last:
        return None
    backbone = values.reading_order((last[0][0].inputs[0],))
    inside = {i for i, _ in backbone}
    rest = [(i, op) for i, op in values.reading_order(ends) if i not in inside]
    width = values.graph.tensors[ends[1]].shape[2]
    columns = tf_columns(values, boxes, 4, 0) | tf_columns(values, classes, width, 1)
    return Head(backbone + rest, len(backbone), columns)


def box_and_class_tensors(values: Values) -> tuple[int, int] | None:
    graph = values.graph
    for op in graph.operators:
        if op.name == POSTPROCESS:
            return op.inputs[0], op.inputs[1]
    shapes = [graph.tensors[i].shape for i in graph.outputs]
    if len(shapes) != 2 or any(len(shape) != 3 for shape in shapes):
        return None
    if shapes[0][1] != shapes[1][1] or 4 not in (shapes[0][2], shapes[1][2]):
        return None
    named = {name for s in values.model.signatures for name, i in s.outputs.items()
             if name == "boxes" and i == graph.outputs[1]}  # fmt: skip
    second = bool(named) or shapes[0][2] != 4
    boxes, classes = graph.outputs[::-1] if second else graph.outputs
    return boxes, classes


def predictors(values: Values, tensor: int) -> list[list[TfliteOperator]]:
    """Return the predictor of each feature map for `tensor`: [depthwise, 1x1] or [1x1]."""
    found: list[list[TfliteOperator]] = []
    stack, seen = [tensor], {tensor}
    while stack:
        op = values.writer.get(stack.pop())
        if op is not None and op.name == "CONV_2D":
            before = values.writer.get(op.inputs[0])
            alone = len(values.readers[op.inputs[0]]) == 1
            separable = before is not None and before.name == "DEPTHWISE_CONV_2D" and alone
            found.append([before, op] if before and separable else [op])
        elif op is not None and op.name in ARRANGES:
            stack += [i for i in reversed(op.inputs) if i not in seen]
            seen.update(op.inputs)
    return found


def tf_columns(
    values: Values, chains: list[list[TfliteOperator]], width: int, background: int
) -> dict[int, np.ndarray]:
    """Return the output channels of TF Object Detection's predictors in kzoo's order of anchors.

    TF's order in a cell is a square, the anchors of each ratio, then the larger square, which is
    second in kzoo; its first map may have three anchors, without a larger square.
    background: number of background channels at the beginning of each anchor to leave out, since
        TF's class scores are sigmoids.
    Source: object_detection/anchor_generators/multiple_grid_anchor_generator.py.
    """
    found = {}
    for chain in chains:
        output = values.graph.tensors[chain[-1].outputs[0]]
        if "BoxPredictor" not in output.name:  # a file of kzoo
            continue
        count = output.shape[-1] // width
        order = np.arange(count)
        if count > 3:
            order = np.r_[0, count - 1, 1 : count - 1]
        own = np.arange(background, width)
        found[id(chain[-1])] = (order[:, None] * width + own).ravel()
    return found


def with_columns(unit: Unit, columns: np.ndarray) -> Unit:
    bias = None if unit.bias is None else unit.bias[columns]
    return dataclasses.replace(unit, kernel=unit.kernel[..., columns], bias=bias)
