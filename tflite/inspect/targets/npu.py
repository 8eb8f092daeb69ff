"""NPUs of phones: the operator lists of LiteRT's compiler plugins.

Read in google-ai-edge/LiteRT at commit f6745779, 2026-08-21. A plugin passes the operators it lists
to the vendor's compiler, which may still refuse them.
"""

from kzoo.tflite.inspect.targets.conditions import fused
from kzoo.tflite.inspect.targets.gpu import READ, TREE, UNLISTED
from kzoo.tflite.inspect.targets.rules import (
    EIGHT_BITS,
    FLOATS,
    Answer,
    Rule,
    Target,
    kinds,
    with_conditions,
)

REFUSED = "they run on the CPU, with a copy at each border"
WHERE_NOTHING_FITS = {"": "keep the operator out of the file, or end the model before it"}
_LINEAR = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_ACTIVATED = (*_LINEAR, "ADD", "SUB", "MUL", "DIV", "AVERAGE_POOL_2D", "MAX_POOL_2D")

# Activations: litert/vendors/qualcomm/core/builders/op_builder.cc
_qualcomm = kinds(
    """ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_TO CAST CEIL
    CONCATENATION CONV_2D CONV_3D COS CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV
    DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP FLOOR FLOOR_DIV FULLY_CONNECTED GATHER
    GATHER_ND GELU GREATER GREATER_EQUAL HARD_SWISH L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS
    LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM
    MIRROR_PAD MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2 POW PRELU QUANTIZE REDUCE_ALL REDUCE_ANY
    REDUCE_MAX REDUCE_MIN RELU RELU_0_TO_1 RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX
    SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQUARE SQUARED_DIFFERENCE SQRT STRIDED_SLICE SUB
    SUM TANH TILE TOPK_V2 TRANSPOSE TRANSPOSE_CONV UNPACK"""
)
_qualcomm["FLOOR_MOD"] = Rule(frozenset({"int32"}))
_qualcomm = with_conditions(
    _qualcomm, (*_ACTIVATED, "CONCATENATION"), fused("relu", "relu6", "relu_n1_to_1", "tanh")
)

QUALCOMM = Target(
    "qualcomm",
    "Qualcomm NPU (QNN)",
    TREE + "litert/vendors/qualcomm/compiler/Qualcomm_QNN_Compiler.md",
    READ,
    _qualcomm,
    UNLISTED,
    REFUSED,
    dtypes=FLOATS | EIGHT_BITS | {
        "bool", "int4", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float64",
    },
    remedies=WHERE_NOTHING_FITS,
)  # fmt: skip

# Activations are passed as numbers, which are the same in Neuron and TFLite up to RELU6.
_mediatek = kinds(
    """ABS ADD AVERAGE_POOL_2D BATCH_MATMUL CAST CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEQUANTIZE
    DIV FULLY_CONNECTED GELU GREATER HARD_SWISH L2_NORMALIZATION LEAKY_RELU LESS LOGISTIC MAXIMUM
    MAX_POOL_2D MEAN MINIMUM MUL PAD PADV2 PRELU QUANTIZE REDUCE_MAX RELU RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPLIT SQRT SQUARED_DIFFERENCE STRIDED_SLICE SUB SUM
    TANH TRANSPOSE TRANSPOSE_CONV"""
)
_mediatek = with_conditions(_mediatek, _ACTIVATED, fused("relu", "relu6", "relu_n1_to_1"))

MEDIATEK = Target(
    "mediatek",
    "MediaTek NPU (Neuron)",
    TREE + "litert/vendors/mediatek/compiler/MediaTek_Neuro_Compiler.md",
    READ,
    _mediatek,
    UNLISTED,
    REFUSED,
    dtypes=FLOATS | EIGHT_BITS | {"bool", "int4", "int16", "int32", "uint16"},
    remedies=WHERE_NOTHING_FITS
    | {
        "RELU6": "a RELU6 that stands alone is not in its list, one fused into a convolution or an "
        "ADD is: kzoo convert --target npu writes HARD_SWISH, which it has, in place of its parts",
        "ARG_MAX": "let the file end in the logits, and take the largest in the app",
    },
)

# kUnSupportedOps: only a list of unsupported operators is published.
_tensor = kinds(
    """ASSIGN_VARIABLE BIDIRECTIONAL_SEQUENCE_LSTM BROADCAST_ARGS BUCKETIZE CALL_ONCE COMPLEX_ABS
    CONV_3D_TRANSPOSE DENSIFY FAKE_QUANT HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE
    IMAG LOCAL_RESPONSE_NORMALIZATION MATRIX_DIAG MATRIX_SET_DIAG MULTINOMIAL
    NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 RANDOM_STANDARD_NORMAL RANDOM_UNIFORM RANK
    READ_VARIABLE REAL REDUCE_PROD REVERSE_SEQUENCE RFFT2D SEGMENT_SUM SHAPE SPARSE_TO_DENSE SVDF
    UNIDIRECTIONAL_SEQUENCE_RNN UNIQUE UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN
    UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_SUM VAR_HANDLE WHERE""",
    Rule(conditions=(lambda operation: Answer("no", "in its list of what it refuses"),)),
)

TENSOR = Target(
    "tensor",
    "Google Tensor NPU",
    TREE + "litert/vendors/google_tensor/compiler/compiler_plugin.cc",
    READ,
    _tensor,
    Answer("unknown", "its compiler decides; only what it refuses is published"),
    REFUSED,
    remedies=WHERE_NOTHING_FITS,
)
