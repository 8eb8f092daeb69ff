"""`targets`: which operators of a .tflite file each target supports, by its published list."""

import collections
import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kzoo.tflite.inspect.targets.edgetpu import EDGE_TPU
from kzoo.tflite.inspect.targets.gpu import GPU, GPU_IR
from kzoo.tflite.inspect.targets.micro import MICRO
from kzoo.tflite.inspect.targets.npu import MEDIATEK, QUALCOMM, TENSOR
from kzoo.tflite.inspect.targets.rules import Answer, Operation, Target
from kzoo.tflite.inspect.targets.web import WASM, WEBGPU
from kzoo.tflite.inspect.targets.xnnpack import CPU
from kzoo.weights.readers.flatbuffer import TfliteGraph, TfliteModel, TfliteOperator, read_tflite

TARGETS: Mapping[str, Target] = {
    target.key: target
    for target in (
        CPU, GPU, GPU_IR, QUALCOMM, MEDIATEK, TENSOR, EDGE_TPU, WASM, WEBGPU, MICRO,
    )
}  # fmt: skip
GROUPS = {"npu": ("qualcomm", "mediatek", "tensor"), "web": ("wasm", "webgpu"), "all": (*TARGETS,)}


@dataclasses.dataclass(frozen=True)
class Finding:
    """An operator that a target does not support, or about which its list is unclear."""

    index: int  # in the file's order
    kind: str
    layer: str  # the model's layer that it came from
    reason: str

    def __str__(self) -> str:
        return f"{self.index} {self.kind} ({self.layer}) {self.reason}".rstrip()


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a target supports a file, by its published operator list. No device was used."""

    target: Target
    operators: int  # number of operators in the file
    refused: tuple[Finding, ...]  # unsupported operators
    unknown: tuple[Finding, ...]  # operators that may be supported
    partitions: int  # partitions of the file that run on the target, unknown operators included
    taken: int  # number of operators that run on the target
    input: str  # why the target does not support the input's dtype, or ""

    @property
    def answer(self) -> str:
        """Whether the file runs on the target: "yes", "partly", "no" or "unknown"."""
        if self.input:
            return "no"
        if self.refused:
            nothing = not self.taken or self.target.key == "micro"
            return "no" if nothing else "partly"
        return "unknown" if self.unknown else "yes"

    @property
    def sentence(self) -> str:
        """The verdict as a sentence."""
        if self.input:
            return f"Cannot be fed: {self.input}."
        if self.answer == "unknown":
            return f"Unknown for {len(self.unknown)} of {self.operators} operators: {self.why}."
        if not self.refused:
            return f"Takes every operator, {self.operators} of them."
        parts = f"{self.partitions} partition" + ("s" if self.partitions != 1 else "")
        return (
            f"Refuses {len(self.refused)} of {self.operators} operators, takes {self.taken} in "
            f"{parts}: {self.why}."
        )

    @property
    def why(self) -> str:
        """The refused, or else the unknown operators by kind and reason, with their first layer."""
        groups = collections.defaultdict(list)
        for finding in self.refused:
            groups[f" {finding.kind}", finding.reason].append(finding.layer)
        for finding in () if self.refused else self.unknown:
            groups["", finding.reason].append(finding.layer)
        return "; ".join(
            f"{len(layers) if kind else ''}{kind} {reason}".strip()
            + f" ({layers[0]}{' and others' if len(layers) > 1 else ''})"
            for (kind, reason), layers in groups.items()
        )

    @property
    def advice(self) -> tuple[str, ...]:
        """Sentences on what to do, and what happens otherwise."""
        if self.input:
            return (f"Convert with --io {' or '.join(sorted(self.target.inputs))}.",)
        if not self.refused:
            return ()
        kinds = dict.fromkeys(finding.kind for finding in self.refused)
        remedies = self.target.remedies
        found = dict.fromkeys(remedies.get(kind, remedies.get("", "")) for kind in kinds)
        return tuple(f"{text[0].upper()}{text[1:]}." for text in (*found, self.target.otherwise)
                     if text)  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as a dict for JSON."""
        refused = [str(finding) for finding in self.refused]
        return {
            "target": self.target.key, "answer": self.answer, "sentence": self.sentence,
            "refused": refused, "advice": self.advice,
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [f"{self.target.title}: {self.sentence}", *(f"  {text}" for text in self.advice)]
        return "\n".join([*lines, f"  By {self.target.source} ({self.target.read}), not run."])


def chosen(names: str | Iterable[str] = "all") -> tuple[Target, ...]:
    """Return the targets of names or groups of `GROUPS`; raise ValueError for an unknown name."""
    names = (names,) if isinstance(names, str) else tuple(names)
    keys = dict.fromkeys(key for name in names for key in GROUPS.get(name, (name,)))
    for key in keys:
        if key not in TARGETS:
            raise ValueError(
                f"There is no target {key!r}. Choose one of {', '.join((*TARGETS, *GROUPS))}."
            )
    return tuple(TARGETS[key] for key in keys)


def targets(
    file: str | os.PathLike[str] | TfliteModel, names: str | Iterable[str] = "all"
) -> tuple[Verdict, ...]:
    """Return a verdict on a .tflite file for each target.

        for verdict in kzoo.tflite.targets("model.tflite", "npu"):
            print(verdict)

    file: a path, or the result of `read_tflite`.
    names: targets or groups: "cpu", "gpu", "gpu-ir", "qualcomm", "mediatek", "tensor", "edgetpu",
        "wasm", "webgpu", "micro"; "npu", "web", "all".

    Raises ValueError for a damaged file and an unknown target.
    """
    model = file if isinstance(file, TfliteModel) else read_tflite(Path(file))
    return tuple(verdict(model, target) for target in chosen(names))


def verdict(model: TfliteModel, target: Target) -> Verdict:
    """Return the verdict of one target on a file."""
    graph = model.graphs[0]
    known = computed(graph)
    answers = {
        i: target.answer(Operation(model, graph, op, known))
        for i, op in enumerate(graph.operators)
        if not (target.float16_weights and is_constant(op, known))
    }
    pieces = partitions(graph, {i for i, a in answers.items() if a.support != "no"})
    sizes = [len(piece & answers.keys()) for piece in pieces]
    kept = {"all": sizes, "one": [max(sizes, default=0)], "first": sizes[:1]}[target.pieces]
    dtype = graph.tensors[graph.inputs[0]].dtype if graph.inputs else ""
    wrong = target.inputs and dtype not in target.inputs
    return Verdict(
        target,
        len(answers),
        findings(graph, answers, "no"),
        findings(graph, answers, "unknown"),
        len(pieces),
        sum(kept),
        f"the input is {dtype}" if wrong else "",
    )


def findings(
    graph: TfliteGraph, answers: Mapping[int, Answer], support: str
) -> tuple[Finding, ...]:
    return tuple(
        Finding(i, graph.operators[i].name, layer(graph, graph.operators[i]), answer.reason)
        for i, answer in answers.items()
        if answer.support == support
    )


def layer(graph: TfliteGraph, op: TfliteOperator) -> str:
    """Return the model's layer that an operator came from, by the name of its output.

    Model/row3_expand/convolution -> row3_expand. A name without slashes stays as it is.
    """
    name = graph.tensors[op.outputs[0]].name.partition(";")[0] if op.outputs else ""
    model, *parts = name.split("/")
    inside = [part for part in parts if part != model] or [model]
    inside = inside[:-1] or inside
    return re.sub(r"_\d+$", "", "/".join(inside)) or "no name"


def computed(graph: TfliteGraph) -> frozenset[int]:
    """Return the indices of the tensors that depend on the input."""
    known = set(graph.inputs)
    for op in graph.operators:
        if known.intersection(op.inputs):
            known.update(op.outputs)
    return frozenset(known)


def is_constant(op: TfliteOperator, known: frozenset[int]) -> bool:
    """Return whether an operator only dequantizes constants, such as float16 weights."""
    return op.name == "DEQUANTIZE" and not known.intersection(op.outputs)


def partitions(graph: TfliteGraph, accepted: set[int]) -> list[set[int]]:
    """Return the partitions that a delegate runs, each as large as data dependencies allow.

    LiteRT's algorithm: alternately take all accepted operators whose inputs are ready, then all
    others. Operators on constants alone are ready from the start and belong to no partition.
    """
    known = computed(graph)
    waiting = [i for i, op in enumerate(graph.operators) if known.intersection(op.outputs)]
    ready = set(range(len(graph.tensors))) - known | set(graph.inputs) | {-1}
    pieces: list[set[int]] = []
    while waiting:
        start = next((i for i in waiting if ready.issuperset(graph.operators[i].inputs)), None)
        if start is None:
            break  # a damaged file: no operator is ready
        wanted, piece = start in accepted, set[int]()
        while more := [
            i for i in waiting
            if i not in piece and (i in accepted) == wanted
            and ready.issuperset(graph.operators[i].inputs)
        ]:  # fmt: skip
            piece.update(more)
            for i in more:
                ready.update(graph.operators[i].outputs)
        waiting = [i for i in waiting if i not in piece]
        if wanted:
            pieces.append(piece)
    return pieces
