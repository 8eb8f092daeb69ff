"""`emit`: build a `keras.Model` from a `Graph`, in float or, with a `Plan`, fake-quantized."""

from collections.abc import Callable
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


def emit(graph: Graph, plan: Plan | None = None, *, name: str) -> keras.Model:
    """Return the Keras model that computes a graph."""
    inputs, tensors = tensors_of(graph, plan)
    pick = keras.tree.map_structure
    return keras.Model(
        pick(inputs.__getitem__, graph.inputs), pick(tensors.__getitem__, graph.outputs), name=name
    )


def tensors_of(graph: Graph, plan: Plan | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the inputs and every operation's output, as Keras tensors."""
    images: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    fake_quants: dict[str, FakeQuant] = {}
    in_float: set[str] = set()  # operations that the file computes in float
    run = Rewrite(graph)  # for names that no layer has
    for op in graph.ops.values():
        if isinstance(op, Input):
            dtype = "float32" if "float" in op.tensor.dtype else op.tensor.dtype
            images[op.name] = keras.Input(batch_shape=op.tensor.shape, dtype=dtype, name=op.name)
            y = images[op.name]
            if op.zero is not None:
                name = run.unused("preprocessing")
                y = layers.Rescaling(op.scale, -op.zero * op.scale, name=name)(y)
        else:
            y = EMIT[type(op)](op, [tensors[name] for name in op.inputs], plan)
        # An activation fused into an operation that stays in float is float too.
        if is_float(op) or in_float.intersection(op.inputs) - (
            plan.grids.keys() if plan else set()
        ):
            in_float.add(op.name)
        if plan and op.name in plan.fake_quants:
            key = plan.grids[op.name]
            if key not in fake_quants:
                low, high = plan.ranges[key]
                fake_quants[key] = FakeQuant(low, high, name=run.unused(f"{key}_quant"))
            fake_quants[key].after_float |= op.name in in_float
            y = fake_quants[key](y)
        tensors[op.name] = y
    return images, tensors


def linear(op: Linear, inputs: list[Any], plan: Plan | None) -> Any:
    """Return the Keras layer of a linear operation, with its weights."""
    quantized = plan and not is_float(op)
    layer = (QUANTIZED[op.layer] if quantized else op.layer)(
        **op.config, name=op.name, dtype="float32"
    )
    y = layer(inputs[0])
    layer.kernel.assign(op.keras_kernel)
    layer.bias.assign(op.bias)
    if plan and quantized:
        layer.input_scale.assign(plan.scale(op.inputs[0]))
        layer.limits.assign(plan.limits[op.name])
    return y


def activation(op: Activation, inputs: list[Any], plan: Plan | None) -> Any:
    if plan and op.function == "unit":
        return inputs[0]  # its range clips
    if op.function in ACTIVATIONS:
        return ACTIVATIONS[op.function](name=op.name)(inputs[0])
    return layers.Activation(op.function, name=op.name, dtype="float32")(inputs[0])


def affine(op: Affine, inputs: list[Any], plan: Plan | None) -> Any:
    scale, offset = (
        v.tolist() if isinstance(v, np.ndarray) else float(v) for v in (op.scale, op.offset)
    )
    return layers.Rescaling(scale, offset, name=op.name)(inputs[0])


def join(op: Join, inputs: list[Any], plan: Plan | None) -> Any:
    return op.layer(**op.config, name=op.name, dtype="float32")(inputs)


def copied(op: Plain | Opaque, inputs: list[Any], plan: Plan | None) -> Any:
    own = {"name": op.name, "dtype": "float32"}
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
