"""Targets of `convert`: scheme, input dtype and form of hard-swish for each place a file runs."""

import dataclasses
from typing import Literal

from kzoo.arguments import one_of
from kzoo.tflite.inspect.targets.verdicts import Verdict, targets
from kzoo.weights.readers.flatbuffer import TfliteModel


@dataclasses.dataclass(frozen=True)
class Form:
    """The settings of `convert` for one target.

    about: a description in words.
    lists: keys of `kzoo.tflite.targets` that the file is checked against.
    outputs: dtype of quantized outputs; with "int8" the file has no float operator.
    float_first: whether a uint8 input is converted to int8 through float32, which is faster in
        XNNPACK, see `kzoo.tflite.convert.finish.float_first`.
    needs_all: whether the target must support all operators, having no fallback.
    """

    about: str
    lists: tuple[str, ...]
    scheme: str = "int8"
    io: str = "uint8"
    hard_swish: Literal["split", "op"] = "split"
    outputs: Literal["float32", "int8"] = "float32"
    float_first: bool = False
    needs_all: bool = False


FORMS = {
    "cpu": Form(
        "int8, hard-swish split into operators that XNNPACK has", ("cpu",), float_first=True
    ),
    "gpu": Form(
        "float16 weights, because GPUs compute in float16; int8 would be no faster",
        ("gpu", "gpu-ir"),
        scheme="float16", io="float32",
    ),
    "npu": Form(
        "int8, hard-swish as the one operator that NPUs have", ("qualcomm", "mediatek", "tensor"),
        hard_swish="op",
    ),
    "web": Form("int8 for LiteRT.js on the CPU; for WebGPU use gpu", ("wasm",), float_first=True),
    "micro": Form(
        "int8 everywhere, also input and outputs", ("micro",),
        io="int8", outputs="int8", needs_all=True,
    ),
    "edgetpu": Form(
        "int8 everywhere, for edgetpu_compiler", ("edgetpu",), outputs="int8", needs_all=True
    ),
}  # fmt: skip


def form(target: str) -> Form:
    """Return the form for a target; raise ValueError for an unknown one."""
    one_of("target", target, tuple(FORMS))
    return FORMS[target]


def require_fit(content: TfliteModel, target: str) -> tuple[Verdict, ...]:
    """Return the verdicts on a file that is written for `target`.

    Raises ValueError, with the unsupported operators, if the target needs all of them.
    """
    verdicts = targets(content, FORMS[target].lists)
    refusals = [f"{v.target.title}: {v.sentence}" for v in verdicts if v.answer in ("no", "partly")]
    if FORMS[target].needs_all and refusals:
        raise ValueError(f'The file does not fit target="{target}". {" ".join(refusals)}')
    return verdicts
