"""What accelerators take, by their own lists, and advice on what keeps a file from running fast.

The lists say which kinds of operators a delegate knows; it can still refuse one for its settings.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from kzoo.tflite.xnnpack import weights_of
from kzoo.weights.readers.flatbuffer import TfliteGraph


@dataclasses.dataclass(frozen=True)
class Delegate:
    """An accelerator: `operators` it knows, `dtypes` that its tensors may have."""

    name: str
    source: str
    operators: frozenset[str]
    dtypes: frozenset[str]

    def refused(self, graph: TfliteGraph, computed: set[int]) -> list[int]:
        """The operators, by index, that it leaves to the CPU."""
        found = []
        for i, op in enumerate(graph.operators):
            if op.name == "DEQUANTIZE" and not computed.intersection(op.outputs):
                continue  # of float16 weights, which every delegate reads as constants
            ends = [graph.tensors[t] for t in (*op.inputs, *op.outputs) if t in computed]
            fits = all(tensor.dtype in self.dtypes for tensor in ends)
            if op.custom or op.name not in self.operators or not fits:
                found.append(i)
        return found


def kinds(text: str) -> frozenset[str]:
    return frozenset(text.split())


FLOATS, EIGHT_BITS = frozenset({"float32", "float16"}), frozenset({"int8", "uint8"})

DELEGATES = (
    Delegate(
        "GPU",  # NewOperationParser, with quantized inference allowed, as it is by default
        "https://github.com/tensorflow/tensorflow/blob/9a5c30170e25d007fee6f7176d12b42438805d0b/"
        "tensorflow/lite/delegates/gpu/common/model_builder.cc",
        kinds(
            """ABS ADD AVERAGE_POOL_2D CONCATENATION CONV_2D COS DEPTHWISE_CONV_2D
            DEQUANTIZE DIV FULLY_CONNECTED HARD_SWISH LOGISTIC LOG LSTM MAXIMUM
            MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL PAD POW QUANTIZE RELU RELU6
            LEAKY_RELU PRELU RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT
            SIN SLICE SOFTMAX SPACE_TO_DEPTH SQRT SQUARE SQUARED_DIFFERENCE
            STRIDED_SLICE SUB TANH TRANSPOSE TRANSPOSE_CONV"""
        ),
        FLOATS | EIGHT_BITS,
    ),
    Delegate(
        "Edge TPU",
        "https://coral.ai/docs/edgetpu/models-intro/#supported-operations",
        kinds(
            """ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS
            FULLY_CONNECTED L2_NORMALIZATION LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN
            MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6
            RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE
            SOFTMAX SPACE_TO_DEPTH SPLIT SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE
            SUB SUM TANH TRANSPOSE TRANSPOSE_CONV"""
        ),
        EIGHT_BITS,
    ),
    Delegate(
        "NNAPI",  # Validate, on Android 11 and later; deprecated since Android 15
        "https://github.com/tensorflow/tensorflow/blob/acdcab508aba594419934b482957e13d4f5b2455/"
        "tensorflow/lite/delegates/nnapi/nnapi_delegate.cc",
        kinds(
            """ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_TO_SPACE_ND CAST
            CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV EXP
            EXPAND_DIMS FLOOR FULLY_CONNECTED GATHER HARD_SWISH L2_NORMALIZATION
            LEAKY_RELU LOG LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL
            NEG PAD PADV2 POW PRELU QUANTIZE REDUCE_ANY REDUCE_MAX REDUCE_MIN RELU
            RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT
            SELECT SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SQRT
            SQUEEZE STRIDED_SLICE SUB TANH TILE TOPK_V2 TRANSPOSE TRANSPOSE_CONV"""
        ),
        FLOATS | EIGHT_BITS | {"int32", "bool"},
    ),
)


KNOWN_CUSTOM = ("TFLite_Detection_PostProcess",)  # LiteRT and MediaPipe bring it along


@dataclasses.dataclass(frozen=True)
class Facts:
    """What advice is given on."""

    graph: TfliteGraph
    computed: set[int]  # tensors that depend on the input
    float_ops: tuple[str, ...]
    outside: Sequence[int] | None  # of XNNPACK; None where the file was not run
    risks: tuple[str, ...]
    per_channel: tuple[int, int]
    custom_ops: tuple[str, ...]
    flex_ops: tuple[str, ...]


def advice(facts: Facts) -> Iterator[str]:
    """What to do about a file, in words; nothing where nothing is wrong."""
    graph, names = facts.graph, [op.name for op in facts.graph.operators]
    stray = [names[i] for i in facts.outside or ()]
    quantized = any(is_quantized(op_dtypes(graph, facts, i)) for i in range(len(names)))
    if swishes := stray.count("HARD_SWISH"):
        yield (
            f"{swishes} HARD_SWISH operators run outside XNNPACK, on one slow kernel each: convert "
            "with kzoo's default calibrator, or kzoo.quantize(hard_swish='split'), which lowers "
            "them to operators that XNNPACK has."
        )
    if facts.risks:
        yield (
            "Scales are out of XNNPACK's bounds: LiteRT 2.3 refuses the file, or dies of it. Make "
            "int8 of the float model with kzoo.quantize, which keeps inside them."
        )
    mixed = [
        i for i, op in enumerate(graph.operators)
        if (weights := weights_of(graph, op)) and weights.dtype in ("int8", "int4")
        and not is_quantized(op_dtypes(graph, facts, i))
    ]  # fmt: skip
    if mixed:
        yield (
            f"{len(mixed)} operators compute in floats on int8 weights (dynamic range): a quarter "
            "of the bytes, but slower than float32 (2.9x for MobileNetV2 on x86). scheme='int8' is "
            "as small and faster."
        )
    elif quantized and facts.float_ops:
        yield (
            f"{len(facts.float_ops)} operators compute in floats in a quantized file, between "
            f"{names.count('QUANTIZE')} QUANTIZE and {names.count('DEQUANTIZE')} DEQUANTIZE: give "
            "the layers ranges (kzoo.quantize), or end the model before them."
        )
    if any(tensor.dtype == "uint8" and tensor.scales for i, tensor in enumerate(graph.tensors)
           if i in facts.computed and i not in (*graph.inputs, *graph.outputs)):  # fmt: skip
        yield (
            "Activations are uint8, for which XNNPACK has slower kernels than for int8 (2.1x on "
            "x86 with VNNI): convert it anew to int8; only the input need be uint8."
        )
    channelwise, all_ = facts.per_channel
    if channelwise < all_:
        yield (
            f"{all_ - channelwise} of {all_} quantized weights have one scale for all channels, "
            "which costs accuracy, in depthwise convolutions most: convert with scales per channel."
        )
    if facts.outside and len(stray) > 1 and not swishes and not facts.float_ops:
        yield f"{len(stray)} operators run outside XNNPACK: {', '.join(sorted(set(stray)))}."
    if facts.flex_ops:
        yield "Flex operators need TensorFlow in the app (some 25 MB): replace those layers."
    if strange := [name for name in facts.custom_ops if name.split()[1] not in KNOWN_CUSTOM]:
        yield f"Custom operators run only where the app registers them: {', '.join(strange)}."


def op_dtypes(graph: TfliteGraph, facts: Facts, index: int) -> set[str]:
    op = graph.operators[index]
    return {graph.tensors[t].dtype for t in op.outputs if t in facts.computed}


def is_quantized(dtypes: set[str]) -> bool:
    return bool(dtypes & {"int8", "uint8", "int16"})
