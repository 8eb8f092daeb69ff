"""`audit`: the operators, dtypes and metadata of a .tflite file, and which operators XNNPACK runs.

The file is parsed with bounds checked first; only then is it run, in a separate process.
"""

import collections
import dataclasses
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kzoo.tflite.inspect.advice import Facts, advice
from kzoo.tflite.inspect.targets.verdicts import Verdict, computed, targets
from kzoo.tflite.metadata.reading import Metadata, read_metadata
from kzoo.tflite.ports import Port, port
from kzoo.tflite.runtime.trial import Trial, trial
from kzoo.tflite.xnnpack import LINEAR, largest_value, remedy, risks, weights_of
from kzoo.weights.readers.flatbuffer import (
    TfliteGraph,
    TfliteModel,
    TfliteOperator,
    TfliteTensor,
    read_tflite,
)

# Operators that may run in float32 after the last quantized tensor, where int8 costs accuracy.
LAST = {
    "SOFTMAX", "LOGISTIC", "RESHAPE", "STRIDED_SLICE", "DEQUANTIZE", "TFLite_Detection_PostProcess",
}  # fmt: skip
QUANTIZED = {"int8", "uint8", "int16", "int4"}


@dataclasses.dataclass(frozen=True)
class Audit:
    """The result of `audit`. Single operators are named by index and kind, such as "12 CONV_2D"."""

    path: Path
    bytes: Mapping[str, int]  # by "weights", "biases", "other", "structure"; their sum is the file
    operators: tuple[str, ...]  # kinds, in execution order
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    signatures: tuple[str, ...]
    float_ops: tuple[str, ...]  # operators that compute in float, except `tail`
    tail: tuple[str, ...]  # float operators after the last quantized one, such as SOFTMAX
    float_tensors: tuple[str, ...]  # intermediate float activations
    conversions: tuple[int, int]  # number of QUANTIZE and DEQUANTIZE operators on activations
    custom_ops: tuple[str, ...]
    flex_ops: tuple[str, ...]
    per_channel: tuple[int, int]  # number of (per-channel quantized, all quantized) weights
    metadata: Metadata | None
    risks: tuple[str, ...]  # operators whose scales are outside XNNPACK's limits
    largest: float  # largest magnitude in the ranges of 8-bit activations; 0 without any
    run: Trial | None  # None if it was not run, or failed
    failure: str | None  # why it could not be run
    targets: tuple[Verdict, ...]  # by the targets' published operator lists, see `targets`
    advice: tuple[str, ...]  # problems and what to do about them

    @property
    def census(self) -> dict[str, int]:
        """The number of operators of each kind, the most frequent first."""
        return dict(collections.Counter(self.operators).most_common())

    @property
    def partitions(self) -> int | None:
        """The number of XNNPACK partitions; None if the file was not run."""
        return self.run.partitions if self.run else None

    @property
    def outside(self) -> tuple[str, ...]:
        """Operators that XNNPACK does not run; empty if the file was not run."""
        return tuple(f"{i} {self.operators[i]}" for i in self.run.outside) if self.run else ()

    @property
    def verdict(self) -> str:
        """A sentence that says how well the file runs and what to do next."""
        if self.failure:
            return f"This file cannot be run: {self.failure}"
        if self.risks:
            return "Do not ship this file: its scales can kill a process that runs it. See advice."
        if self.flex_ops:
            return "This file runs only where all of TensorFlow is in the app. See advice."
        runs = "This file was read and not run"
        if self.run:
            pieces = f"{self.partitions} pieces" if self.partitions != 1 else "one piece"
            pieces = pieces if self.partitions else "operators outside XNNPACK alone"
            runs = f"This file runs on the CPU in {pieces}"
        if self.advice:
            return f"{runs}, and could run better: see advice below."
        file = shlex.quote(str(self.path))
        return f"{runs}, and there is nothing to improve. Next: kzoo benchmark {file}"

    @property
    def table(self) -> str:
        """The content of the file, one property per line."""
        return "\n".join(f"{key:<12} {text}" for key, text in self._lines() if text)

    def __str__(self) -> str:
        return f"{self.verdict}\n\n{self.table}"

    def as_json(self) -> dict[str, Any]:
        """Return the fields, with the verdict, and the targets' verdicts without their lists."""
        targets = {verdict.target.key: verdict.as_json() for verdict in self.targets}
        return {"verdict": self.verdict, **vars(self), "targets": targets}

    def _lines(self) -> Iterator[tuple[str, str]]:
        size = sum(self.bytes.values())
        yield "file", f"{self.path.name}, {size:,} bytes"
        yield "bytes", ", ".join(f"{key} {n:,}" for key, n in self.bytes.items())
        for key, ports in (("input", self.inputs), ("output", self.outputs)):
            for end in ports:
                yield key, str(end)
        yield "signatures", ", ".join(self.signatures) or "none"
        census = ", ".join(f"{n} {kind}" for kind, n in self.census.items())
        yield "operators", f"{len(self.operators)}: {census}"
        yield "float", listed(self.float_ops)
        yield "float tail", listed(self.tail)
        yield "conversions", "{} QUANTIZE, {} DEQUANTIZE".format(*self.conversions)
        yield "custom", listed(self.custom_ops)
        yield "flex", listed(self.flex_ops)
        channelwise, quantized = self.per_channel
        yield (
            "weights",
            f"{channelwise} of {quantized} per channel" if quantized else "not quantized",
        )
        yield "metadata", str(self.metadata) if self.metadata else "none"
        yield "risks", listed(self.risks)
        if self.run:
            yield (
                "XNNPACK",
                f"{self.run.partitions} partition(s), {len(self.outside)} operators outside",
            )
            yield "outside", listed(self.outside)
        for verdict in self.targets:
            yield verdict.target.key, verdict.sentence
        yield "failure", self.failure or ""
        for words in self.advice:
            yield "advice", words


