"""The last step of a conversion, on the flatbuffer: names, signature, float softmax, input dtype.

Conversion from a concrete function is the only one that freezes all variables, but it calls outputs
"Identity" and writes no signature, without which several outputs cannot be told apart.
"""

from typing import Any

import numpy as np

from kzoo.tflite.convert.prepare import FENCE
from kzoo.tflite.writer import as_text, tflite_content

SIGNATURE = "serving_default"


def finish(
    content: bytes, *, input_name: str, output_names: list[str], io: str = "float32",
    outputs: str = "float32", through_float: bool = False,
) -> bytes:  # fmt: skip
    """Return the file with named ports, a signature, and the given dtypes of input and outputs.

    A uint8 or int8 input takes over scale and zero point from the QUANTIZE operator that reads the
    float input; with `through_float` a uint8 input passes through floats, see `float_first`.
    Raises ValueError if the input has no such operator, or the number of outputs is wrong.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    ends = in_order(graph)
    if len(graph.inputs) != 1 or len(ends) != len(output_names):
        raise ValueError(
            f"The converter returned {len(graph.inputs)} inputs and {len(ends)} outputs, the "
            f"model has 1 and {len(output_names)} ({', '.join(output_names)})."
        )
    remove_fences(model)
    if outputs == "int8":
        ends = without_final_dequantize(model, ends)
    else:
        compute_scores_in_float(model)
    if io != "float32" and graph.tensors[graph.inputs[0]].type == schema.TensorType.FLOAT32:
        set_input_dtype(model, io)
        if io == "uint8" and through_float:
            float_first(model)
    names = {int(graph.inputs[0]): input_name, **dict(zip(ends, output_names, strict=True))}
    for i, tensor in enumerate(graph.tensors):
        if i in names:
            tensor.name = names[i]
        elif as_text(tensor.name) in names.values():
            tensor.name = f"{as_text(tensor.name)}_inner"  # inputs and outputs have unique names
    graph.outputs = np.array(ends, np.int32)

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
    signature.inputs = [tensor_map(schema, input_name, graph.inputs[0])]
    signature.outputs = [
        tensor_map(schema, name, index) for name, index in zip(output_names, ends, strict=True)
    ]
    model.signatureDefs = [signature]
    return tflite_content(model)


def in_order(graph: Any) -> list[int]:
    """Return the output tensors in the model's order: Identity, Identity_1, ... in TensorFlow."""

    def position(index: int) -> int:
        number = as_text(graph.tensors[index].name).partition("Identity")[2].lstrip("_")
        return int(number) if number.isdigit() else 0

    ends = [int(i) for i in graph.outputs]
    if all(ends.index(end) == position(end) for end in ends):
        return ends  # also if equal outputs were merged into one tensor, which is listed twice
    if len(set(ends)) < len(ends):
        raise ValueError(
            "The model lists equal outputs, which TensorFlow's converter has made one of in "
            "another order. List each output once."
        )
    return sorted(ends, key=position)


def remove_fences(model: Any) -> None:
    """Remove the FLOOR operators that `fenced` added."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    for op in list(graph.operators):
        before, after = op.inputs[0], op.outputs[0]
        kind = model.operatorCodes[op.opcodeIndex].builtinCode
        if kind != schema.BuiltinOperator.FLOOR or FENCE not in as_text(graph.tensors[after].name):
            continue
        graph.operators = [other for other in graph.operators if other is not op]
        for other in graph.operators:
            other.inputs = np.where(other.inputs == after, before, other.inputs)
        graph.outputs = np.where(graph.outputs == after, before, graph.outputs)


def without_final_dequantize(model: Any, ends: list[int]) -> list[int]:
    """Remove the DEQUANTIZE at the end of outputs; return the new output tensors."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    inner = {
        int(op.outputs[0]): int(op.inputs[0])
        for op in graph.operators
        if model.operatorCodes[op.opcodeIndex].builtinCode == schema.BuiltinOperator.DEQUANTIZE
    }
    read = {int(i) for op in graph.operators for i in op.inputs}
    gone = {end for end in ends if end in inner and end not in read}
    graph.operators = [op for op in graph.operators if int(op.outputs[0]) not in gone]
    return [inner[end] if end in gone else end for end in ends]


