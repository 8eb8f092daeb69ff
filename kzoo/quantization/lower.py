"""Graph rewrites before quantization, which replace what has no good int8 form by equivalents.

Batch normalization is folded into the convolution before it, pixel scaling into the scale and zero
point of the input, a hard sigmoid becomes a scale and offset whose int8 range [0, 1] clips it, and
hard-swish becomes x * relu6(x + 3), which is six times too large: the next linear layer divides by
6. TFLite's int8 HARD_SWISH runs outside XNNPACK: V3-Large takes 6.8 ms with it, 1.7 ms without.
"""

import dataclasses

import keras
import numpy as np
from keras import layers

from kzoo.quantization.graph import Activation, Affine, Graph, Input, Join, Linear, Op, Plain
from kzoo.quantization.rules.rewrite import Result, Rewrite, Rule, rewrite
from kzoo.quantization.rules.scale_folding import propagate_gains


def lower(graph: Graph, *, hard_swish: str, bytes_in: bool) -> Graph:
    """Return the graph after all rewrites.

    hard_swish: "split" or "op", see `quantize`. bytes_in: whether inputs are pixels in [0, 255],
    so that the input may absorb their rescaling.
    """
    rules: list[Rule] = [merge_equal_activations, recognize_hard_sigmoid, recognize_hard_swish]
    rules += [lower_hard_sigmoid, HARD_SWISH[hard_swish], split_silu, fold_into_previous]
    if bytes_in:
        rules += [absorb_input]
    for rule in rules:
        graph = rewrite(graph, rule)
    return as_depthwise(propagate_gains(fold_into_next(graph)))


def merge_equal_activations(op: Op, run: Rewrite) -> Result:
    """Merge equal activations of the same tensor, as in NASNet.

    TensorFlow's converter merges them too, and leaves the operator in float if their ranges differ.
    """
    if isinstance(op, Activation):
        for other in run.done.values():
            if not isinstance(other, Activation) or other.inputs != op.inputs:
                continue
            if (other.function, other.keep_float) == (op.function, op.keep_float):
                run.users[op.name] += run.users[other.name]
                run.users[op.inputs[0]] -= 1
                return other.name
    return (op,)


# Patterns that are a hard sigmoid or a hard-swish.


def recognize_hard_sigmoid(op: Op, run: Rewrite) -> Result:
    """Replace relu6(x + 3) * (1 / 6), as in keras.applications, by a hard sigmoid."""
    if isinstance(op, Affine) and is_shift(op, 1 / 6, 0):
        relu = run.sole(op.inputs[0], Activation)
        plus = relu and relu.function == "relu6" and run.sole(relu.inputs[0], Affine)
        if plus and is_shift(plus, 1, 3):
            del run.done[relu.name], run.done[plus.name]
            return (
                Activation(
                    op.name, plus.inputs, "hard_sigmoid", keep_float=op.keep_float, shape=op.shape
                ),
            )
    return (op,)


def is_shift(op: Affine, scale: float, offset: float) -> bool:
    """Return whether `op` computes x * scale + offset."""
    return bool(np.allclose(op.scale, scale) and np.allclose(op.offset, offset))


def recognize_hard_swish(op: Op, run: Rewrite) -> Result:
    """Replace x * hard_sigmoid(x) by hard_swish(x)."""
    if isinstance(op, Join) and op.layer is layers.Multiply:
        for x, gate_name in (op.inputs, op.inputs[::-1]):
            gate = run.sole(gate_name, Activation)
            if gate and gate.function == "hard_sigmoid" and gate.inputs == (x,):
                del run.done[gate_name]
                run.users[x] -= 1
                return (
                    Activation(
                        op.name, (x,), "hard_swish", keep_float=op.keep_float, shape=op.shape
                    ),
                )
    return (op,)


# Lowering of activations to their int8 form.


