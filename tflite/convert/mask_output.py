"""`end_in_mask`: make a segmenter's file output its mask, uint8 class ids, instead of logits.

keras.ops.argmax of floats does not convert; here ARG_MAX reads the int8 logits. The mask has about
a hundredth of the bytes of float logits of 21 classes.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.files import replacing
from kzoo.tflite.inspect.audit import audit, require_sound


def end_in_mask(file: str | os.PathLike[str]) -> Path:
    """Rewrite a .tflite file with one output (1, h, w, classes) to output a mask, uint8 (1, h, w).

    Returns the file's path. Its metadata, which describe the old output, are removed. Raises
    ValueError for a file with other outputs.
    """
    from ai_edge_litert import schema_py_generated as schema

    from kzoo.tflite.writer import as_text, tflite_content

    file = Path(file)
    model = schema.ModelT.InitFromPackedBuf(file.read_bytes())
    graph = model.subgraphs[0]
    shapes = [tuple(int(n) for n in graph.tensors[i].shape) for i in graph.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or not 2 <= shapes[0][-1] <= 256:
        raise ValueError(
            f"{file} is not a segmenter with one output (1, h, w, 2 to 256 classes): its outputs "
            f"are {', '.join(map(str, shapes))}."
        )
    source = int(graph.outputs[0])
    writer = next(op for op in graph.operators if source in op.outputs)
    if model.operatorCodes[writer.opcodeIndex].builtinCode == schema.BuiltinOperator.DEQUANTIZE:
        graph.operators.remove(writer)
        source = int(writer.inputs[0])
    axis = add_tensor(schema, model, "axis", (), schema.TensorType.INT32, np.int32(3).tobytes())
    sides = shapes[0][:-1]
    ids = add_tensor(schema, model, "ids", sides, schema.TensorType.INT32)
    mask = add_tensor(schema, model, "mask", sides, schema.TensorType.UINT8)
    argmax, cast = schema.ArgMaxOptionsT(), schema.CastOptionsT()
    argmax.outputType = cast.inDataType = schema.TensorType.INT32
    cast.outDataType = schema.TensorType.UINT8
    add_operator(schema, model, "ARG_MAX", [source, axis], ids, "ArgMaxOptions", argmax)
    add_operator(schema, model, "CAST", [ids], mask, "CastOptions", cast)
    graph.outputs = np.array([mask], np.int32)
    for signature in model.signatureDefs or ():
        signature.outputs[0].name, signature.outputs[0].tensorIndex = "mask", mask
    model.metadata = [
        entry for entry in model.metadata or () if as_text(entry.name) != "TFLITE_METADATA"
    ]
    with replacing(file) as draft:
        draft.write_bytes(tflite_content(model))
        require_sound(audit(draft), file)
    return file


def add_tensor(
    schema: Any, model: Any, name: str, shape: tuple[int, ...], kind: int, content: bytes = b""
) -> int:
    """Add a tensor to the first graph and return its index."""
    tensor, buffer = schema.TensorT(), schema.BufferT()
    buffer.data = np.frombuffer(content, np.uint8) if content else None
    model.buffers.append(buffer)
    tensor.name, tensor.type, tensor.buffer = name, kind, len(model.buffers) - 1
    tensor.shape = np.array(shape, np.int32)
    tensors = model.subgraphs[0].tensors
    tensors.append(tensor)
    return len(tensors) - 1


def add_operator(
    schema: Any, model: Any, name: str, inputs: list[int], output: int, kind: str, options: Any
) -> None:
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), VERSIONS[name]
    model.operatorCodes.append(code)
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs = np.array(inputs, np.int32)
    operator.outputs = np.array([output], np.int32)
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
    operator.builtinOptions = options
    model.subgraphs[0].operators.append(operator)


# Versions of the operators: ARG_MAX supports int8 from version 2 on.
VERSIONS = {"ARG_MAX": 2, "CAST": 1}