def compute_scores_in_float(model: Any) -> None:
    """Move the DEQUANTIZE after SOFTMAX in front of it: int8 probabilities have steps of 1/256.

    A STRIDED_SLICE, which removes a detector's background, may lie between them. The same holds for
    a LOGISTIC with outputs (1, labels), that of a multi-label classifier.
    """
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.BuiltinOperator
    graph = model.subgraphs[0]

    def kind(op: Any) -> int:
        return model.operatorCodes[op.opcodeIndex].builtinCode

    def makes_scores(op: Any) -> bool:
        of_labels = kind(op) == kinds.LOGISTIC and len(graph.tensors[op.outputs[0]].shape) == 2
        return kind(op) == kinds.SOFTMAX or of_labels

    for first in filter(makes_scores, list(graph.operators)):
        chain = [first]
        while True:
            readers = [op for op in graph.operators if chain[-1].outputs[0] in op.inputs]
            if len(readers) != 1 or kind(readers[0]) != kinds.STRIDED_SLICE:
                break
            chain.append(readers[0])
        if len(readers) != 1 or kind(readers[0]) != kinds.DEQUANTIZE:
            continue
        # Each operator takes over the next one's output tensor; DEQUANTIZE becomes the first.
        (dequantize,) = readers
        shapes = [graph.tensors[op.outputs[0]].shape for op in chain]
        written = [op.outputs for op in [*chain, dequantize]]
        logits, rest = first.inputs, [op.inputs[1:] for op in chain]
        dequantize.inputs, dequantize.outputs = logits, written[0]
        graph.tensors[written[0][0]].type = schema.TensorType.FLOAT32
        graph.tensors[written[0][0]].quantization = None
        for op, more, shape, source, target in zip(
            chain, rest, shapes, written[:-1], written[1:], strict=True
        ):
            op.inputs, op.outputs = np.append(source, more).astype(np.int32), target
            tensor = graph.tensors[target[0]]
            tensor.type, tensor.quantization, tensor.shape = schema.TensorType.FLOAT32, None, shape
        order = [op for op in graph.operators if op is not dequantize]
        order.insert(next(k for k, op in enumerate(order) if op is first), dequantize)
        graph.operators = order


def set_input_dtype(model: Any, io: str) -> None:
    """Change the float32 input to `io`, uint8 or int8. Raises ValueError without a QUANTIZE."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    source = graph.inputs[0]
    readers = [op for op in graph.operators if source in op.inputs]
    codes = [model.operatorCodes[op.opcodeIndex].builtinCode for op in readers]
    if codes != [schema.BuiltinOperator.QUANTIZE]:
        raise ValueError(
            f'io="{io}" needs a quantized graph right behind the input, and the input feeds '
            f'{len(readers)} operators that read floats. Use io="float32".'
        )
    quantize, tensor = readers[0], graph.tensors[source]
    inner = graph.tensors[quantize.outputs[0]]
    if io == "int8":
        graph.inputs = np.array([quantize.outputs[0]], np.int32)
        graph.operators = [op for op in graph.operators if op is not quantize]
        return
    tensor.type = schema.TensorType.UINT8
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = inner.quantization.scale
    tensor.quantization.zeroPoint = inner.quantization.zeroPoint + 128


def float_first(model: Any) -> None:
    """Insert a DEQUANTIZE before the QUANTIZE that converts a uint8 input to int8.

    The result is the same, bit for bit. XNNPACK has no operator from uint8 to int8, and LiteRT's
    own kernel takes .6 ns a byte on x86: 15 % of the time of a MobileNetV3-Small. The two operators
    through float32 run in XNNPACK and take a tenth of that (tests/bench/input_op.py), but need four
    bytes of memory for each byte of the image.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    (quantize,) = [op for op in graph.operators if graph.inputs[0] in op.inputs]
    image = graph.tensors[graph.inputs[0]]
    real = schema.TensorT()
    real.name, real.shape, real.shapeSignature = "image_real", image.shape, image.shapeSignature
    real.type, real.buffer = schema.TensorType.FLOAT32, 0
    graph.tensors.append(real)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 1
    model.operatorCodes.append(code)
    dequantize = schema.OperatorT()
    dequantize.opcodeIndex = len(model.operatorCodes) - 1
    dequantize.inputs = graph.inputs[:1]
    dequantize.outputs = quantize.inputs = np.array([len(graph.tensors) - 1], np.int32)
    graph.operators.insert(graph.operators.index(quantize), dequantize)


def tensor_map(schema: Any, name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, int(index)
    return entry
