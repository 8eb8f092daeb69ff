"""Quantization noise of each layer of a .tflite file, compared with the Keras model.

TensorFlow keeps a layer's name in the names of its tensors. A copy of the file has these tensors as
outputs, so that they are computed by the file's own kernels. Each is compared with the output of
the Keras layer, for the model's own activations as input and for the file's.
"""

import dataclasses
import itertools
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from kzoo.quantization.read import functional
from kzoo.tflite.inspect.audit import computed
from kzoo.tflite.ports import by_name, layer_of
from kzoo.tflite.runtime.runner import Runner
from kzoo.weights.readers.flatbuffer import TfliteGraph, read_tflite

TINY = np.finfo(np.float64).tiny


@dataclasses.dataclass(frozen=True)
class LayerNoise:
    """Signal-to-noise ratio of one layer's output in the file compared with the model, in dB."""

    name: str
    own_db: float  # noise of this layer alone: the Keras layer gets the file's activations
    sqnr_db: float  # noise of this layer and all before it: the Keras model gets the image

    def __str__(self) -> str:
        return f"{self.name}: {self.own_db:.1f} dB of its own, {self.sqnr_db:.1f} dB in all"


def noise_by_layer(
    model: Any, path: str | os.PathLike[str], images: np.ndarray
) -> tuple[LayerNoise, ...]:
    """Return the noise of the layers that model and file share, the noisiest layer first.

    images: (N, H, W, 3) in [0, 255]; about 8 are enough.

    Channels are rescaled by least squares before they are compared, since `kzoo.quantize` moves
    factors between layers. Empty if `model` is not a functional Keras model, or no tensor of the
    file has the name of one of its layers.
    """
    model = functional(model)
    if not isinstance(model, keras.Model) or not getattr(model, "operations", None):
        return ()
    graph = read_tflite(path).graphs[0]
    calls = calls_in(model)
    tensors = outputs_of_layers(calls, graph)
    own = {layer for op in graph.operators for t in op.outputs for layer in layers_of(graph, t)}
    taps = {name: fused(calls[name][0].output_tensors[0], own, calls) for name in tensors}
    taps = {name: tap for name, tap in taps.items() if is_compared(tap, calls)}
    if not taps:
        return ()
    whole, alone = keras.Model(model.inputs, taps), steps(model, taps)
    in_all, of_its_own = Sums(), Sums()
    with tempfile.TemporaryDirectory(prefix="kzoo_layers_") as folder:
        copy = Path(folder, "layers.tflite")
        copy.write_bytes(
            with_outputs(Path(path).read_bytes(), {name: tensors[name] for name in taps})
        )
        runner = Runner(copy)

        for image in images:
            want = whole([image[None].astype("float32")], training=False)
            for name, b in by_name(runner(image), list(taps)).items():
                in_all.add(name, want[name], b)
        for image in images:
            got = by_name(runner(image), list(taps))
            given = {name: in_all.scaled(name, got[name]) for name in in_all.found}
            given[""] = image[None].astype("float32")
            for name, (sources, step) in alone.items():
                if name in given and all(source in given for source in sources):
                    want = step([given[source] for source in sources], training=False)
                    of_its_own.add(name, want, got[name])
    noises = (
        LayerNoise(name, of_its_own.sqnr_db(name), in_all.sqnr_db(name))
        for name in of_its_own.found
    )
    return tuple(sorted(noises, key=lambda layer: layer.own_db))


class Sums:
    """Sums by layer and channel of the model's squared outputs, the file's, and their products."""

    def __init__(self):
        self.found: dict[str, np.ndarray] = {}  # {layer: (3, channels)}
        self.shapes: dict[str, tuple[int, ...]] = {}  # in the model

    def add(self, name: str, model: Any, file: np.ndarray) -> None:
        """Add one image's outputs, channels last; ignored if their sizes differ."""
        a = keras.ops.convert_to_numpy(model).astype(np.float64)
        if a.size == file.size:
            self.shapes[name] = a.shape
            a = a.reshape(-1, a.shape[-1])
            b = file.reshape(a.shape)
            self.found[name] = self.found.get(name, 0) + np.stack([a * a, b * b, a * b]).sum(1)

    def scaled(self, name: str, file: np.ndarray) -> np.ndarray:
        """Return the file's values, each channel scaled to the model's by least squares."""
        signal, square, both = self.found[name]
        seen = square > 1e-12 * signal  # other channels are zero in the file
        factor = np.where(seen, both, 0.0) / np.where(seen, square, 1.0)
        return (file.reshape(self.shapes[name]) * factor).astype("float32")

    def sqnr_db(self, name: str) -> float:
        """Return the signal-to-noise ratio of the scaled values, in dB."""
        square, file, both = self.found[name]
        signal = square.sum()
        noise = signal - (both**2 / np.maximum(file, TINY)).sum()
        return float(10 * np.log10(signal / noise)) if noise > signal * 1e-15 else np.inf


