"""Google's Edge TPU (Coral): the operator table of its documentation.

The table is of 2022, and the compiler has had no release since. The copy at Axis, whose cameras
contain an Edge TPU, has the same operators with the limits given here:
https://developer.axis.com/computer-vision/on-device/system-on-chip/artpec-7/supported-ops/
"""

from kzoo.tflite.inspect.targets.conditions import (
    channels_by_four,
    depends,
    fused,
    keeps_batch,
    no_masks,
    same_dilation,
    unit_strides,
    vector_of_at_most,
)
from kzoo.tflite.inspect.targets.gpu import UNLISTED
from kzoo.tflite.inspect.targets.rules import EIGHT_BITS, Rule, Target, kinds, with_conditions

_rules = kinds(
    """ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED
    L2_NORMALIZATION LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE
    REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR
    RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH
    TRANSPOSE TRANSPOSE_CONV""",
    Rule(EIGHT_BITS),
)
_rules = with_conditions(_rules, ["AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION"], fused())
_rules = with_conditions(_rules, ["CONV_2D", "DEPTHWISE_CONV_2D"], same_dilation)
_rules = with_conditions(_rules, ["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"], keeps_batch)
_rules = with_conditions(_rules, ["MEAN", "SUM"], channels_by_four)
_rules = with_conditions(
    _rules, ["STRIDED_SLICE"], unit_strides, no_masks("ellipsis_mask", "new_axis_mask")
)
_rules = with_conditions(_rules, ["SOFTMAX"], vector_of_at_most(16_000))
_rules = with_conditions(
    _rules, ["RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"],
    depends("it may stay on the CPU, depending on the sizes"),
)  # fmt: skip

EDGE_TPU = Target(
    "edgetpu",
    "Edge TPU (Coral)",
    "https://coral.ai/docs/edgetpu/models-intro/#supported-operations",
    "2022, read 2026-11-28",
    _rules,
    UNLISTED,
    "edgetpu_compiler ends its one part there, and what follows runs on the CPU",
    dtypes=EIGHT_BITS,
    inputs=EIGHT_BITS,
    float16_weights=False,
    pieces="first",
    remedies={
        "HARD_SWISH": "write the file with kzoo convert --target edgetpu, which splits hard-swish",
        "ARG_MAX": "let the file end in the logits, and take the largest on the CPU",
        "": "make the file int8 throughout: kzoo convert --target edgetpu",
    },
)