def lower_hard_sigmoid(op: Op, run: Rewrite) -> Result:
    """Lower hard_sigmoid(x) = clip((x + 3) / 6, 0, 1); the output's int8 range [0, 1] clips."""
    if isinstance(op, Activation) and op.function == "hard_sigmoid" and not op.keep_float:
        name = run.unused(f"{op.name}_affine")
        affine = Affine(name, op.inputs, np.float32(1 / 6), np.float32(1 / 2), shape=op.shape)
        return affine, Activation(op.name, (affine.name,), "unit", shape=op.shape)
    return (op,)


def split_hard_swish(op: Op, run: Rewrite) -> Result:
    """Lower hard_swish(x) to x * relu6(x + 3), which is 6 times as large."""
    if isinstance(op, Activation) and op.function == "hard_swish" and not op.keep_float:
        gate = Activation(run.unused(f"{op.name}_gate"), op.inputs, "gate", shape=op.shape)
        return gate, Join(
            op.name, (*op.inputs, gate.name), layers.Multiply, {}, 6.0, shape=op.shape
        )
    return (op,)


def keep_one_operation(op: Op, run: Rewrite) -> Result:
    """Leave the operation as it is."""
    return (op,)


HARD_SWISH: dict[str, Rule] = {"split": split_hard_swish, "op": keep_one_operation}


def split_silu(op: Op, run: Rewrite) -> Result:
    """Lower silu(x) to x * sigmoid(x): TFLite has no int8 operator for it."""
    if isinstance(op, Activation) and op.function == "silu" and not op.keep_float:
        gate = Activation(run.unused(f"{op.name}_gate"), op.inputs, "sigmoid", shape=op.shape)
        return gate, Join(op.name, (*op.inputs, gate.name), layers.Multiply, {}, shape=op.shape)
    return (op,)


# Folding of affine operations: into the linear operation before, the input, the linear operation
# after, or a depthwise convolution of their own.


def fold_into_previous(op: Op, run: Rewrite) -> Result:
    """Fold an affine operation into the linear or affine operation before it."""
    if isinstance(op, Affine):
        before = run.sole(op.inputs[0], Linear)
        if before:
            folded = before.scaled(op.scale)
            folded = dataclasses.replace(folded, bias=folded.bias + op.offset)
            run.done[before.name] = dataclasses.replace(
                folded, keep_float=before.keep_float or op.keep_float
            )
            return before.name
        before = run.sole(op.inputs[0], Affine)
        if before:
            scale, offset = before.scale * op.scale, before.offset * op.scale + op.offset
            run.done[before.name] = dataclasses.replace(before, scale=scale, offset=offset)
            return before.name
    return (op,)


def absorb_input(op: Op, run: Rewrite) -> Result:
    """Fold the pixel scaling into the input's scale and zero point, and the rest into `op`.

    The convolution's input is x = p * scale + offset for a pixel p. The int8 input represents
    (p - zero) * scale with an integer `zero` and one scale for all channels; the remaining
    per-channel scale and offset (half a pixel for Rescaling(1 / 127.5, -1)) go into the
    convolution. Its zero padding then stands for the pixel `zero`, not -offset / scale: 128 instead
    of 127.5. So outputs whose window includes padding change, by at most the sum over padded
    weights of |weight| * |scale * zero + offset|: half a pixel for Rescaling(1 / 127.5, -1), 10 to
    12 pixel levels for per-channel means as in PyTorch. All other outputs are exact.
    """
    if not isinstance(op, Linear) or op.transposed:
        return (op,)
    between, name = [], op.inputs[0]
    while plain := run.sole(name, Plain):
        between.append(plain)
        name = plain.inputs[0]
    affine = run.sole(name, Affine)
    image = affine and run.sole(affine.inputs[0], Input)
    if not image or not all(shifts_pass(plain, run.done[plain.inputs[0]]) for plain in between):
        return (op,)
    zeros = -np.asarray(affine.offset) / affine.scale
    if (
        op.config.get("groups", 1) > 1
        or np.any(np.asarray(affine.scale) <= 0)  # an input's scale is positive
        or np.mean(zeros) < -0.5
        or np.mean(zeros) > 255.5
    ):
        return (op,)
    # Round half up, with a tolerance for float32: 127.49999 gives 128.
    scale, zero = float(np.mean(affine.scale)), min(int(np.mean(zeros) + 0.5 + 1e-3), 255)
    run.done[image.name] = dataclasses.replace(image, scale=scale, zero=zero)
    # x = r * (scale_c / scale) + (offset_c + scale_c * zero), where r = (p - zero) * scale.
    op = op.fed_with(affine.scale / scale, affine.offset + affine.scale * zero)
    del run.done[affine.name]
    if not between:
        return (dataclasses.replace(op, inputs=(image.name,)),)
    run.done[between[-1].name] = dataclasses.replace(between[-1], inputs=(image.name,))
    return (op,)


