"""Channels of an activation brought to one range, where the layer after takes it back for nothing.

An int8 tensor has one step for all its channels: one channel that reaches 17 leaves two levels to
one that stays below .2. In front of a depthwise convolution, which has a scale per channel of its
own, every channel may be multiplied by what brings it to the full range. Through ReLU that passes
as it is. Through x * relu6(x + 3) it passes by way of x alone, if the gate divides by it again: a
depthwise 1 x 1 convolution with a bias of 3 takes the place of the sum x + 3. On a V3-Small half
of all noise in the logits came from the stem's hard-swish; of its int8 classes 94 % were those of
float, and are 98 to 99 %.
Source of the idea, for ReLU: https://arxiv.org/abs/1906.04721, section 4.1.
"""

import dataclasses
from collections import Counter
from typing import Any

import keras
import numpy as np
from keras import layers

from kzoo.quantization.graph import Activation, Affine, Graph, Join, Linear, Op, Plain
from kzoo.quantization.layers import LEVELS, WEIGHT_LEVELS
from kzoo.quantization.ranges import DOMAINS, SCORES, Plan, is_float
from kzoo.quantization.rules.rewrite import Result, Rewrite, rewrite
from kzoo.quantization.simulate import OBSERVED, Run, at_once
from kzoo.quantization.variants import PAIR, Variant, outputs

LARGEST_FACTOR = 256.0  # a channel of less is as good as dead
# A gate's convolution costs more than the sum: all nine of a V3-Small make it 15 % slower. It is
# placed where the site brings at least this share of the noise.
LEAST_SHARE = 0.05
COMPARED = 8  # images that noise is measured on


@dataclasses.dataclass(frozen=True)
class Site:
    """A linear layer, those that read it, and the gate of a hard-swish between."""

    source: str
    readers: tuple[str, ...]
    between: tuple[str, ...]  # all that is multiplied, the source with it
    gate: str | None = None
    product: str | None = None
    shared_scale: bool = False  # of the weights of the readers: one for all channels that they read


def find_sites(graph: Graph) -> list[Site]:
    """Where channels can be multiplied, and the linear layers behind take it back."""
    users = graph.users()
    linear = [op for op in graph.ops.values() if isinstance(op, Linear)]
    found = [before_depthwise(op, graph, users) for op in linear if op.depthwise]
    found += [before_pointwise(op, graph, users) for op in linear if is_pointwise(op)]
    return [site for site in found if site]


def before_depthwise(reader: Linear, graph: Graph, users: Counter[str]) -> Site | None:
    """No weight is rounded more coarsely: each channel of the reader has a scale of its own."""
    op, between = source_of(reader.inputs[0], graph, users)
    gate = product = None
    if isinstance(op, Join) and op.gain == 6 and users[op.name] == 1:
        product, (source, gate) = op.name, op.inputs
        op, alone = graph.ops[source], users[source] == 2 and users[gate] == 1
        between.append(op.name)
    else:
        alone = users[op.name] == 1
    if isinstance(op, Activation) and op.keep_float and users[op.name] == 1:
        return Site(op.name, (reader.name,), tuple(between))
    if not (alone and isinstance(op, Linear)):
        return None
    return Site(op.name, (reader.name,), (op.name, *between), gate, product)


def before_pointwise(reader: Linear, graph: Graph, users: Counter[str]) -> Site | None:
    """Weights of one output share a scale, so that channels are made more equal, not equal.

    Squeeze-and-excitation may stand before: its pool reads the same channels.
    """
    op, between = source_of(reader.inputs[0], graph, users)
    readers: tuple[str, ...] = (reader.name,)
    if isinstance(op, Join) and op.layer is layers.Multiply and op.gain == 1:
        inside = [
            (x, *found)
            for x in op.inputs
            if users[x] == 2 and (found := squeeze(x, op, graph, users))
        ]
        if users[op.name] != 1 or len(inside) != 1:
            return None
        ((name, pool, reduce),) = inside
        readers = (reader.name, reduce)
        joined = graph.ops[name]
        between += [pool, name]
        op, more = (
            source_of(name, graph, users, shared=True) if passes(joined, graph) else (joined, [])
        )
        between += more
        alone = users[op.name] == 1 or op is joined
    else:
        alone = users[op.name] == 1
    if not (alone and isinstance(op, Linear)):
        return None
    return Site(op.name, readers, tuple(between), shared_scale=True)


def squeeze(name: str, product: Join, graph: Graph, users: Counter[str]) -> tuple[str, str] | None:
    """(The pool of `name`, the linear layer that alone reads that), of squeeze-and-excitation."""
    pool = next(op for op in graph.ops.values() if name in op.inputs and op is not product)
    if not (isinstance(pool, Plain) and passes(pool, graph)) or users[pool.name] != 1:
        return None
    reader = next(op for op in graph.ops.values() if pool.name in op.inputs)
    return (pool.name, reader.name) if isinstance(reader, Linear) else None


