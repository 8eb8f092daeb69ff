"""Browsers: LiteRT.js, on the CPU by WebAssembly and on the GPU by WebGPU.

Both are LiteRT's own delegates, XNNPACK and ML Drift, compiled for the browser
(litert/js/packages/core/README.md). LiteRT.js refuses int8 inputs: tests/clients/clients.py.
"""

import dataclasses

from kzoo.tflite.inspect.targets.gpu import GPU, TREE
from kzoo.tflite.inspect.targets.xnnpack import CPU

INPUTS = frozenset({"float32", "uint8", "int32"})
CORE = TREE + "litert/js/packages/core/README.md"

WASM = dataclasses.replace(
    CPU, key="wasm", title="Browser, CPU (LiteRT.js, WebAssembly)", inputs=INPUTS, source=CORE
)
WEBGPU = dataclasses.replace(
    GPU,
    key="webgpu",
    title="Browser, GPU (LiteRT.js, WebGPU)",
    inputs=INPUTS,
    source=CORE,
    otherwise="in a browser with JSPI they run on the CPU, in others the whole file does",
)
