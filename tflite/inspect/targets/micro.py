"""Microcontrollers: tflite-micro's kernels, and which of them CMSIS-NN accelerates on Cortex-M.

Read in tensorflow/tflite-micro at commit 90b983c2, 2026-08-20: micro_mutable_op_resolver.h, and the
dtypes that the kernels' Prepare and Eval accept.
"""

from kzoo.tflite.inspect.targets.conditions import NOT_READ, dtype_pairs, not_hybrid
from kzoo.tflite.inspect.targets.gpu import UNLISTED
from kzoo.tflite.inspect.targets.rules import Rule, Target, kinds, with_conditions

_WIDE = frozenset({"float32", "int8", "int16", "int32"})
_THREE = frozenset({"float32", "int8", "int16"})
_TWO = frozenset({"float32", "int8"})
_NARROW = ("int8", "int16", "uint8")
_CAST = ("int8", "int16", "int32", "uint32", "float32")
_QUANTIZE = [(a, b) for a in ("float32", "int16", "int8") for b in ("int8", "int16")]
_QUANTIZE += [("float32", "uint8"), ("int8", "uint8"), ("uint8", "int8"), ("int8", "int32"),
              ("int16", "int32"), ("int32", "int8"), ("int32", "int16")]  # fmt: skip

_rules = {
    **kinds("ADD CONCATENATION MAXIMUM MINIMUM MUL PAD PADV2 SUB", Rule(_WIDE)),
    **kinds(
        "AVERAGE_POOL_2D BATCH_MATMUL CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED LEAKY_RELU "
        "LOGISTIC MAX_POOL_2D MEAN RELU RELU6 RESIZE_NEAREST_NEIGHBOR SOFTMAX SUM TANH TRANSPOSE "
        "TRANSPOSE_CONV",
        Rule(_THREE),
    ),
    **kinds("HARD_SWISH MIRROR_PAD RESIZE_BILINEAR", Rule(_TWO)),
    **kinds("PACK SPLIT UNPACK", Rule(_WIDE)),
    **kinds("SLICE STRIDED_SLICE", Rule(_WIDE | {"bool"})),
    "PRELU": Rule(_THREE),
    **kinds("RESHAPE SQUEEZE EXPAND_DIMS", Rule(_WIDE | {"uint8", "bool", "int64"})),
    "ARG_MAX": Rule(_TWO | {"int32"}),
    "CAST": Rule(
        frozenset({*_CAST, "bool"}),
        (dtype_pairs(*((a, b) for a in _CAST for b in (*_CAST, "bool"))),),
    ),
    "DEQUANTIZE": Rule(conditions=(dtype_pairs(*((a, "float32") for a in _NARROW)),)),
    "QUANTIZE": Rule(_WIDE | {"uint8"}, (dtype_pairs(*_QUANTIZE),)),
}
_rules |= kinds(
    """ABS ADD_N ARG_MIN ASSIGN_VARIABLE BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO CALL_ONCE
    CEIL COS CUMSUM DEPTH_TO_SPACE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP FILL
    FLOOR FLOOR_DIV FLOOR_MOD GATHER GATHER_ND GREATER GREATER_EQUAL IF L2_NORMALIZATION L2_POOL_2D
    LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOG_SOFTMAX NEG NOT_EQUAL
    READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN
    SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SVDF
    UNIDIRECTIONAL_SEQUENCE_LSTM VAR_HANDLE WHILE ZEROS_LIKE""",
    Rule(conditions=(NOT_READ,)),
)
_rules = with_conditions(_rules, ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"], not_hybrid)

MICRO = Target(
    "micro",
    "Microcontroller (tflite-micro)",
    "https://github.com/tensorflow/tflite-micro/blob/90b983c2b3f1480642e040bbd2ddb37b998f3424/"
    "tensorflow/lite/micro/micro_mutable_op_resolver.h",
    "2026-08-20",
    _rules,
    UNLISTED,
    "the file does not run at all: there is nothing to fall back on",
    dtypes=None,
    float16_weights=False,
    remedies={"": "write the file with kzoo convert --target micro: int8 throughout, int8 input"},
    note="on Cortex-M, CMSIS-NN speeds up ADD, MUL, convolutions, pools, PAD and SOFTMAX of int8; "
    "MEAN, HARD_SWISH and RESIZE_BILINEAR run on reference kernels",
)