def listed(names: tuple[str, ...], most: int = 12) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def audit(path: str | os.PathLike[str], *, run: bool = True) -> Audit:
    """Return the operators, dtypes, metadata and problems of a .tflite file.

        print(kzoo.tflite.audit("model.tflite"))

    run: also invoke it once, in a separate process, to see which operators XNNPACK runs.

    Raises FileNotFoundError, and ValueError for a damaged file. If an intact file cannot be run,
    `failure` of the result says why.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    model = read_tflite(path)
    graph = model.graphs[0]
    known = computed(graph)
    floats, tail = float_operators(graph, known)
    tried, failure = None, None
    if run:
        try:
            tried = trial(path)
        except ValueError as error:
            failure = str(error)
    custom = tuple(named(i, op) for i, op in enumerate(graph.operators) if op.custom)
    facts = Facts(
        graph=graph,
        computed=known,
        float_ops=floats,
        outside=tried.outside if tried else None,
        risks=tuple(risks(graph)),
        per_channel=channelwise(model, graph),
        custom_ops=tuple(name for name in custom if " Flex" not in name),
        flex_ops=tuple(name for name in custom if " Flex" in name),
    )
    return Audit(
        path=path,
        bytes=bytes_by_kind(model, path.stat().st_size),
        operators=tuple(op.name for op in graph.operators),
        inputs=tuple(port(graph.tensors[i].name, graph.tensors[i]) for i in graph.inputs),
        outputs=tuple(port(graph.tensors[i].name, graph.tensors[i]) for i in graph.outputs),
        signatures=tuple(
            f"{s.key}({', '.join(s.inputs)}) -> {', '.join(s.outputs)}" for s in model.signatures
        ),
        float_ops=floats,
        tail=tail,
        float_tensors=tuple(
            tensor.name
            for i, tensor in enumerate(graph.tensors)
            if i in known
            and tensor.dtype.startswith("float")
            and i not in (*graph.inputs, *graph.outputs)
        ),
        conversions=conversions(graph, known),
        custom_ops=facts.custom_ops,
        flex_ops=facts.flex_ops,
        per_channel=facts.per_channel,
        metadata=read_metadata(path),
        risks=facts.risks,
        largest=largest_value(graph),
        targets=targets(model),
        advice=tuple(advice(facts)),
        run=tried,
        failure=failure,
    )


def require_sound(found: Audit, name: Path, *, custom: str | None = None) -> None:
    """Raise ValueError if an audited file does not run, or not in every app.

    name: the file's final name, for the message. custom: the only custom operator allowed.
    """
    trouble = {
        "it has operators that are not built in": found.flex_ops
        + tuple(op for op in found.custom_ops if op.partition(" ")[2] != custom),
        "its scales are out of XNNPACK's bounds, which can kill the process that runs it": (
            found.risks
        ),
        "it does not run": (found.failure,) if found.failure else (),
        "it holds variables that are not frozen": tuple(
            kind for kind in found.census if kind in ("VAR_HANDLE", "READ_VARIABLE", "CALL_ONCE")
        ),
    }
    reasons = [f"{what}: {', '.join(map(str, which))}" for what, which in trouble.items() if which]
    if reasons:
        advice = f" {remedy(found.largest)}" if found.risks else ""
        raise ValueError(f"{name} was not written: {'; '.join(reasons)}.{advice}")


def named(index: int, operator: TfliteOperator) -> str:
    return f"{index} {operator.name}"


def constant(model: TfliteModel, tensor: TfliteTensor) -> bool:
    return tensor.buffer != 0 and model.buffers[tensor.buffer].nbytes > 0


def conversions(graph: TfliteGraph, known: frozenset[int]) -> tuple[int, int]:
    kinds = [op.name for op in graph.operators if known.intersection(op.outputs)]
    return kinds.count("QUANTIZE"), kinds.count("DEQUANTIZE")


def float_operators(
    graph: TfliteGraph, known: frozenset[int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (operators that compute floats, those after the last quantized one); disjoint."""
    floats, last_quantized = [], -1
    for i, op in enumerate(graph.operators):
        outputs = [graph.tensors[t].dtype for t in op.outputs if t in known]
        if any(dtype in QUANTIZED for dtype in outputs):
            last_quantized = i
        elif op.name not in ("DEQUANTIZE", "CAST") and any(d.startswith("float") for d in outputs):
            floats.append(i)
    name = {i: named(i, graph.operators[i]) for i in floats}
    if last_quantized < 0:
        return tuple(name.values()), ()
    tail = [i for i in floats if i > last_quantized and graph.operators[i].name in LAST]
    return tuple(name[i] for i in floats if i not in tail), tuple(name[i] for i in tail)


