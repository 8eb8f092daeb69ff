"""How a file is written for the place where it will run: scheme, input, and form of hard-swish."""

import dataclasses
from typing import Literal

from kzoo.arguments import one_of
from kzoo.tflite.inspect.targets.verdicts import Verdict, targets
from kzoo.weights.readers.flatbuffer import TfliteModel


@dataclasses.dataclass(frozen=True)
class Form:
    """A way to write a file.

    outputs: dtype of quantized outputs; "int8" leaves no operator on floats.
    lists: the targets (`kzoo.tflite.targets`) that it is written for.
    float_first: whether a uint8 input becomes int8 by way of float32, see `finish.float_first`.
    needs_all: whether a file of which a target refuses an operator is of no use.
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
    """The form for a target. Raises ValueError for one that there is not."""
    one_of("target", target, tuple(FORMS))
    return FORMS[target]


def require_fit(content: TfliteModel, target: str) -> tuple[Verdict, ...]:
    """The verdicts on a file that is written for `target`.

    Raises ValueError where it is of no use there, with the operators that are refused.
    """
    verdicts = targets(content, FORMS[target].lists)
    refusals = [f"{v.target.title}: {v.sentence}" for v in verdicts if v.answer in ("no", "partly")]
    if FORMS[target].needs_all and refusals:
        raise ValueError(f'The file does not fit target="{target}". {" ".join(refusals)}')
    return verdicts
