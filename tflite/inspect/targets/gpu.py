"""Mobile GPUs: the two ways in which LiteRT's ML Drift delegate decides which operators it runs.

Read in google-ai-edge/LiteRT at commit f6745779, 2026-08-21. `use_ir_model`, off by default in
delegate_options.h, chooses between them; both take quantized tensors.
"""

from kzoo.tflite.inspect.targets.conditions import (
    NOT_READ,
    beta_one,
    bias,
    constant_axes,
    depends,
    fused,
    no_masks,
    one_corner_rule,
    rank,
)
from kzoo.tflite.inspect.targets.rules import (
    EIGHT_BITS,
    FLOATS,
    INTEGERS,
    Answer,
    Rule,
    Target,
    kinds,
    with_conditions,
)

TREE = "https://github.com/google-ai-edge/LiteRT/blob/f67457790c9c2ab67347d6fe53270e8d3df20868/"
READ = "2026-08-21"
UNLISTED = Answer("no", "not in its list")
REFUSED = (
    "CompiledModel with the GPU alone does not load the file; with CPU and GPU the operators run "
    "on the CPU, with a copy at each border"
)
REMEDIES = {
    "RELU_0_TO_1": "spell the gate as relu6(x + 3) / 6, or write the file with kzoo convert "
    "--target gpu",
    "SQUEEZE": "use a reshape in place of squeeze",
    "EXPAND_DIMS": "use a reshape in place of expand_dims",
    "": "keep the operator out of the file, or run the file on the CPU",
}
QUANTIZED_NOTE = (
    "GPUs compute in float16 whatever the file holds: an int8 file is smaller there, not faster"
)
ANY = FLOATS | EIGHT_BITS | {"int16", "int32", "uint16", "uint32", "bfloat16"}
COMPARED = Rule(
    FLOATS | EIGHT_BITS | INTEGERS | {"bool"},
    (depends("bool tensors are taken only where the app allows them"),),
)

# Operators of MediaPipe's models, in both pipelines.
CUSTOM = kinds(
    "Convolution2DTransposeBias MaxPoolingWithArgmax2D MaxUnpooling2D Resampler", Rule(FLOATS)
)

# ml_drift_delegate/tflite/model_builder.cc: NewOperationParser and GetOpsToReplaceWithOptions
_default = kinds(
    """AVERAGE_POOL_2D BATCH_MATMUL CEIL CONV_2D CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE
    ELU EXP FLOOR FULLY_CONNECTED GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC MAX_POOL_2D MEAN
    MIRROR_PAD ONE_HOT POW PRELU QUANTIZE RELU RELU6 RELU_N1_TO_1 RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR ROUND RSQRT SOFTMAX SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE
    SQUARED_DIFFERENCE TANH TOPK_V2 TRANSPOSE_CONV UNPACK"""
)
_default |= kinds(  # IsIntSupportedOp
    """ABS ADD ATAN2 COS DIV FLOOR_DIV FLOOR_MOD MAXIMUM MINIMUM MUL NEG REDUCE_MAX REDUCE_MIN
    REDUCE_PROD RIGHT_SHIFT SIGN SIN STABLEHLO_CLAMP STABLEHLO_REMAINDER SUB SUM TILE""",
    Rule(FLOATS | EIGHT_BITS | INTEGERS),
)
_default |= kinds(  # SupportAllPrecisionOp
    """BITCAST CAST CONCATENATION DYNAMIC_UPDATE_SLICE GATHER PACK PAD PADV2 RESHAPE REVERSE_V2
    SELECT SELECT_V2 SLICE STABLEHLO_BROADCAST_IN_DIM STRIDED_SLICE TRANSPOSE""",
    Rule(ANY),
)
_default |= kinds("EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL NOT_EQUAL", COMPARED)
_default["ARG_MAX"] = Rule(FLOATS | EIGHT_BITS | {"int32"})
_default["RELU_0_TO_1"] = Rule(
    conditions=(depends("refused by releases 2.1.5 and 2.1.6, LiteRT#8598; in the source again"),)
)
_default |= kinds(
    """ADD_N BITWISE_XOR EMBEDDING_LOOKUP LOGICAL_AND LOGICAL_NOT LOGICAL_OR LSTM REDUCE_ALL
    REDUCE_ANY STABLEHLO_CBRT STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT""",
    Rule(ANY | {"bool"}, (NOT_READ,)),
)
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_ACTIVATED = (*_CONVOLUTIONS, "ADD", "SUB", "MUL", "DIV", "CONCATENATION", "AVERAGE_POOL_2D",
              "MAX_POOL_2D")  # fmt: skip