Calls = dict[str, list[Any]]  # the nodes of each layer


def calls_in(model: keras.Model) -> Calls:
    """Return the calls of each layer in this model's graph, not those in other models."""
    found: Calls = {}
    todo, seen = list(model.outputs), set()
    while todo:
        history = todo.pop()._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        if id(node) not in seen:
            seen.add(id(node))
            found.setdefault(history.operation.name, []).append(node)
            todo += node.input_tensors
    return found


def outputs_of_layers(calls: Calls, graph: TfliteGraph) -> dict[str, int]:
    """Return the file's tensor of each layer that is called once: the last with its name."""
    once = {
        name for name, (node, *more) in calls.items() if not more and len(node.output_tensors) == 1
    }
    known = computed(graph)
    found = {}
    for operator in graph.operators:
        for index in known.intersection(operator.outputs):
            name = layers_of(graph, index)[0]
            if name in once and graph.tensors[index].dtype != "int32":
                found[name] = index
    return found


def layers_of(graph: TfliteGraph, tensor: int) -> list[str]:
    """Return the names of layers in a tensor's name; of fused layers the last comes first."""
    return [layer_of(part) for part in graph.tensors[tensor].name.split(";")]


def fused(tensor: Any, own: Collection[str], calls: Calls) -> Any:
    """Return the model's tensor after the layers fused into this one: batch norm, fake-quant.

    own: the layers that have tensors in the file. Stops before a fake-quant that several tensors
    share, since Keras builds no model from one output of a layer to another.
    """
    while True:
        nodes = readers(tensor, calls)
        ends = [x for node in nodes for x in (*node.input_tensors, *node.output_tensors)]
        if len(nodes) != 1 or nodes[0].operation.name in own or len(ends) != 2:
            return tensor
        if len(calls[nodes[0].operation.name]) != 1:
            return tensor
        tensor = ends[1]


def readers(tensor: Any, calls: Calls) -> list[Any]:
    """Return the nodes of a functional graph that read a tensor."""
    nodes = itertools.chain.from_iterable(calls.values())
    return [node for node in nodes if any(t is tensor for t in node.input_tensors)]


def is_compared(tensor: Any, calls: Calls) -> bool:
    """Return whether differences at this tensor are noise.

    Not before the first convolution, which compensates for the file's other pixel scaling, and not
    before an activation, which may clip the difference.
    """
    pixels = (layers.Rescaling, layers.ZeroPadding2D, layers.InputLayer)
    activations = (layers.Activation, layers.ReLU)
    operations = [node.operation for node in readers(tensor, calls)]
    return not isinstance(tensor._keras_history.operation, pixels) and not (
        operations and all(isinstance(operation, activations) for operation in operations)
    )


def steps(model: keras.Model, taps: Mapping[str, Any]) -> dict[str, tuple[list[str], keras.Model]]:
    """Return for each layer (names of the nearest compared layers before it, the model between).

    The name of the model's input is "".
    """
    names = {id(tap): name for name, tap in taps.items()} | {id(model.inputs[0]): ""}
    found = {}
    for name, tap in taps.items():
        sources, todo, seen = {}, [tap], {id(tap)}
        while todo:
            history = todo.pop()._keras_history
            for tensor in history.operation._inbound_nodes[history.node_index].input_tensors:
                if id(tensor) in names:
                    sources[names[id(tensor)]] = tensor
                elif id(tensor) not in seen:
                    seen.add(id(tensor))
                    todo.append(tensor)
        found[name] = list(sources), keras.Model(list(sources.values()), tap)
    return found


def with_outputs(content: bytes, tensors: Mapping[str, int]) -> bytes:
    """Return the file with these tensors as its outputs, under these names."""
    from ai_edge_litert import schema_py_generated as schema

    from kzoo.tflite.writer import tflite_content

    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    for name, index in tensors.items():
        graph.tensors[index].name = name
    graph.outputs = np.array(list(tensors.values()), np.int32)
    model.signatureDefs, model.metadata = [], []
    return tflite_content(model)
