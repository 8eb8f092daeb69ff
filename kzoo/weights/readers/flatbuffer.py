"""`read_tflite`: parse tensors, operators, buffers and signatures of a .tflite file safely.

`read_tflite(path)` needs neither TensorFlow nor an interpreter; a damaged file raises ValueError.
Field numbers are those of tensorflow/compiler/mlir/lite/schema/schema.fbs in TensorFlow 2.21.
"""

import dataclasses
import functools
import itertools
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from kzoo.weights.readers.tables import Reader, Table

IDENTIFIER = b"TFL3"  # at byte 4 of every file
MOST_BYTES = 1 << 30  # limit of an activation: a float image of 4096 px with 16 channels

# enum BuiltinOperator, in order from 0.
OPERATORS = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE
EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D
LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6
RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM
EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND
TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN
EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX
MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV
SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT
REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV
REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU
SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU
REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL
PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS
HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE
READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM
MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX
UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT
STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM
STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM
STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE STABLEHLO_ABS
STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_MINIMUM
STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT STABLEHLO_SELECT
STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT
STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA
STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER
STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE
STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE
""".split()  # noqa: SIM905, a hundred lines otherwise

# enum TensorType, in order from 0. numpy has no name for those that `TfliteModel.array` refuses.
DTYPES = """
float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64 complex128 uint64
resource variant uint32 uint16 int4 bfloat16 int2 uint4
""".split()  # noqa: SIM905, a hundred lines otherwise

PADDINGS, ACTIVATIONS = (
    ("same", "valid"),
    ("none", "relu", "relu_n1_to_1", "relu6", "tanh", "sign_bit"),
)

# {operator: index of the first optional input}; others require all. LiteRT does not check this.
OPTIONAL = {
    "CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "CONV_3D": 2, "TRANSPOSE_CONV": 3,
    "CONV_3D_TRANSPOSE": 3,
    **{
        name: 0 for name in OPERATORS
        if name.endswith(("LSTM", "RNN", "SVDF", "WHILE", "IF")) or name.startswith(
            ("CALL", "STABLEHLO"))
    },
}  # fmt: skip

# operator: {option: (field number, struct format, default or the names of an enum)}
STRIDES = {"stride_w": (1, "i", 0), "stride_h": (2, "i", 0)}
OPTIONS: dict[str, dict[str, tuple[int, str, Any]]] = {
    "ADD": {"activation": (0, "b", ACTIVATIONS)},
    "SUB": {"activation": (0, "b", ACTIVATIONS)},
    "MUL": {"activation": (0, "b", ACTIVATIONS)},
    "DIV": {"activation": (0, "b", ACTIVATIONS)},
    "FULLY_CONNECTED": {"activation": (0, "b", ACTIVATIONS)},
    "CONCATENATION": {"axis": (0, "i", 0), "activation": (1, "b", ACTIVATIONS)},
    "SOFTMAX": {"beta": (0, "f", 0.0)},
    "MEAN": {"keep_dims": (0, "?", False)},
    "STRIDED_SLICE": {
        name: (i, "i", 0)
        for i, name in enumerate(
            ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
        )
    },
    "RESIZE_BILINEAR": {"align_corners": (2, "?", False), "half_pixel_centers": (3, "?", False)},
    "CONV_2D": {
        "padding": (0, "b", PADDINGS), **STRIDES, "activation": (3, "b", ACTIVATIONS),
        "dilation_w": (4, "i", 1), "dilation_h": (5, "i", 1),
    },
    "DEPTHWISE_CONV_2D": {
        "padding": (0, "b", PADDINGS), **STRIDES, "depth_multiplier": (3, "i", 0),
        "activation": (4, "b", ACTIVATIONS), "dilation_w": (5, "i", 1), "dilation_h": (6, "i", 1),
    },
    **{
        pool: {
            "padding": (0, "b", PADDINGS), **STRIDES, "filter_w": (3, "i", 0),
            "filter_h": (4, "i", 0), "activation": (5, "b", ACTIVATIONS),
        }
        for pool in ("AVERAGE_POOL_2D", "MAX_POOL_2D")
    },
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TfliteTensor:
    """A tensor. Real value = scale * (stored value - zero point); no scales if not quantized.

    Several scales are per channel along `axis`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    buffer: int
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int = 0


@dataclasses.dataclass(frozen=True)
class TfliteOperator:
    """An operator. `inputs` and `outputs` are tensor indices, -1 for a missing optional input."""

    name: str  # as in OPERATORS; for a custom operator its own name
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]  # those of OPTIONS
    custom: bool = False
    custom_options: bytes = b""


