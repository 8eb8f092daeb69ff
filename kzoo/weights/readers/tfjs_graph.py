"""Reader of TensorFlow.js graph models: frozen TensorFlow graphs with folded batch norms."""

import pathlib
import re
from typing import Any

import numpy as np

from kzoo.weights.checkpoint import Checkpoint, Unit

CONVOLUTIONS = {"Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative",
                "MatMul", "_FusedMatMul"}  # fmt: skip
SUMS = {"Add", "AddV2", "BiasAdd"}
SLIM_SCOPE = re.compile(r"Mobilenet(V\d)?/")  # of TF-slim's backbones
Node = dict[str, Any]


def from_graph(file: pathlib.Path, nodes: list[Node], arrays: dict[str, np.ndarray]) -> Checkpoint:
    """Return a checkpoint of the convolutions in graph order.

    In a graph with a TF-slim backbone, convolutions outside its scope are the head. Padding is
    always "same"; the input scaling is unknown.
    """
    body: list[Unit] = []
    head: list[Unit] = []
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in map(node_name, node.get("input", ())):
            readers.setdefault(name, []).append(node)
    for node in reading_order(nodes):
        if node["op"] in CONVOLUTIONS:
            unit = unit_of(node, readers.get(node["name"], []), arrays)
            (body if SLIM_SCOPE.search(unit.name) else head).append(unit)
    if not body:
        body, head = head, []
    return Checkpoint(
        str(file), "TensorFlow.js graph", (*body, *head), "same", None, None, len(head)
    )


def unit_of(node: Node, readers: list[Node], arrays: dict[str, np.ndarray]) -> Unit:
    _, weights, *fused = map(node_name, node["input"])
    if weights not in arrays:
        raise ValueError(f"{node['name']!r} has no constant weights.")
    kernel = arrays[weights]
    if node["op"].endswith("MatMul"):
        if node.get("attr", {}).get("transpose_b", {}).get("b"):
            kernel = kernel.T
        kernel = kernel[None, None]
    names = fused or [
        name for reader in readers if reader["op"] in SUMS
        for name in map(node_name, reader["input"]) if name != node["name"]
    ]  # fmt: skip
    biases = [arrays[name] for name in names[:1] if name in arrays]
    return Unit(weights, kernel, biases[0].reshape(-1) if biases else None)


def node_name(name: str) -> str:
    """Return the node of an input: "TopKV2:1" is output 1 of TopKV2, "^a" a control input."""
    return name.removeprefix("^").partition(":")[0]


def reading_order(nodes: list[Node]) -> list[Node]:
    """Return the nodes in topological order; branches in the order in which a node reads them."""
    by_name = {node["name"]: node for node in nodes}
    reads = {name: [n for n in map(node_name, node.get("input", ())) if n in by_name]
             for name, node in by_name.items()}  # fmt: skip
    stack = list(reversed([name for name in by_name if name not in {
        n for inputs in reads.values() for n in inputs}]))  # fmt: skip
    found: dict[str, Node] = {}
    opened: set[str] = set()
    while stack:
        name = stack[-1]
        before = [n for n in reads[name] if n not in found and n not in opened]
        opened.add(name)
        if before:
            stack += reversed(before)
        else:
            found.setdefault(name, by_name[stack.pop()])
    return list(found.values())
