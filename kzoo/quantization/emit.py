"""`emit`: build a `keras.Model` from a `Graph`, in float or, with a `Plan`, fake-quantized."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from kzoo.quantization.graph import (
    Activation,
    Affine,
    Graph,
    Input,
    Join,
    Linear,
    Op,
    Opaque,
    Plain,
    unused,
)
from kzoo.quantization.layers import (
    FakeQuant,
    Gate,
    QuantConv2D,
    QuantConv2DTranspose,
    QuantDense,
    QuantDepthwiseConv2D,
)
from kzoo.quantization.ranges import Plan, is_float
from kzoo.quantization.rules.rewrite import Rewrite

QUANTIZED: dict[type, type] = {
    layers.Conv2D: QuantConv2D,
    layers.Conv2DTranspose: QuantConv2DTranspose,
    layers.DepthwiseConv2D: QuantDepthwiseConv2D,
    layers.Dense: QuantDense,
}
# Activations that Keras does not have.
ACTIVATIONS: dict[str, Callable[..., keras.layers.Layer]] = {
    "gate": Gate,
    "unit": lambda name: layers.ReLU(max_value=1.0, name=name),
}


def emit(
    graph: Graph, plan: Plan | None = None, *, name: str, output_names: Sequence[str] = ()
) -> keras.Model:
    """Return the Keras model that computes a graph.

    output_names: of the model that the graph was read from. An output's last layer has its name,
        or a `FakeQuant` with "_quant" after it.
    """
    inputs, tensors = tensors_of(graph, plan, layer_names(graph, output_names))
    pick = keras.tree.map_structure
    return keras.Model(
        pick(inputs.__getitem__, graph.inputs), pick(tensors.__getitem__, graph.outputs), name=name
    )


def layer_names(graph: Graph, output_names: Sequence[str]) -> dict[str, str]:
    """Return the name of each operation's layer: its own, but for outputs.

    A Dense layer "scores" with a softmax was read as two operations, "scores" and "scores_act". The
    second one is the output, so that it is "scores", and the first one "scores_raw". A name that
    two outputs have, of a layer called twice, is given to none.
    """
    names, ends = {name: name for name in graph.ops}, keras.tree.flatten(graph.outputs)
    for op, wanted in zip(ends, output_names, strict=False):
        free = list(output_names).count(wanted) == 1 and wanted not in ends
        if free and not isinstance(graph.ops[op], Input):
            if wanted in graph.ops:
                names[wanted] = unused(f"{wanted}_raw", graph.ops)
            names[op] = wanted
    return names


def tensors_of(
    graph: Graph, plan: Plan | None, names: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the inputs and every operation's output, as Keras tensors.

    names: of the operations' layers.
    """
    images: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    fake_quants: dict[str, FakeQuant] = {}
    in_float: set[str] = set()  # operations that the file computes in float
    run = Rewrite(graph)  # for names that no layer has
    run.names.update(names.values())
    # Of a range that an output shares with other operations: it has the output's name.
    ends = {plan.grids[op]: names[op] for op in keras.tree.flatten(graph.outputs)
            if op in plan.fake_quants} if plan else {}  # fmt: skip
    for op in graph.ops.values():
        if isinstance(op, Input):
            dtype = "float32" if "float" in op.tensor.dtype else op.tensor.dtype
            images[op.name] = keras.Input(batch_shape=op.tensor.shape, dtype=dtype, name=op.name)
            y = images[op.name]
            if op.zero is not None:
                name = run.unused("preprocessing")
                y = layers.Rescaling(op.scale, -op.zero * op.scale, name=name)(y)
        else:
            y = EMIT[type(op)](op, [tensors[name] for name in op.inputs], plan, names[op.name])
        # An activation fused into an operation that stays in float is float too.
        if is_float(op) or in_float.intersection(op.inputs) - (
            plan.grids.keys() if plan else set()
        ):
            in_float.add(op.name)
        if plan and op.name in plan.fake_quants:
            key = plan.grids[op.name]
            if key not in fake_quants:
                low, high = plan.ranges[key]
                called = ends.get(key, names.get(key, key))
                fake_quants[key] = FakeQuant(low, high, name=run.unused(f"{called}_quant"))
            fake_quants[key].after_float |= op.name in in_float
            y = fake_quants[key](y)
        tensors[op.name] = y
    return images, tensors


def linear(op: Linear, inputs: list[Any], plan: Plan | None, name: str) -> Any:
    """Return the Keras layer of a linear operation, with its weights."""
    quantized = plan and not is_float(op)
    layer = (QUANTIZED[op.layer] if quantized else op.layer)(
        **op.config, name=name, dtype="float32"
    )
    y = layer(inputs[0])
    layer.kernel.assign(op.keras_kernel)
    layer.bias.assign(op.bias)
    if plan and quantized:
        layer.input_scale.assign(plan.scale(op.inputs[0]))
        layer.limits.assign(plan.limits[op.name])
    return y


def activation(op: Activation, inputs: list[Any], plan: Plan | None, name: str) -> Any:
    if plan and op.function == "unit":
        return inputs[0]  # its range clips
    if op.function in ACTIVATIONS:
        return ACTIVATIONS[op.function](name=name)(inputs[0])
    return layers.Activation(op.function, name=name, dtype="float32")(inputs[0])


def affine(op: Affine, inputs: list[Any], plan: Plan | None, name: str) -> Any:
    scale, offset = (
        v.tolist() if isinstance(v, np.ndarray) else float(v) for v in (op.scale, op.offset)
    )
    return layers.Rescaling(scale, offset, name=name)(inputs[0])


def join(op: Join, inputs: list[Any], plan: Plan | None, name: str) -> Any:
    return op.layer(**op.config, name=name, dtype="float32")(inputs)


def copied(op: Plain | Opaque, inputs: list[Any], plan: Plan | None, name: str) -> Any:
    own = {"name": name, "dtype": "float32"}
    if isinstance(op.layer, layers.Lambda):  # Keras does not rebuild it from its config
        given = ("_output_shape", "mask", "arguments")
        shape, mask, arguments = (getattr(op.layer, key) for key in given)
        layer = layers.Lambda(op.layer.function, shape, mask, arguments, **own)
    else:
        layer = type(op.layer).from_config(op.layer.get_config() | own)
    y = layer(inputs[0] if len(inputs) == 1 else inputs)
    layer.set_weights(op.layer.get_weights())
    return y


EMIT: dict[type[Op], Callable[..., Any]] = {
    Linear: linear,
    Activation: activation,
    Affine: affine,
    Join: join,
    Plain: copied,
    Opaque: copied,
}
