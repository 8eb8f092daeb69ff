"""Advice on what keeps a file from running fast on a CPU."""

import dataclasses
from collections.abc import Iterator, Sequence

from kzoo.tflite.xnnpack import largest_value, remedy, weights_of
from kzoo.weights.readers.flatbuffer import TfliteGraph

KNOWN_CUSTOM = ("TFLite_Detection_PostProcess",)  # included in LiteRT and MediaPipe


@dataclasses.dataclass(frozen=True)
class Facts:
    """The properties of a file that advice is based on."""

    graph: TfliteGraph
    computed: frozenset[int]  # tensors that depend on the input
    float_ops: tuple[str, ...]
    outside: Sequence[int] | None  # operators outside XNNPACK; None if the file was not run
    risks: tuple[str, ...]
    per_channel: tuple[int, int]
    custom_ops: tuple[str, ...]
    flex_ops: tuple[str, ...]


def advice(facts: Facts) -> Iterator[str]:
    """Yield a sentence for each problem of a file, with what to do about it."""
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
            "Scales are out of XNNPACK's bounds: LiteRT 2.3 refuses the file, or dies of it. "
            f"{remedy(largest_value(graph))}"
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
    explained = {i for i in facts.outside or () if names[i] == "HARD_SWISH"}.union(mixed)
    left = [names[i] for i in facts.outside or () if i not in explained]
    if left:
        many = f"{len(left)} operators run" if len(left) > 1 else "1 operator runs"
        does = " Flatten or Reshape in place of a squeeze makes RESHAPE, which XNNPACK takes."
        yield (
            f"{many} outside XNNPACK, on slower kernels: {', '.join(sorted(set(left)))}."
            f"{does if 'SQUEEZE' in left else ''}"
        )
    if facts.flex_ops:
        yield "Flex operators need TensorFlow in the app (some 25 MB): replace those layers."
    if unknown := [name for name in facts.custom_ops if name.split()[1] not in KNOWN_CUSTOM]:
        yield f"Custom operators run only where the app registers them: {', '.join(unknown)}."


def op_dtypes(graph: TfliteGraph, facts: Facts, index: int) -> set[str]:
    op = graph.operators[index]
    return {graph.tensors[t].dtype for t in op.outputs if t in facts.computed}


def is_quantized(dtypes: set[str]) -> bool:
    return bool(dtypes & {"int8", "uint8", "int16"})
