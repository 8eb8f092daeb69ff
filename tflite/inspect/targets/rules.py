"""Rules of a target's published operator list, and their application to an operator of a file."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np

from kzoo.weights.readers.flatbuffer import (
    TfliteGraph,
    TfliteModel,
    TfliteOperator,
    TfliteTensor,
)

FLOATS = frozenset({"float32", "float16"})
EIGHT_BITS = frozenset({"int8", "uint8"})
INTEGERS = frozenset({"int8", "int16", "int32"})


@dataclasses.dataclass(frozen=True)
class Answer:
    """Whether a target supports an operator; "unknown" if its list does not say or it depends."""

    support: Literal["yes", "no", "unknown"]
    reason: str = ""


YES = Answer("yes")


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operator of a file, with the queries that conditions need."""

    model: TfliteModel
    graph: TfliteGraph
    op: TfliteOperator
    computed: frozenset[int]  # tensors that depend on the input

    def activations(self) -> list[TfliteTensor]:
        """Return the tensors it reads or writes that depend on the model's input."""
        ends = (*self.op.inputs, *self.op.outputs)
        return [self.graph.tensors[i] for i in ends if i in self.computed]

    def input(self, place: int) -> TfliteTensor | None:
        """Return the input at index `place`; None if it is missing."""
        if place >= len(self.op.inputs) or self.op.inputs[place] < 0:
            return None
        return self.graph.tensors[self.op.inputs[place]]

    def constant(self, place: int) -> np.ndarray | None:
        """Return the values of the constant input at index `place`; None if it is not constant."""
        tensor = self.input(place)
        return None if tensor is None else self.model.array(tensor)

    def option(self, name: str, default: Any = None) -> Any:
        return self.op.options.get(name, default)


Condition = Callable[[Operation], Answer | None]  # None if the operator meets it


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which operators of a kind a target supports.

    dtypes: allowed dtypes of activations. None: those of the target.
    """

    dtypes: frozenset[str] | None = None
    conditions: tuple[Condition, ...] = ()


@dataclasses.dataclass(frozen=True)
class Target:
    """A runtime or device, with the rules of its published operator list.

    rules: by operator kind.
    dtypes: allowed dtypes of activations, for rules without their own. None: not stated.
    unlisted: the answer for an operator that is not in `rules`.
    custom: rules of custom operators, by name; others are not supported.
    inputs: allowed dtypes of the file's input; empty if not stated.
    float16_weights: whether a DEQUANTIZE of float16 constants is supported and free.
    pieces: which partitions of supported operators run on the target: "all", "one" (the largest)
        or "first".
    otherwise: what happens with an unsupported operator.
    remedies: what to do, by unsupported operator; "" for all others.
    """

    key: str
    title: str
    source: str
    read: str  # date of the source, or when it was read where it has none
    rules: Mapping[str, Rule]
    unlisted: Answer
    otherwise: str
    dtypes: frozenset[str] | None = None
    inputs: frozenset[str] = frozenset()
    float16_weights: bool = True
    pieces: Literal["all", "one", "first"] = "all"
    remedies: Mapping[str, str] = dataclasses.field(default_factory=dict)
    custom: Mapping[str, Rule] = dataclasses.field(default_factory=dict)
    note: str = ""

    def answer(self, operation: Operation) -> Answer:
        """Return the answer for one operator."""
        op = operation.op
        rule = (self.custom if op.custom else self.rules).get(op.name)
        if rule is None:
            return Answer("no", "custom operator") if op.custom else self.unlisted
        allowed = self.dtypes if rule.dtypes is None else rule.dtypes
        wrong = sorted({t.dtype for t in operation.activations()} - (allowed or set()))
        if wrong and allowed is not None:
            return Answer("no", f"of {', '.join(wrong)}")
        answers = [answer for condition in rule.conditions if (answer := condition(operation))]
        refusals = [answer for answer in answers if answer.support == "no"]
        return (refusals or answers or [YES])[0]


def kinds(text: str, rule: Rule = Rule()) -> dict[str, Rule]:
    """Return {operator: rule} for a text of operator names separated by spaces."""
    return dict.fromkeys(text.split(), rule)


def with_conditions(
    rules: Mapping[str, Rule], names: Iterable[str], *more: Condition
) -> dict[str, Rule]:
    """Return the rules with further conditions on the operators `names`."""
    changed = {
        name: dataclasses.replace(rules[name], conditions=rules[name].conditions + more)
        for name in names
    }
    return {**rules, **changed}
