"""What a .tflite file computes, in which numbers, and what of it XNNPACK takes.

The file is read with bounds checked first; only then is it opened, in a process of its own.
"""

import collections
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from kzoo.flatbuffer import TfliteGraph, TfliteModel, TfliteOperator, TfliteTensor, read_tflite
from kzoo.tflite.limits import LINEAR, risks
from kzoo.tflite.metadata import Metadata, read_metadata
from kzoo.tflite.run import Port, Trial, port, trial

# What may follow the last quantized tensor in float32: in int8 it loses much and gains little.
LAST = {"SOFTMAX", "LOGISTIC", "RESHAPE", "DEQUANTIZE", "TFLite_Detection_PostProcess"}
QUANTIZED = {"int8", "uint8", "int16", "int4"}


@dataclasses.dataclass(frozen=True)
class Audit:
    """Operators are named "12 CONV_2D": the place in the file's order, and the kind."""

    path: Path
    bytes: Mapping[str, int]  # "weights", "biases", "other", "structure"; together the file
    operators: tuple[str, ...]  # kinds, in the order they run
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    signatures: tuple[str, ...]
    float_ops: tuple[
        str, ...
    ]  # that compute in floats; not counting LAST after the last quantized one
    tail: tuple[str, ...]  # those LAST ones
    custom_ops: tuple[str, ...]
    flex_ops: tuple[str, ...]
    per_channel: tuple[int, int]  # weights with a scale for each output channel, quantized weights
    metadata: Metadata | None
    risks: tuple[str, ...]  # operators whose scales XNNPACK does not take
    run: Trial | None  # None if it was not tried, or failed
    failure: str | None  # why it could not be run

    @property
    def census(self) -> dict[str, int]:
        """How many operators there are of each kind, the most frequent first."""
        return dict(collections.Counter(self.operators).most_common())

    @property
    def partitions(self) -> int | None:
        """How many pieces XNNPACK cuts the file into; None if it was not tried."""
        return self.run.partitions if self.run else None

    @property
    def outside(self) -> tuple[str, ...]:
        """Operators that XNNPACK leaves to slower kernels."""
        return tuple(f"{i} {self.operators[i]}" for i in self.run.outside) if self.run else ()

    def __str__(self) -> str:
        return "\n".join(f"{key:<12} {text}" for key, text in self._lines() if text)

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
        yield "failure", self.failure or ""


def listed(names: tuple[str, ...], most: int = 12) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def audit(path: str | os.PathLike, *, run: bool = True) -> Audit:
    """Read a .tflite file and, with `run`, open and invoke it once in a process of its own.

    Raises ValueError for a damaged file. One that is sound but cannot be run is told by `failure`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    model = read_tflite(path)
    graph = model.graphs[0]
    floats, tail = float_operators(model, graph)
    tried, failure = None, None
    if run:
        try:
            tried = trial(path)
        except ValueError as error:
            failure = str(error)
    custom = tuple(named(i, op) for i, op in enumerate(graph.operators) if op.custom)
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
        custom_ops=tuple(name for name in custom if " Flex" not in name),
        flex_ops=tuple(name for name in custom if " Flex" in name),
        per_channel=channelwise(model, graph),
        metadata=read_metadata(path),
        risks=tuple(risks(graph)),
        run=tried,
        failure=failure,
    )


def named(index: int, operator: TfliteOperator) -> str:
    return f"{index} {operator.name}"


def constant(model: TfliteModel, tensor: TfliteTensor) -> bool:
    return tensor.buffer != 0 and model.buffers[tensor.buffer].nbytes > 0


def computed(model: TfliteModel, graph: TfliteGraph) -> set[int]:
    """Tensors that depend on the input: not constants, nor float16 constants made float32."""
    known = set(graph.inputs)
    for op in graph.operators:
        if known.intersection(op.inputs):
            known.update(op.outputs)
    return known


def float_operators(
    model: TfliteModel, graph: TfliteGraph
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(Operators that compute floats, those of them that only finish the outputs)."""
    known, floats, last_quantized = computed(model, graph), [], -1
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
    kinds: dict[int, str] = {}  # of buffers, which tensors may share
    for graph in model.graphs:
        origin = {op.outputs[0]: op.inputs[0] for op in graph.operators if op.name == "DEQUANTIZE"}
        for op in graph.operators:
            for place, index in enumerate(op.inputs):
                kind = {1: "weights", 2: "biases"}.get(place, "other")
                index = origin.get(index, index)  # float16 weights pass through a DEQUANTIZE
                if op.name in LINEAR and index >= 0:
                    kinds.setdefault(graph.tensors[index].buffer, kind)
    result = dict.fromkeys(("weights", "biases", "other"), 0)
    for i, content in enumerate(model.buffers):
        result[kinds.get(i, "other")] += content.nbytes
    return result | {"structure": size - sum(result.values())}


def channelwise(model: TfliteModel, graph: TfliteGraph) -> tuple[int, int]:
    weights = [graph.tensors[op.inputs[1]] for op in graph.operators if op.name in LINEAR]
    quantized = [w for w in weights if w.scales and constant(model, w)]
    return sum(len(w.scales) > 1 for w in quantized), len(quantized)
