"""Cross-layer equalization: scale the channels of an activation to a common range.

An int8 activation has one per-tensor scale: if one channel reaches 17, a channel below .2 has two
levels left. So each channel is multiplied by a factor, in the weights of the layer before, and the
weights of the layer after are divided by it. Before a depthwise convolution, whose weights have a
scale for each channel, this costs no precision of weights. ReLU commutes with the factors. In a
split hard-swish, x * relu6(x + 3), only x is scaled: a 1x1 depthwise convolution with weights
1 / factor and bias 3 replaces the addition x + 3 of the gate.
Source, for ReLU: https://arxiv.org/abs/1906.04721, section 4.1.
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
from kzoo.quantization.simulate import OBSERVED, Run, chunk_size
from kzoo.quantization.variants import PAIR, Variant, outputs

LARGEST_FACTOR = 256.0  # a channel below 1 / 256 of the largest is negligible
# The convolution of a gate costs more than its addition: all nine in a V3-Small make it 15 %
# slower. It is added only at sites that cause at least this share of the noise.
LEAST_SHARE = 0.05
COMPARED = 8  # images that noise is measured on


@dataclasses.dataclass(frozen=True)
class Site:
    """A place to equalize: a linear operation and the linear operations that read it."""

    source: str  # its weights are multiplied by the factors
    readers: tuple[str, ...]  # their weights are divided by the factors
    between: tuple[str, ...]  # operations whose outputs are scaled, `source` included
    gate: str | None = None  # of a split hard-swish between them
    product: str | None = None  # of that hard-swish
    shared_scale: bool = False  # whether input channels share the scale of the readers' weights


def find_sites(graph: Graph) -> list[Site]:
    """Return all sites of a graph where channels can be scaled at no cost but a gate's."""
    users = graph.users()
    linear = [op for op in graph.ops.values() if isinstance(op, Linear)]
    found = [before_depthwise(op, graph, users) for op in linear if op.depthwise]
    found += [before_pointwise(op, graph, users) for op in linear if is_pointwise(op)]
    return [site for site in found if site]


def before_depthwise(reader: Linear, graph: Graph, users: Counter[str]) -> Site | None:
    """Return the site in front of a depthwise convolution, or None.

    Its weights have a scale per channel, so the factors do not change their rounding.
    """
    op, between = scaled_source(reader.inputs[0], graph, users)
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
    """Return the site in front of a 1x1 convolution, or None.

    All input channels share the weight scale of an output channel, so that full equalization would
    round weights more coarsely; see `balanced_factors`. Squeeze-and-excitation may lie before the
    convolution: its first layer, behind the pooling, then is a reader too.
    """
    op, between = scaled_source(reader.inputs[0], graph, users)
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
        op = joined
        if commutes_with_factors(joined, graph):
            op, more = scaled_source(name, graph, users, shared=True)
            between += more
        alone = users[op.name] == 1 or op is joined
    else:
        alone = users[op.name] == 1
    if not (alone and isinstance(op, Linear)):
        return None
    return Site(op.name, readers, tuple(between), shared_scale=True)


def squeeze(name: str, product: Join, graph: Graph, users: Counter[str]) -> tuple[str, str] | None:
    """Return (pooling of `name`, its only reader) of squeeze-and-excitation; else None."""
    pool = next(op for op in graph.ops.values() if name in op.inputs and op is not product)
    if (
        not (isinstance(pool, Plain) and commutes_with_factors(pool, graph))
        or users[pool.name] != 1
    ):
        return None
    reader = next(op for op in graph.ops.values() if pool.name in op.inputs)
    return (pool.name, reader.name) if isinstance(reader, Linear) else None


def scaled_source(
    name: str, graph: Graph, users: Counter[str], *, shared: bool = False
) -> tuple[Op, list[str]]:
    """Return (the source of `name` through operations that commute with factors, names passed)."""
    op, between = graph.ops[name], [name]
    while commutes_with_factors(op, graph) and (
        users[op.name] == 1 or (shared and op.name == name)
    ):
        op = graph.ops[op.inputs[0]]
        between.append(op.name)
    return op, between


def is_pointwise(op: Linear) -> bool:
    if op.layer is layers.Dense or op.config.get("groups", 1) > 1:
        return False
    return not op.depthwise and bool(np.all(np.asarray(op.config["kernel_size"]) == 1))


