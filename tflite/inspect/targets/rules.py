"""What a published list says of an operator, as data, and its answer for one operator of a file."""

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
    """ "yes" and "no" are what the list says; "unknown" where it says nothing or depends."""

    support: Literal["yes", "no", "unknown"]
    reason: str = ""


YES = Answer("yes")


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operator of a file, with what a rule asks of it."""

    model: TfliteModel
    graph: TfliteGraph
    op: TfliteOperator
    computed: frozenset[int]  # tensors that depend on the input

    def activations(self) -> list[TfliteTensor]:
        """The tensors that depend on the input, which it reads or writes."""
        ends = (*self.op.inputs, *self.op.outputs)
        return [self.graph.tensors[i] for i in ends if i in self.computed]

    def input(self, place: int) -> TfliteTensor | None:
        """The input at `place`; None where it is left out."""
        if place >= len(self.op.inputs) or self.op.inputs[place] < 0:
            return None
        return self.graph.tensors[self.op.inputs[place]]

    def constant(self, place: int) -> np.ndarray | None:
        """The values of the input at `place`; None where the graph computes it."""
        tensor = self.input(place)
        return None if tensor is None else self.model.array(tensor)

    def option(self, name: str, default: Any = None) -> Any:
        return self.op.options.get(name, default)


Condition = Callable[[Operation], Answer | None]  # None where it has nothing against the operator


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which operators of a kind a target takes.

    dtypes: of the tensors that depend on the input. None: those of the target.
    """

    dtypes: frozenset[str] | None = None
    conditions: tuple[Condition, ...] = ()


@dataclasses.dataclass(frozen=True)
class Target:
    """A place where a file runs, with its published list of operators.

    dtypes: that its tensors may have, where a rule names none. None: the list does not say.
    unlisted: the answer for an operator that is not in `rules`.
    custom: rules of custom operators, by name; others are refused.
    inputs: dtypes that the file's input may have; empty where the list does not say.
    float16_weights: whether a DEQUANTIZE of float16 constants costs nothing.
    pieces: how a file is cut. "all": each run of accepted operators is a partition. "one": only
        the largest goes to the accelerator. "first": only the first.
    otherwise: what becomes of an operator that is refused.
    remedies: what to do, by the operator that is refused; "" for all others.
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
        """What the list says of one operator."""
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
    """The same rule for every operator of a text of names."""
    return dict.fromkeys(text.split(), rule)


def with_conditions(
    rules: Mapping[str, Rule], names: Iterable[str], *more: Condition
) -> dict[str, Rule]:
    """The rules, with further conditions on some of the operators."""
    changed = {
        name: dataclasses.replace(rules[name], conditions=rules[name].conditions + more)
        for name in names
    }
    return {**rules, **changed}