@dataclasses.dataclass(frozen=True)
class TfliteGraph:
    """A subgraph. `inputs` and `outputs` are tensor indices; operators are in execution order."""

    name: str
    tensors: tuple[TfliteTensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[TfliteOperator, ...]


@dataclasses.dataclass(frozen=True)
class TfliteSignature:
    """A signature: names of the inputs and outputs of a graph."""

    key: str
    inputs: Mapping[str, int]  # name: tensor index
    outputs: Mapping[str, int]
    graph: int


@dataclasses.dataclass(frozen=True)
class TfliteModel:
    """The content of a .tflite file."""

    description: str
    graphs: tuple[TfliteGraph, ...]
    buffers: tuple[memoryview, ...] = dataclasses.field(repr=False)
    metadata: Mapping[str, int]  # name: buffer
    signatures: tuple[TfliteSignature, ...]

    def array(self, tensor: TfliteTensor) -> np.ndarray | None:
        """Return the stored values of a constant, or None for an activation."""
        data = self.buffers[tensor.buffer]
        if tensor.buffer == 0 or not data.nbytes:
            return None
        if tensor.dtype not in np.sctypeDict or tensor.dtype in ("string", "bool"):
            raise ValueError(
                f"Tensor {tensor.name!r}: constants of type {tensor.dtype} are not read."
            )
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        if math.prod(tensor.shape) * dtype.itemsize != data.nbytes:
            raise ValueError(
                f"Tensor {tensor.name!r} of shape {tensor.shape} and type {tensor.dtype} has "
                f"{data.nbytes} bytes: the file is damaged."
            )
        return np.frombuffer(data, dtype).reshape(tensor.shape)

    def real(self, tensor: TfliteTensor) -> np.ndarray | None:
        """Return the dequantized values (float32) of a constant, or None for an activation."""
        stored = self.array(tensor)
        if stored is None or not tensor.scales:
            return None if stored is None else stored.astype("float32")
        scales, zeros = np.array(tensor.scales), np.array(tensor.zero_points or (0,))
        if len(scales) > 1:
            along = [1] * stored.ndim
            along[tensor.axis] = -1
            scales = scales.reshape(along)
            zeros = zeros.reshape(along) if len(zeros) > 1 else zeros
        return ((stored.astype("float64") - zeros) * scales).astype("float32")


def pick(names: list[str] | tuple[str, ...], index: int, what: str) -> str:
    """Return the name of an enum's value, or WHAT_index if it is unknown."""
    return names[index] if 0 <= index < len(names) else f"{what}_{index}"


def read_tflite(file: str | os.PathLike[str] | bytes) -> TfliteModel:
    """Return the content of a .tflite file, given as path or bytes.

    All indices and sizes are checked: raises ValueError for other, truncated or damaged files.
    """
    data = file if isinstance(file, bytes) else pathlib.Path(file).read_bytes()
    if data[4:8] != IDENTIFIER:
        raise ValueError(
            f"This is not a .tflite file: its bytes 4 to 7 are {data[4:8]!r}, not {IDENTIFIER!r}."
        )
    reader = Reader(data)
    root = Table(reader, reader.scalar("I", 0))
    codes = [operator_code(table) for table in root.tables(1)]
    model = TfliteModel(
        description=root.text(3),
        graphs=tuple(graph(table, codes) for table in root.tables(2)),
        buffers=tuple(map(buffer, root.tables(4))),
        metadata={table.text(0): table.scalar(1, "I", 0) for table in root.tables(6)},
        signatures=tuple(map(signature, root.tables(7))),
    )
    check_indices(model)
    return model


def check_indices(model: TfliteModel) -> None:
    """Raise ValueError for indices out of range, so that other code need not check them."""
    indices = [("buffer", i, len(model.buffers), 0) for i in model.metadata.values()]
    indices += [("subgraph", s.graph, len(model.graphs), 0) for s in model.signatures]
    indices += [("subgraph", 0, len(model.graphs), 0)]  # there is at least one
    for g in model.graphs:
        indices += [("buffer", t.buffer, len(model.buffers), 0) for t in g.tensors]
        indices += [
            ("axis", t.axis, max(len(t.shape), 1), 0) for t in g.tensors if len(t.scales) > 1
        ]
        ends = [(op.inputs, op.outputs) for op in g.operators]
        for i in itertools.chain(g.inputs, g.outputs, *itertools.chain(*ends)):
            indices.append(("tensor", i, len(g.tensors), -1))
    for s in model.signatures:
        if 0 <= s.graph < len(model.graphs):
            n = len(model.graphs[s.graph].tensors)
            indices += [("tensor", i, n, 0) for i in (*s.inputs.values(), *s.outputs.values())]
    for what, i, length, least in indices:
        if not least <= i < length:
            raise ValueError(
                f"This .tflite file is damaged: it names {what} {i}, and there are {length}."
            )
    for g in model.graphs:
        check_order(g)
        for tensor in g.tensors:
            check_size(tensor, model.buffers[tensor.buffer])


def check_order(graph: TfliteGraph) -> None:
    """Raise ValueError for cycles and missing inputs of operators.

    Every tensor must be written at most once, and before it is read.
    """
    computed = {t for op in graph.operators for t in op.outputs if t >= 0}
    known = set(range(-1, len(graph.tensors))) - computed | set(graph.inputs)
    for i, op in enumerate(graph.operators):
        late = [t for t in op.inputs if t not in known]
        again = [t for t in op.outputs if t in known and t >= 0]
        needed = op.inputs[: 0 if op.custom else OPTIONAL.get(op.name, len(op.inputs))]
        faults = [f"reads tensor {t} too early" for t in late]
        faults += [f"writes tensor {t} again" for t in again]
        faults += [f"has no input {k}" for k, t in enumerate(needed) if t < 0]
        if faults:
            raise ValueError(f"This .tflite file is damaged: operator {i} ({op.name}) {faults[0]}.")
        known.update(op.outputs)


def check_size(tensor: TfliteTensor, content: memoryview) -> None:
    """Raise ValueError for an activation above `MOST_BYTES`: interpreters would allocate it."""
    itemsize = np.dtype(tensor.dtype).itemsize if tensor.dtype in np.sctypeDict else 1
    size = math.prod(tensor.shape) * itemsize
    if size > MOST_BYTES and not content.nbytes:
        raise ValueError(
            f"This .tflite file is damaged: its tensor {tensor.name[:80]!r} of shape "
            f"{tensor.shape} takes {size / 1e9:.1f} GB, and at most {MOST_BYTES / 1e9:.1f} are "
            "read."
        )


def operator_code(table: Table) -> tuple[str, int, bool]:
    """Return (name, version, whether it is custom). Files before 2020 have only field 0."""
    code = max(table.scalar(0, "b", 0), table.scalar(3, "i", 0))
    name = pick(OPERATORS, code, "OPERATOR")
    custom = name == "CUSTOM"
    return (table.text(1) if custom else name), table.scalar(2, "i", 1), custom


def graph(table: Table, codes: list[tuple[str, int, bool]]) -> TfliteGraph:
    return TfliteGraph(
        name=table.text(4),
        tensors=tuple(map(tensor, table.tables(0))),
        inputs=table.vector(1, "<i4"),
        outputs=table.vector(2, "<i4"),
        operators=tuple(map(functools.partial(operator, codes=codes), table.tables(3))),
    )


def tensor(table: Table) -> TfliteTensor:
    shape = table.vector(0, "<i4")
    if any(side < 0 for side in shape):
        raise ValueError(f"This .tflite file is damaged: a tensor has the shape {shape}.")
    quantization = table.table(4)
    scales = quantization.vector(2, "<f4") if quantization else ()
    zeros = quantization.vector(3, "<i8") if quantization else ()
    axis = quantization.scalar(6, "i", 0) if quantization else 0
    if len(scales) > 1 and not (
        0 <= axis < len(shape) and len(scales) == shape[axis] and len(zeros) in (0, 1, len(scales))
    ):
        raise ValueError(
            f"This .tflite file is damaged: a tensor of shape {shape} has {len(scales)} scales and "
            f"{len(zeros)} zero points along axis {axis}."
        )
    dtype = pick(DTYPES, table.scalar(1, "b", 0), "type")
    return TfliteTensor(table.text(3), shape, dtype, table.scalar(2, "I", 0), scales, zeros, axis)


def operator(table: Table, codes: list[tuple[str, int, bool]]) -> TfliteOperator:
    code = table.scalar(0, "I", 0)
    if code >= len(codes):
        raise ValueError(
            f"This .tflite file is damaged: it names operator code {code} of {len(codes)}."
        )
    name, version, custom = codes[code]
    options, fields = {}, table.table(4)
    for key, (field, form, default) in OPTIONS.get("" if custom else name, {}).items():
        enum = isinstance(default, tuple)
        value = (
            fields.scalar(field, form, 0 if enum else default) if fields else 0 if enum else default
        )
        options[key] = pick(default, value, key) if enum else value
    return TfliteOperator(
        name, version, table.vector(1, "<i4"), table.vector(2, "<i4"), options, custom,
        bytes(table.span(5, 1)),
    )  # fmt: skip


def buffer(table: Table) -> memoryview:
    """Return the bytes of a buffer; in large files they lie after the flatbuffer."""
    offset, size = table.scalar(1, "Q", 0), table.scalar(2, "Q", 0)
    return table.file.span(offset, size, 1) if offset > 1 else table.span(0, 1)


def signature(table: Table) -> TfliteSignature:
    inputs, outputs = (
        {entry.text(0): entry.scalar(1, "I", 0) for entry in table.tables(field)}
        for field in (0, 1)
    )
    return TfliteSignature(table.text(2), inputs, outputs, table.scalar(4, "I", 0))
