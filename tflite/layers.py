"""Along which layers of a model its .tflite file loses the signal.

TensorFlow keeps a layer's name in the names of its tensors. A copy of the file hands those out as
outputs, so that they are computed by the kernels that the file runs on, and each is held against
what the layer gives in Keras.
"""

import dataclasses
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from kzoo.flatbuffer import TfliteGraph, read_tflite
from kzoo.tflite.audit import computed
from kzoo.tflite.run import Runner
from kzoo.tflite.translate import layer_of


@dataclasses.dataclass(frozen=True)
class LayerNoise:
    """What is left of the signal behind one layer of the model."""

    name: str
    sqnr_db: float  # of its output in the file
    before_db: float  # the lowest of the layers that it is computed from; inf for the first

    @property
    def added(self) -> float:
        """Noise over signal that was not there before."""
        return 10 ** (-self.sqnr_db / 10) - 10 ** (-self.before_db / 10)

    def __str__(self) -> str:
        return f"{self.name}: {self.sqnr_db:.1f} dB, before it {self.before_db:.1f} dB"


def noise_by_layer(
    model: Any, path: str | os.PathLike, pictures: np.ndarray
) -> tuple[LayerNoise, ...]:
    """The layers that both have, those that add most noise first; some 8 `pictures` do.

    Channels are compared but for a factor each: `kzoo.quantize` moves those between layers. Empty
    where `model` is no functional Keras model, or the file's tensors are called otherwise.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "operations", None):
        return ()
    graph = read_tflite(path).graphs[0]
    tensors = outputs_of_layers(model, graph)
    own = {layer for op in graph.operators for t in op.outputs for layer in layers_of(graph, t)}
    taps = {name: fused(model.get_layer(name).output, own) for name in tensors}
    taps = {name: tap for name, tap in taps.items() if is_compared(tap)}
    if not taps:
        return ()
    tensors, asked = {name: tensors[name] for name in taps}, keras.Model(model.inputs, taps)
    sums: dict[str, np.ndarray] = {}  # (3, channels): of the squares of both, of their product
    with tempfile.TemporaryDirectory(prefix="kzoo_layers_") as folder:
        copy = Path(folder, "layers.tflite")
        copy.write_bytes(with_outputs(Path(path).read_bytes(), tensors))
        runner = Runner(copy)
        for picture in pictures:
            got = runner(picture)
            if len(tensors) == 1:
                got = {runner.outputs[0].name: got}
            want = asked([picture[None].astype("float32")], training=False)
            for name, b in got.items():
                a = keras.ops.convert_to_numpy(want[name]).astype(np.float64)
                if a.size != b.size:
                    continue
                a = a.reshape(-1, a.shape[-1])
                b = b.reshape(a.shape)
                found = np.stack([(a * a).sum(0), (b * b).sum(0), (a * b).sum(0)])
                sums[name] = sums.get(name, 0) + found
    decibels = {name: sqnr_db(*sums[name]) for name in tensors if name in sums}
    before = sources(graph, {tensors[name]: name for name in decibels})
    noises = (
        LayerNoise(name, value, min((decibels[b] for b in before[name]), default=np.inf))
        for name, value in decibels.items()
    )
    return tuple(sorted(noises, key=lambda layer: -layer.added))


def sqnr_db(model: np.ndarray, file: np.ndarray, both: np.ndarray) -> float:
    """Signal to noise from sums over each channel, the file's times the factor that fits best."""
    signal = model.sum()
    noise = signal - (both**2 / np.maximum(file, np.finfo(np.float64).tiny)).sum()
    return float(10 * np.log10(signal / noise)) if noise > signal * 1e-15 else np.inf


def outputs_of_layers(model: keras.Model, graph: TfliteGraph) -> dict[str, int]:
    """{layer of the model: the tensor with its output, the last one of its name}."""
    once = {layer.name for layer in model.layers if len(layer._inbound_nodes) == 1}
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


def fused(tensor: Any, own: Collection[str]) -> Any:
    """The tensor behind what the file tells nothing of: a folded batch norm, a rounding.

    `own` are the layers that it tells of.
    """
    while True:
        nodes = readers(tensor)
        if len(nodes) != 1 or nodes[0].operation.name in own or len(nodes[0].input_tensors) != 1:
            return tensor
        (tensor,) = nodes[0].output_tensors


def readers(tensor: Any) -> list[Any]:
    """The nodes of a functional graph that read a tensor."""
    nodes = tensor._keras_history.operation._outbound_nodes
    return [node for node in nodes if any(t is tensor for t in node.input_tensors)]


def is_compared(tensor: Any) -> bool:
    """Whether a difference there is one.

    Pixels are scaled otherwise in the file, which the first convolution takes back, and rounding
    what an activation cuts off costs nothing.
    """
    pixels = (layers.Rescaling, layers.ZeroPadding2D, layers.InputLayer)
    activations = (layers.Activation, layers.ReLU)
    operations = [node.operation for node in readers(tensor)]
    return not isinstance(tensor._keras_history.operation, pixels) and not (
        operations and all(isinstance(operation, activations) for operation in operations)
    )


def sources(graph: TfliteGraph, names: Mapping[int, str]) -> dict[str, set[str]]:
    """For each named tensor the named ones nearest before it."""
    producer = {t: op for op in graph.operators for t in op.outputs}
    found: dict[str, set[str]] = {}
    for start, name in names.items():
        found[name], todo, seen = set(), [start], {start}
        while todo:
            operator = producer.get(todo.pop())
            for t in operator.inputs if operator else ():
                if t in names:
                    found[name].add(names[t])
                elif t not in seen:
                    seen.add(t)
                    todo.append(t)
    return found


def with_outputs(content: bytes, tensors: Mapping[str, int]) -> bytes:
    """The file with these tensors as its outputs, under these names."""
    from ai_edge_litert import schema_py_generated as schema

    from kzoo.tflite.flat import AlignedBuilder

    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    for name, index in tensors.items():
        graph.tensors[index].name = name
    graph.outputs = np.array(list(tensors.values()), np.int32)
    model.signatureDefs, model.metadata = [], []
    builder = AlignedBuilder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