def bytes_by_kind(model: TfliteModel, size: int) -> dict[str, int]:
    """Return the bytes of weights, biases, other buffers and the structure of the file."""
    kinds: dict[int, str] = {}  # by buffer, which several tensors may share
    for graph in model.graphs:
        origin = {
            op.outputs[0]: op.inputs[0]
            for op in graph.operators
            if op.name == "DEQUANTIZE" and op.inputs and op.outputs
        }
        for op in (op for op in graph.operators if op.name in LINEAR):
            role = {LINEAR[op.name].weights: "weights", LINEAR[op.name].bias: "biases"}
            for place, index in enumerate(op.inputs):
                index = origin.get(index, index)  # float16 weights pass through a DEQUANTIZE
                if index >= 0:
                    kinds.setdefault(graph.tensors[index].buffer, role.get(place, "other"))
    result = dict.fromkeys(("weights", "biases", "other"), 0)
    for i, content in enumerate(model.buffers):
        result[kinds.get(i, "other")] += content.nbytes
    return result | {"structure": size - sum(result.values())}


def channelwise(model: TfliteModel, graph: TfliteGraph) -> tuple[int, int]:
    """Return the number of (per-channel quantized, all quantized) weights."""
    weights = [w for op in graph.operators if (w := weights_of(graph, op))]
    quantized = [w for w in weights if w.scales and constant(model, w)]
    return sum(len(w.scales) > 1 for w in quantized), len(quantized)