def shifts_pass(op: Plain, before: Op) -> bool:
    """Return whether f(a * x + b) = a * f(x) + b for a > 0 and b per channel, padding aside."""
    return not isinstance(op.layer, layers.LeakyReLU | layers.PReLU) and op.keeps_channels(before)


def fold_into_next(graph: Graph) -> Graph:
    """Return the graph with affine operations folded into the unpadded linear ones after them.

    Also through a dropout, whose zeros are then those before scale and offset, not after them.
    """
    readers: dict[str, list[Op]] = {name: [] for name in graph.ops}
    for op in graph.ops.values():
        for name in op.inputs:
            readers[name].append(op)
    outputs = set(keras.tree.flatten(graph.outputs))

    def takes(op: Op) -> bool:
        """Return whether `op`, or all that reads it, can absorb an affine operation before it."""
        if is_dropout(op) and op.name not in outputs:
            return bool(readers[op.name]) and all(map(takes, readers[op.name]))
        return isinstance(op, Linear) and has_no_padding(op)

    taken = {
        op.name: op for op in graph.ops.values()
        if isinstance(op, Affine) and not op.keep_float and op.name not in outputs
        and readers[op.name] and all(map(takes, readers[op.name]))
    }  # fmt: skip

    def rule(op: Op, run: Rewrite) -> Result:
        if op.name in taken:
            return op.inputs[0]
        name = next(iter(graph.ops[op.name].inputs), "")
        while is_dropout(graph.ops.get(name)):
            (name,) = graph.ops[name].inputs
        if isinstance(op, Linear) and name in taken:
            return (op.fed_with(taken[name].scale, taken[name].offset),)
        return (op,)

    return rewrite(graph, rule)


def is_dropout(op: Op | None) -> bool:
    return isinstance(op, Plain) and isinstance(op.layer, layers.Dropout | layers.SpatialDropout2D)


def has_no_padding(op: Linear) -> bool:
    """Return whether every output of `op` reads the whole kernel, so that an offset folds in."""
    small = op.layer is layers.Dense or np.all(np.asarray(op.config["kernel_size"]) == 1)
    if op.config.get("groups", 1) > 1 or op.transposed:  # transposed: borders read part of it
        return False
    return bool(small or op.config.get("padding") == "valid")


def as_depthwise(graph: Graph) -> Graph:
    """Return the graph with affine operations left over as 1x1 depthwise convolutions.

    Multiplications by one number stay. Raises ValueError for tensors that are not (N, H, W, C).
    """

    def rule(op: Op, run: Rewrite) -> Result:
        if not isinstance(op, Affine) or op.keep_float or is_factor(op):
            return (op,)
        if len(op.shape) != 4:
            raise ValueError(
                f"quantize() finds no layer to fold {op.name!r} into, a scale and an offset of a "
                f"tensor of shape {op.shape}. Put it behind a Dense layer, or use "
                f'keep_float=["{op.name}"].'
            )
        ones = np.ones(op.shape[-1] or 0, np.float32)
        kernel = np.reshape(ones * op.scale, (1, 1, -1, 1))
        bias = ones * op.offset
        config = {"kernel_size": 1}
        return (
            Linear(
                op.name, op.inputs, layers.DepthwiseConv2D, config, kernel, bias, shape=op.shape
            ),
        )

    return rewrite(graph, rule)


def is_factor(op: Affine) -> bool:
    """Return whether `op` only multiplies by one number."""
    return np.ndim(op.scale) == 0 and not np.any(op.offset)