def commutes_with_factors(op: Op, graph: Graph) -> bool:
    """Return whether f(a * x) = a * f(x) for positive factors a per channel."""
    if isinstance(op, Plain):
        return op.keeps_channels(graph.ops[op.inputs[0]])
    return isinstance(op, Activation) and op.function == "relu"


def equalize(graph: Graph, plan: Plan, images: np.ndarray, *, everywhere: bool = False) -> Graph:
    """Return the graph with its channels equalized.

    plan: of the graph before equalization.
    images: (N, H, W, C), to measure the channels' ranges and the noise of each site.
    everywhere: equalize all sites, not only those of `noisy_or_free`.

    Layers kept in float are scaled too, since the activation after them is int8.
    """
    sites = [s for s in find_sites(graph) if plan.fake_quants.intersection(s.between)]
    if not everywhere:
        sites = noisy_or_free(sites, graph, plan, images)
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
            # Ranges include zero, which must be a level: the size counts from there.
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
        if isinstance(op, Activation) and op.name in factors:  # kept in float: multiply its output
            inner = dataclasses.replace(op, name=run.unused(f"{op.name}_float"))
            factor = factors[op.name]
            product = Affine(op.name, (inner.name,), factor, 0.0, shape=op.shape, keep_float=True)
            return inner, product
        return (dataclasses.replace(op, bounds=bounds.get(op.name)),)

    return rewrite(graph, rule)


def noisy_or_free(sites: list[Site], graph: Graph, plan: Plan, images: np.ndarray) -> list[Site]:
    """Return the sites without a gate, which cost nothing, and gated ones that cause much noise."""
    gated = [site for site in sites if site.gate]
    if not gated:
        return sites
    run, some = Run(graph, plan), images[:COMPARED]
    names = [op.name for op in graph.ops.values() if not is_float(op)]
    chosen = [names] + [[n for n in (s.source, s.gate, s.product) if n] for s in gated]
    variants = [Variant(which, int8_weights=True) for which in chosen]
    noise = np.zeros(len(chosen))
    pair = chunk_size(PAIR, some.shape)
    for i in range(0, len(some), pair):
        chunk = some[i : i + pair]
        exact = run(chunk)
        noise += [difference(graph, found, exact) for found in outputs(run, variants, chunk, exact)]
        del exact  # frees memory before the next chunk
    least = LEAST_SHARE * noise[0]
    loud = {site for site, level in zip(gated, noise[1:], strict=True) if level > least}
    return [site for site in sites if not site.gate or site in loud]


def difference(graph: Graph, rounded: dict[str, Any], exact: dict[str, Any]) -> float:
    """Return the relative squared error of the outputs, summed over outputs.

    For scores the logits are compared. A model with a `differences` method, such as a detector,
    measures it itself.
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
    """Minimum, maximum and variance of each channel, (C,) each."""

    low: np.ndarray
    high: np.ndarray
    variance: np.ndarray


def channels_of(graph: Graph, sites: list[Site], images: np.ndarray) -> list[Channels]:
    """Return the statistics of each site's source on images (N, H, W, C)."""
    run, sources = Run(graph), [site.source for site in sites]
    found: dict[str, list[np.ndarray]] = {name: [] for name in sources}
    some = chunk_size(OBSERVED, images.shape)
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
    """Return the factors (C,) for a reader whose input channels share its weight scales.

    Equalizing factors to the power p in [0, 1] that minimizes the expected quantization noise at
    the reader's output: larger p rounds activations less and weights more coarsely.

    size: (C,), the width of each channel's range; variance: (C,), of its values.
    kernel: (C, outputs), the reader's weights.

    Source: https://arxiv.org/abs/2211.10438 (SmoothQuant), where p is one half.
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
    """Return the factors (C,) that scale each channel's maximum to the largest of all."""
    return factors_to(high.max(), high)


def factors_to(reach: float, size: np.ndarray) -> np.ndarray:
    """Return reach / size (C,), at most `LARGEST_FACTOR`."""
    alive = size > reach / LARGEST_FACTOR
    return np.where(alive, reach / np.where(alive, size, 1), LARGEST_FACTOR).astype(np.float32)


def swish_factors(
    low: np.ndarray, high: np.ndarray, energy: np.ndarray
) -> tuple[np.ndarray, tuple[float, float]]:
    """Return (factors (C,), the common range) for the input of a split hard-swish.

    Values below -3 do not matter, since hard-swish is 0 there. The lower end of the range is chosen
    to minimize the noise behind a depthwise reader whose kernels have squared sums `energy` (C,).
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