_default = with_conditions(_default, _ACTIVATED, fused("relu", "relu6", "relu_n1_to_1", "tanh"))
_default = with_conditions(_default, ["SOFTMAX"], beta_one)
_default = with_conditions(_default, ["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"], constant_axes)
_default = with_conditions(
    _default, ["STRIDED_SLICE"], rank(3, 4),
    no_masks("ellipsis_mask", "new_axis_mask", "shrink_axis_mask"),
)  # fmt: skip
_default = with_conditions(_default, ["SLICE"], rank(3, 4))
_default = with_conditions(_default, ["RESIZE_BILINEAR"], one_corner_rule)

GPU = Target(
    "gpu",
    "Phone GPU (LiteRT ML Drift)",
    TREE + "ml_drift_delegate/tflite/model_builder.cc",
    READ,
    _default,
    UNLISTED,
    REFUSED,
    dtypes=FLOATS | EIGHT_BITS,
    pieces="one",
    remedies=REMEDIES,
    custom=CUSTOM,
    note=QUANTIZED_NOTE,
)

# ml_drift_delegate/tflite/support/*.cc: IsNodeSupported
_floats = kinds(
    "AVERAGE_POOL_2D LEAKY_RELU MAX_POOL_2D RELU RELU6 RELU_N1_TO_1 RESIZE_BILINEAR "
    "RESIZE_NEAREST_NEIGHBOR SOFTMAX",
    Rule(FLOATS),
)
_elementwise = kinds(
    """ABS ADD ATAN2 CAST CEIL COS DIV ELU EXP FLOOR FLOOR_DIV FLOOR_MOD GELU HARD_SWISH LOG
    LOGISTIC MAXIMUM MINIMUM MUL NEG POW RIGHT_SHIFT ROUND RSQRT SIGN SIN SQRT SQUARE
    SQUARED_DIFFERENCE SUB TANH""",
    Rule(ANY),
)
_reductions = kinds("MEAN REDUCE_MAX REDUCE_MIN REDUCE_PROD SUM", Rule(FLOATS | INTEGERS))
_moves = kinds(
    """CONCATENATION DEPTH_TO_SPACE GATHER MIRROR_PAD PACK PAD PADV2 RESHAPE REVERSE_V2 SELECT
    SELECT_V2 SLICE SPACE_TO_DEPTH SPLIT SPLIT_V STRIDED_SLICE TILE TRANSPOSE UNPACK""",
    Rule(ANY),
)
_ir = {
    **_floats,
    **_elementwise,
    **_reductions,
    **_moves,
    **kinds("EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL NOT_EQUAL", COMPARED),
    **kinds("CONV_2D DEPTHWISE_CONV_2D TRANSPOSE_CONV", Rule(conditions=(bias(*FLOATS),))),
    **kinds("BATCH_MATMUL CUMSUM DEQUANTIZE ONE_HOT PRELU QUANTIZE TOPK_V2"),
    "FULLY_CONNECTED": Rule(conditions=(bias(*FLOATS, "int32"),)),
    "ARG_MAX": Rule(FLOATS | EIGHT_BITS | {"int32"}, (rank(0, 4),)),
}
_ir |= kinds(
    """BITCAST BITWISE_XOR DYNAMIC_UPDATE_SLICE EMBEDDING_LOOKUP LOGICAL_AND LOGICAL_NOT LOGICAL_OR
    REDUCE_ALL REDUCE_ANY STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CBRT STABLEHLO_CLAMP
    STABLEHLO_COMPOSITE STABLEHLO_REMAINDER STABLEHLO_SHIFT_LEFT""",
    Rule(ANY | {"bool"}, (NOT_READ,)),
)
_ir = with_conditions(_ir, _ACTIVATED, fused("relu", "relu6", "relu_n1_to_1", "tanh", "sign_bit"))
_ir = with_conditions(_ir, ["SOFTMAX"], beta_one)
_ir = with_conditions(_ir, _reductions, constant_axes)
_ir = with_conditions(_ir, ["RESIZE_BILINEAR"], one_corner_rule)
_ir = with_conditions(
    _ir, ["STRIDED_SLICE"], rank(0, 4),
    no_masks("ellipsis_mask", "new_axis_mask", "shrink_axis_mask"),
)  # fmt: skip

GPU_IR = Target(
    "gpu-ir",
    "Phone GPU, ML Drift's new pipeline (use_ir_model, off by default)",
    TREE + "ml_drift_delegate/tflite/support",
    READ,
    _ir,
    UNLISTED,
    REFUSED,
    dtypes=FLOATS | EIGHT_BITS,
    pieces="one",
    remedies=REMEDIES
    | dict.fromkeys(
        ("CONV_2D", "DEPTHWISE_CONV_2D"),
        "it takes no int8 convolution with an int32 bias: give it the float16 file",
    ),
    custom=CUSTOM,
    note=QUANTIZED_NOTE,
)