def source_of(
    name: str, graph: Graph, users: Counter[str], *, shared: bool = False
) -> tuple[Op, list[str]]:
    """(The operation that `name` comes from by such as let factors pass, all on the way)."""
    op, between = graph.ops[name], [name]
    while passes(op, graph) and (users[op.name] == 1 or (shared and op.name == name)):
        op = graph.ops[op.inputs[0]]
        between.append(op.name)
    return op, between


def is_pointwise(op: Linear) -> bool:
    if op.layer is layers.Dense or op.config.get("groups", 1) > 1:
        return False
    return not op.depthwise and bool(np.all(np.asarray(op.config["kernel_size"]) == 1))


def passes(op: Op, graph: Graph) -> bool:
    """Whether f(a * x) = a * f(x) for a > 0, one for each channel."""
    if isinstance(op, Plain):
        return op.keeps_channels(graph.ops[op.inputs[0]])
    return isinstance(op, Activation) and op.function == "relu"


def equalize(graph: Graph, plan: Plan, images: np.ndarray, *, everywhere: bool = False) -> Graph:
    """The graph with a factor for each channel at every site that is worth it.

    `plan` is that of the graph as it is; on `images` (N, H, W, C) ranges and noise are measured. A
    layer that is kept in float takes its part: what stands between it and the next is int8 all the
    same. `everywhere`: at all sites.
    """
    sites = [s for s in find_sites(graph) if plan.fake_quants.intersection(s.between)]
    if not everywhere:
        sites = worthwhile(sites, graph, plan, images)
    if not sites:
        return graph
    factors: dict[str, np.ndarray] = {}
    bounds = {}
    for site, channels in zip(sites, channels_of(graph, sites, images), strict=True):
        reader = graph.ops[site.readers[0]]
        assert isinstance(reader, Linear)
        if site.shared_scale:
            passed = [graph.ops[name] for name in site.between if name != site.source]
            positive = any(isinstance(op, Activation) for op in passed)
            # From zero on, which is a level: a channel that hardly moves is as far off as it is.
            size = np.maximum(channels.high, 0)
            size = size if positive else size - np.minimum(channels.low, 0)
            factors[site.source] = balanced_factors(size, channels.variance, reader.kernel[0, 0])
        elif site.gate or isinstance(graph.ops[site.source], Activation):
            energy = np.square(reader.kernel).sum(axis=(0, 1, 3))
            factors[site.source], reach = swish_factors(channels.low, channels.high, energy)
            if site.gate:
                bounds[site.source] = reach
        else:
            factors[site.source] = relu_factors(channels.high)
    gates = {site.gate: factors[site.source] for site in sites if site.gate}
    undone = {name: factors[site.source] for site in sites for name in site.readers}

    def rule(op: Op, run: Rewrite) -> Result:
        if op.name in gates:
            factor = gates[op.name]
            shift = Linear(
                run.unused(f"{op.name}_shift"), op.inputs, layers.DepthwiseConv2D,
                {"kernel_size": 1}, np.reshape(1 / factor, (1, 1, -1, 1)), np.full_like(factor, 3),
                shape=op.shape,
            )  # fmt: skip
            return shift, Activation(op.name, (shift.name,), "relu6", shape=op.shape)
        if isinstance(op, Linear):
            if op.name in undone:
                op = op.fed_with(1 / undone[op.name])
            if op.name in factors:
                op = op.scaled(factors[op.name])
        if isinstance(op, Activation) and op.name in factors:  # in float: a product of its own
            inner = dataclasses.replace(op, name=run.unused(f"{op.name}_float"))
            factor = factors[op.name]
            product = Affine(op.name, (inner.name,), factor, 0.0, shape=op.shape, keep_float=True)
            return inner, product
        return (dataclasses.replace(op, bounds=bounds.get(op.name)),)

    return rewrite(graph, rule)


def worthwhile(sites: list[Site], graph: Graph, plan: Plan, images: np.ndarray) -> list[Site]:
    """Those without a gate, which cost nothing, and those that bring much of the noise."""
    gated = [site for site in sites if site.gate]
    if not gated:
        return sites
    run, some = Run(graph, plan), images[:COMPARED]
    names = [op.name for op in graph.ops.values() if not is_float(op)]
    chosen = [names] + [[n for n in (s.source, s.gate, s.product) if n] for s in gated]
    variants = [Variant(which, int8_weights=True) for which in chosen]
    noise = np.zeros(len(chosen))
    pair = at_once(PAIR, some.shape)
    for i in range(0, len(some), pair):
        chunk = some[i : i + pair]
        exact = run(chunk)
        noise += [difference(graph, found, exact) for found in outputs(run, variants, chunk, exact)]
        del exact  # or it is there until the next one is
    least = LEAST_SHARE * noise[0]
    loud = {site for site, level in zip(gated, noise[1:], strict=True) if level > least}
    return [site for site in sites if not site.gate or site in loud]


