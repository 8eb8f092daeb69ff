"""`read`: translate a functional Keras model, nested models included, into a `Graph`."""

import dataclasses
import re
from collections.abc import Collection, Iterable
from typing import Any

import keras

from kzoo.quantization.graph import Graph, Input, Op, Opaque, unused
from kzoo.quantization.rules.translate import FUNCTIONS, LAYERS, OPERATORS, function_of

# Layers to keep in float: names, layer classes, or patterns that match whole names.
Kept = Collection[str | type | re.Pattern[str]]


def read(model: keras.Model, keep_float: Kept = ()) -> Graph:
    """Return the graph of a functional or sequential model.

    Raises ValueError for other models, for layers without an int8 form that `keep_float` does not
    name, and for names in `keep_float` that the model does not have.
    """
    differences = getattr(model, "differences", None)
    model = functional(model)
    if not isinstance(model, keras.Model) or not getattr(model, "operations", None):
        how = (
            "Begin it with keras.Input((H, W, C)), or call its build((None, H, W, C))"
            if isinstance(model, keras.Sequential)
            else "Build a subclassed model again with keras.Model(inputs, outputs)"
        )
        raise ValueError(
            f"quantize() rewrites functional and sequential models that are built; received "
            f"{model!r}. {how}."
        )
    reader = Reader(names_of(model, keep_float))
    for tensor in model.inputs:
        name = tensor._keras_history.operation.name
        reader.ops[name] = Input(name, (), tensor, shape=tensor.shape)
        reader.values[id(tensor)] = name
    inputs = keras.tree.map_structure(reader.value, model.input)
    outputs = keras.tree.map_structure(reader.value, model.output)
    return Graph(reader.ops, inputs, outputs, differences)


def names_of(model: keras.Model, kept: Kept) -> frozenset[str]:
    """Return the names of the layers that `kept` selects; raise ValueError if an item has none."""
    if isinstance(kept, str | type | re.Pattern):
        kept = [kept]
    found: set[str] = set()
    for choice in kept:
        chosen = {op.name for op in operations(model) if chooses(choice, op)}
        if not chosen:
            what = getattr(choice, "pattern", getattr(choice, "__name__", choice))
            raise ValueError(
                f"keep_float names layers that {model.name!r} does not have: {what}. Use the "
                "names that "
                "model.summary() prints, a class of layers, or a compiled regular expression."
            )
        found |= chosen
    return frozenset(found)


def chooses(choice: str | type | re.Pattern[str], op: Any) -> bool:
    """Return whether a name, class or pattern selects a layer."""
    if isinstance(choice, type):
        return isinstance(op, choice)
    if isinstance(choice, re.Pattern):
        return choice.fullmatch(op.name) is not None
    return choice == op.name


def functional(model: Any) -> Any:
    """Return the functional model inside a built `keras.Sequential`; anything else unchanged.

    A `keras.Sequential` itself has no `operations`.
    """
    return getattr(model, "_functional", None) or model


def operations(model: keras.Model) -> Iterable[Any]:
    """Yield all layers and operators of a model and of the models nested in it."""
    for op in getattr(functional(model), "operations", ()):  # none in a subclassed model
        yield op
        if isinstance(op, keras.Model):
            yield from operations(op)


class Reader:
    """Follows tensors back to the inputs and translates each operation once."""

    def __init__(self, keep_float: frozenset[str]):
        self.keep_float = keep_float
        self.ops: dict[str, Op] = {}
        self.values: dict[
            int, str
        ] = {}  # id of a tensor -> name of the operation that stands for it

    def value(self, tensor: Any) -> str:
        """Return the name of the operation that computes `tensor`; depth first, not recursive."""
        stack = [tensor]
        while stack:
            if id(stack[-1]) in self.values:
                stack.pop()
                continue
            op, node_index, tensor_index = stack[-1]._keras_history
            node = op._inbound_nodes[node_index]
            missing = [t for t in node.input_tensors if id(t) not in self.values]
            if missing:
                stack += reversed(missing)
                continue
            names = tuple(self.values[id(t)] for t in node.input_tensors)
            if isinstance(op, keras.Model):
                self.values[id(stack[-1])] = self.nested(op, names)[tensor_index]
            else:
                self.values[id(stack[-1])] = self.note(op, node.arguments, names, stack[-1].shape)
        return self.values[id(tensor)]

    def nested(self, model: keras.Model, names: tuple[str, ...]) -> list[str]:
        """Return the names of the outputs of a nested model whose inputs are `names`."""
        model = functional(model)
        if not getattr(model, "operations", None):
            raise ValueError(unsupported(model))
        within = Reader(self.keep_float)
        within.ops = self.ops
        for tensor, name in zip(model.inputs, names, strict=True):
            within.values[id(tensor)] = name
        return [within.value(tensor) for tensor in model.outputs]

    def note(
        self, op: Any, arguments: Any, inputs: tuple[str, ...], shape: tuple[int | None, ...]
    ) -> str:
        """Add the translation of one call of a layer or operator; return its output's name."""
        keep = op.name in self.keep_float
        if isinstance(op, keras.layers.Layer):
            translate = LAYERS.get(type(op))
        else:  # an operator such as x + 3
            translate = OPERATORS.get(type(op).__name__)
        found = translate(op, inputs, arguments) if translate else None
        if found is None:
            if not (keep and isinstance(op, keras.layers.Layer)):
                raise ValueError(unsupported(op))
            found = (Opaque(op.name, inputs, op),)
        names: dict[str, str] = {}
        for part in found:
            read_from = tuple(names.get(i, i) for i in part.inputs)  # before this part is renamed
            names[part.name] = name = unused(part.name, self.ops)
            self.ops[name] = dataclasses.replace(
                part, name=name, inputs=read_from, keep_float=keep, shape=shape
            )
        return names[found[-1].name] if found else inputs[0]


def unsupported(op: Any) -> str:
    """Return the error message for a layer without an int8 form."""
    names = sorted(layer.__name__ for layer in LAYERS)
    known = ", ".join(name for name in names if not name.startswith("Random"))
    settings = "these settings"
    if hasattr(op, "activation") and function_of(op) not in ("linear", *FUNCTIONS):
        settings = f"activation {getattr(op.activation, '__name__', op.activation)}"
    return (
        f"quantize() has no int8 form for {op.name!r} ({type(op).__name__} with {settings}). "
        f'Keep it in float with keep_float=["{op.name}"], or replace it by layers from this list: '
        f"{known}, and Keras's augmentation layers."
    )
