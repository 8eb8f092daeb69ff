"""Along which layers of a model its .tflite file loses the signal.

TensorFlow keeps a layer's name in the names of its tensors. A copy of the file hands those out as
outputs, so that they are computed by the kernels that the file runs on, and each is held against
what the layer gives in Keras: to the model's own inputs, and to what the file hands it.
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
    """What is left of the signal behind one layer of the model."""

    name: str
    own_db: float  # had the model's layer been given what the file's was: the layer's own noise
    sqnr_db: float  # had the model computed all before it as well

    def __str__(self) -> str:
        return f"{self.name}: {self.own_db:.1f} dB of its own, {self.sqnr_db:.1f} dB in all"


def noise_by_layer(
    model: Any, path: str | os.PathLike[str], images: np.ndarray
) -> tuple[LayerNoise, ...]:
    """The layers that both have, those that add most noise first; some 8 `images` do.

    Channels are compared but for a factor each: `kzoo.quantize` moves those between layers. Empty
    where `model` is no functional Keras model, or the file's tensors are called otherwise.
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
    """Of what a model's layers give, squared, of what a file's do, and of both, by channel."""

    def __init__(self):
        self.found: dict[str, np.ndarray] = {}  # {layer: (3, channels)}
        self.shapes: dict[str, tuple[int, ...]] = {}  # in the model

    def add(self, name: str, model: Any, file: np.ndarray) -> None:
        """Values of any shapes with as many in them, channels last."""
        a = keras.ops.convert_to_numpy(model).astype(np.float64)
        if a.size == file.size:
            self.shapes[name] = a.shape
            a = a.reshape(-1, a.shape[-1])
            b = file.reshape(a.shape)
            self.found[name] = self.found.get(name, 0) + np.stack([a * a, b * b, a * b]).sum(1)

    def scaled(self, name: str, file: np.ndarray) -> np.ndarray:
        """The file's values times the factor of each channel that fits the model's best."""
        signal, square, both = self.found[name]
        seen = square > 1e-12 * signal  # else there is nothing to scale
        factor = np.where(seen, both, 0.0) / np.where(seen, square, 1.0)
        return (file.reshape(self.shapes[name]) * factor).astype("float32")

    def sqnr_db(self, name: str) -> float:
        """Signal to noise of the scaled values."""
        square, file, both = self.found[name]
        signal = square.sum()
        noise = signal - (both**2 / np.maximum(file, TINY)).sum()
        return float(10 * np.log10(signal / noise)) if noise > signal * 1e-15 else np.inf


Calls = dict[str, list[Any]]  # the nodes of each layer


def calls_in(model: keras.Model) -> Calls:
    """Of the layers in the model's own graph; in those of other models they may be called too."""
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
    """{layer with one output: the tensor that holds it, the last one of its name}."""
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
    """The layers that a tensor is named after: of those fused into one, the last comes first."""
    return [layer_of(part) for part in graph.tensors[tensor].name.split(";")]


def fused(tensor: Any, own: Collection[str], calls: Calls) -> Any:
    """The tensor behind what the file tells nothing of: a folded batch norm, a rounding.

    `own` are the layers that it tells of. It ends before a rounding that tensors share, since Keras
    makes no model from one output of a layer to another.
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
    """The nodes of a functional graph that read a tensor."""
    nodes = itertools.chain.from_iterable(calls.values())
    return [node for node in nodes if any(t is tensor for t in node.input_tensors)]


def is_compared(tensor: Any, calls: Calls) -> bool:
    """Whether a difference there is one.

    Pixels are scaled otherwise in the file, which the first convolution takes back, and rounding
    what an activation cuts off costs nothing.
    """
    pixels = (layers.Rescaling, layers.ZeroPadding2D, layers.InputLayer)
    activations = (layers.Activation, layers.ReLU)
    operations = [node.operation for node in readers(tensor, calls)]
    return not isinstance(tensor._keras_history.operation, pixels) and not (
        operations and all(isinstance(operation, activations) for operation in operations)
    )


def steps(model: keras.Model, taps: Mapping[str, Any]) -> dict[str, tuple[list[str], keras.Model]]:
    """{layer: the nearest ones before it ("": the model's input), what computes it from those}."""
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
    """The file with these tensors as its outputs, under these names."""
    from ai_edge_litert import schema_py_generated as schema

    from kzoo.tflite.writer import tflite_content

    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    for name, index in tensors.items():
        graph.tensors[index].name = name
    graph.outputs = np.array(list(tensors.values()), np.int32)
    model.signatureDefs, model.metadata = [], []
    return tflite_content(model)