def difference(graph: Graph, rounded: dict[str, Any], exact: dict[str, Any]) -> float:
    """Squared difference over all outputs, each against what it holds; of scores their logits.

    Where the model has a measure of its own, a detector, by that.
    """
    if graph.differences:
        wanted, found = (
            keras.tree.map_structure(values.__getitem__, graph.outputs)
            for values in (exact, rounded)
        )
        each = graph.differences(wanted, found)
        return sum(float(keras.ops.convert_to_numpy(keras.ops.mean(x))) for x in each)
    total = 0.0
    for name in keras.tree.flatten(graph.outputs):
        op = graph.ops[name]
        if isinstance(op, Activation) and op.function in SCORES:
            name = op.inputs[0]
        y, z = (keras.ops.convert_to_numpy(values[name]) for values in (exact, rounded))
        total += float(np.square(y - z).sum() / max(np.square(y).sum(), 1e-12))
    return total


@dataclasses.dataclass
class Channels:
    """The least and largest value of each channel (C,), and the variance."""

    low: np.ndarray
    high: np.ndarray
    variance: np.ndarray


def channels_of(graph: Graph, sites: list[Site], images: np.ndarray) -> list[Channels]:
    """What the source of each site gives on images (N, H, W, C)."""
    run, sources = Run(graph), [site.source for site in sites]
    found: dict[str, list[np.ndarray]] = {name: [] for name in sources}
    some = at_once(OBSERVED, images.shape)
    for i in range(0, len(images), some):
        for op, value in run.walk(images[i : i + some], wanted=sources):
            if op.name in found:
                flat = keras.ops.reshape(value, (-1, value.shape[-1]))
                sums = (
                    keras.ops.min(flat, axis=0), keras.ops.max(flat, axis=0),
                    keras.ops.mean(flat, axis=0), keras.ops.mean(flat * flat, axis=0),
                )  # fmt: skip
                found[op.name].append(np.stack([keras.ops.convert_to_numpy(x) for x in sums]))
    results = []
    for name in sources:
        low, high, mean, square = np.stack(found[name]).transpose(1, 0, 2)
        variance = np.maximum(square.mean(axis=0) - mean.mean(axis=0) ** 2, 0)
        results.append(Channels(low.min(axis=0), high.max(axis=0), variance))
    return results


def balanced_factors(size: np.ndarray, variance: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """(C,): powers of what makes channels equal, by the noise behind a kernel (C, outputs).

    `size` (C,) is how far each channel reaches, `variance` (C,) that of its values. Activations
    have one step for all channels, and so have the weights of each output, which the
    factors are taken out of.
    Source of the idea: https://arxiv.org/abs/2211.10438 (SmoothQuant), with a power of one half.
    """
    found = []
    for power in np.linspace(0, 1, 9):
        factor = relu_factors(size) ** np.float32(power)
        weights = kernel / factor[:, None]
        activations = np.square((factor * size).max() / LEVELS) * np.square(weights).sum()
        steps = np.abs(weights).max(axis=0) / WEIGHT_LEVELS
        rounding = np.square(steps).sum() * (np.square(factor) * variance).sum()
        found.append((activations + rounding, power, factor))
    return min(found, key=lambda item: item[:2])[2]


def relu_factors(high: np.ndarray) -> np.ndarray:
    """(C,): what brings the largest value of each channel to that of all."""
    return factors_to(high.max(), high)


def factors_to(reach: float, size: np.ndarray) -> np.ndarray:
    alive = size > reach / LARGEST_FACTOR
    return np.where(alive, reach / np.where(alive, size, 1), LARGEST_FACTOR).astype(np.float32)


def swish_factors(
    low: np.ndarray, high: np.ndarray, energy: np.ndarray
) -> tuple[np.ndarray, tuple[float, float]]:
    """(factors (C,), the range that they bring all channels into).

    What is below -3 counts for nothing. How far the range reaches down, against up, is what makes
    the noise least behind a reader whose kernels have that `energy` (C,).
    """
    low, high = np.maximum(low, DOMAINS["gate"][0]), np.maximum(high, 0)
    top = high.max()
    found = []
    for bottom in top * np.geomspace(0.05, 2, 40):
        factor = np.minimum(factors_to(top, high), factors_to(bottom, -low))
        noise = (np.square((top + bottom) / factor) * energy).sum()
        found.append((noise, factor, (-bottom, np.inf)))
    _, factor, bounds = min(found, key=lambda item: item[0])
    return factor, bounds
