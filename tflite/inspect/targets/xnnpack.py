"""CPUs: the operators that XNNPACK supports, by the source of its delegate for x86 and ARM.

Read in google-ai-edge/LiteRT at commit f6745779, 2026-08-21. Tests compare this table with the
operators that XNNPACK runs (`audit`), on x86 and, in tests/clients, on ARM.
"""

from kzoo.tflite.inspect.targets.conditions import (
    NOT_READ,
    beta_one,
    constant_axes,
    depends,
    dtype_pairs,
    fused,
    has_bias,
    inputs,
    no_masks,
    not_hybrid,
    same_dtypes,
    unit_strides,
)
from kzoo.tflite.inspect.targets.gpu import READ, TREE, UNLISTED
from kzoo.tflite.inspect.targets.rules import (
    EIGHT_BITS,
    FLOATS,
    Rule,
    Target,
    kinds,
    with_conditions,
)

# VisitUnaryNode, VisitBinaryNode, and the others' CheckTensorFloatType
_floats = kinds(
    """ABS AVERAGE_POOL_2D CEIL COS DIV EXP FLOOR GELU HARD_SWISH LOG MAXIMUM MINIMUM NEG PRELU RELU
    RELU6 RELU_N1_TO_1 ROUND RSQRT SIN SOFTMAX SQRT SQUARE SQUARED_DIFFERENCE""",
    Rule(FLOATS),
)
_both = kinds(
    """ADD BATCH_MATMUL CONCATENATION CONV_2D DEPTH_TO_SPACE DEPTHWISE_CONV_2D EXPAND_DIMS
    FULLY_CONNECTED LEAKY_RELU LOGISTIC MAX_POOL_2D MEAN MUL PAD REDUCE_MAX REDUCE_MIN RESHAPE
    RESIZE_BILINEAR SLICE SPACE_TO_DEPTH SPLIT STRIDED_SLICE SUB SUM TANH TRANSPOSE
    TRANSPOSE_CONV""",
    Rule(conditions=(same_dtypes,)),
)
_to_int8 = [("float32", "int8"), ("float32", "uint8"), ("int8", "int8"), ("uint8", "uint8")]
_rules = {
    **_floats,
    **_both,
    "DEQUANTIZE": Rule(conditions=(dtype_pairs(("int8", "float32"), ("uint8", "float32")),)),
    "ELU": Rule(FLOATS | {"int8"}),
    "QUANTIZE": Rule(conditions=(dtype_pairs(*_to_int8),)),
}
_rules |= kinds(
    "ASSIGN_VARIABLE DENSIFY READ_VARIABLE STABLEHLO_COMPOSITE VAR_HANDLE",
    Rule(conditions=(NOT_READ,)),
)
_ACTIVATED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL", "DIV",
              "AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION")  # fmt: skip
_rules = with_conditions(_rules, _ACTIVATED, fused("relu", "relu6", "relu_n1_to_1"))
_rules = with_conditions(_rules, ["CONV_2D", "DEPTHWISE_CONV_2D"], has_bias)
_rules = with_conditions(_rules, ["DEPTHWISE_CONV_2D"], not_hybrid)
_rules = with_conditions(_rules, ["SOFTMAX"], beta_one)
_rules = with_conditions(_rules, ["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"], constant_axes)
_rules = with_conditions(_rules, ["CONCATENATION"], inputs(2, 5))
_rules = with_conditions(
    _rules, ["STRIDED_SLICE"], unit_strides,
    no_masks("ellipsis_mask", "new_axis_mask", "shrink_axis_mask"),
)  # fmt: skip

REMEDIES = {
    "HARD_SWISH": "XNNPACK has no int8 HARD_SWISH: kzoo convert --target cpu splits it (V3-Large "
    "1.7 ms in place of 6.8)",
    "AVERAGE_POOL_2D": "XNNPACK has no int8 AVERAGE_POOL_2D: take a GlobalAveragePooling2D, which "
    "becomes MEAN",
    "SOFTMAX": "an int8 SOFTMAX runs outside: let it be float32, as kzoo convert does",
    "": "they run on slower kernels on one thread; see `advice`",
}

CPU = Target(
    "cpu",
    "CPU, x86 and ARM (LiteRT with XNNPACK)",
    TREE + "tflite/delegates/xnnpack/xnnpack_delegate.cc",
    READ,
    _rules,
    UNLISTED,
    "they run on LiteRT's own kernels, which are slower",
    dtypes=FLOATS | EIGHT_BITS,
    remedies=REMEDIES,
    custom=kinds(  # VisitMediaPipeDeconvolutionNode and similar functions
        "Convolution2DTransposeBias MaxPoolingWithArgmax2D MaxUnpooling2D",
        Rule(FLOATS, (depends("it runs where the app brings it along, as MediaPipe does"),)),
    ),
)
