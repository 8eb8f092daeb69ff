"""The .tflite reader against TensorFlow's schema and the interpreter, and on damaged files."""

import dataclasses
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from kzoo.weights.readers.flatbuffer import (
    DTYPES,
    OPERATORS,
    TfliteTensor,
    check_order,
    check_size,
    read_tflite,
)

SHARED = Path(__file__).parents[2] / "shared" / "weights"
SCHEMES = ("float32", "dynamic", "int8")


@pytest.fixture(scope="module", params=SCHEMES)
def tflite(request) -> bytes:
    """A small file with two signature outputs, made by the converter itself."""
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(1)
    kernel = tf.constant(rng.normal(size=(3, 3, 3, 16)).astype("float32"))
    depth = tf.constant(rng.normal(size=(3, 3, 16, 1)).astype("float32"))
    dense = tf.constant(rng.normal(size=(16, 80)).astype("float32"))

    class Net(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 16, 16, 3), tf.float32, "image")])
        def __call__(self, image):
            x = tf.nn.relu6(tf.nn.conv2d(image, kernel, 2, "SAME"))
            x = tf.nn.depthwise_conv2d(x, depth, (1, 1, 1, 1), "VALID", dilations=(2, 2))
            return {"map": x, "scores": tf.matmul(tf.reduce_mean(x, (1, 2)), dense)}

    net = Net()
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [net.__call__.get_concrete_function()], net
    )
    if request.param != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if request.param == "int8":
        converter.representative_dataset = lambda: [
            [rng.normal(size=(1, 16, 16, 3)).astype("float32")] for _ in range(8)
        ]
    with warnings.catch_warnings(action="ignore"):  # that no statistics of the input are given
        return converter.convert()


def check_against_interpreter(data: bytes) -> int:
    """Every tensor and operator as the interpreter has them; how many constants were compared."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    # Without delegates, which would replace operators.
    plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = litert.Interpreter(model_content=data, experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    model = read_tflite(data)
    graph, compared = model.graphs[0], 0
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    for i, tensor in enumerate(graph.tensors):
        detail = details[i]
        assert tensor.name == detail["name"]
        assert tensor.shape == tuple(detail["shape"])
        assert np.dtype(tensor.dtype) == detail["dtype"]
        quantization = detail["quantization_parameters"]
        np.testing.assert_array_equal(np.float32(tensor.scales), quantization["scales"])
        np.testing.assert_array_equal(tensor.zero_points, quantization["zero_points"])
        if len(tensor.scales) > 1:
            assert tensor.axis == quantization["quantized_dimension"]
        values = model.array(tensor)
        if values is not None:
            np.testing.assert_array_equal(values, interpreter.get_tensor(i))
            compared += 1
    ops = [op for op in interpreter._get_ops_details() if op["op_name"] != "DELEGATE"]
    assert [op.name for op in graph.operators] == [op["op_name"] for op in ops]
    assert [op.inputs for op in graph.operators] == [tuple(op["inputs"]) for op in ops]
    assert [op.outputs for op in graph.operators] == [tuple(op["outputs"]) for op in ops]
    assert list(graph.inputs) == [d["index"] for d in interpreter.get_input_details()]
    signatures = interpreter.get_signature_list()
    assert {s.key: list(s.inputs) for s in model.signatures} == {
        key: value["inputs"] for key, value in signatures.items()
    }
    return compared


def test_small_files(tflite):
    assert check_against_interpreter(tflite) >= 5
    model = read_tflite(tflite)
    options = {op.name: op.options for op in model.graphs[0].operators}
    assert options["CONV_2D"]["padding"] == "same"
    assert (options["CONV_2D"]["stride_h"], options["CONV_2D"]["activation"]) == (2, "relu6")
    assert options["DEPTHWISE_CONV_2D"]["padding"] == "valid"
    assert options["DEPTHWISE_CONV_2D"]["dilation_w"] == 2


@pytest.mark.parametrize("tflite", ["int8"], indirect=True)
def test_zeros_stand_once(tflite):
    """Written again, an int8 file says the same in less: it shares the zero points of weights."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    from kzoo.tflite.writer import tflite_content

    shared = tflite_content(schema.ModelT.InitFromPackedBuf(tflite))
    # Kernels and biases of two convolutions have 16 channels: three of four vectors are gone.
    assert len(tflite) - len(shared) > 0.9 * 3 * 16 * 8
    assert check_against_interpreter(shared) >= 5
    before, after = (read_tflite(data) for data in (tflite, shared))
    assert after.graphs == before.graphs
    for old, new in zip(before.buffers, after.buffers, strict=True):
        np.testing.assert_array_equal(np.frombuffer(new, np.uint8), np.frombuffer(old, np.uint8))


@pytest.mark.parametrize("name", sorted(path.name for path in SHARED.glob("*.tflite")) or [None])
def test_published_files(name):
    if name is None:
        pytest.skip(f"needs the .tflite files of {SHARED}")
    assert check_against_interpreter((SHARED / name).read_bytes()) > 50


def test_real_values_by_hand(tflite):
    model = read_tflite(tflite)
    for tensor in model.graphs[0].tensors:
        stored = model.array(tensor)
        if stored is None or not tensor.scales:
            continue
        for index in np.ndindex(stored.shape):
            k = index[tensor.axis] if len(tensor.scales) > 1 else 0
            zero = tensor.zero_points[k]
            expected = (int(stored[index]) - zero) * tensor.scales[k]
            assert model.real(tensor)[index] == np.float32(expected)


def test_enums_are_tensorflows():
    schema = pytest.importorskip("tensorflow.lite.python.schema_py_generated")
    for enum, names in ((schema.BuiltinOperator, OPERATORS), (schema.TensorType, DTYPES)):
        values = {value: key for key, value in vars(enum).items() if isinstance(value, int)}
        assert [values[i].lower() for i in range(len(values))] == [name.lower() for name in names]


def test_damaged_files_raise_and_end(tflite):
    """Cut off anywhere, or with bytes overwritten: ValueError or a readable file, and soon."""
    rng = np.random.default_rng(2)
    started, refused = time.process_time(), 0
    for trial in range(400):
        damaged = bytearray(tflite)
        if trial % 2:
            damaged = damaged[: rng.integers(8, len(damaged))]
        for _ in range(rng.integers(1, 8)):
            at = rng.integers(8, len(damaged))
            damaged[at : at + 4] = rng.bytes(min(4, len(damaged) - at))
        try:
            model = read_tflite(bytes(damaged))
            for tensor in model.graphs[0].tensors:
                model.real(tensor)
        except ValueError:
            refused += 1
    assert refused > 100
    assert time.process_time() - started < 60


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a .tflite file"),
        (b"PK\x03\x04 and so on", "not a .tflite file"),
        (b"\x08\0\0\0TFL3", "cut off or damaged"),
        (b"\xff\xff\xff\xffTFL3" + bytes(64), "cut off or damaged"),
    ],
)
def test_what_is_no_tflite(data, message):
    with pytest.raises(ValueError, match=message):
        read_tflite(data)


def test_a_graph_is_in_order(tflite):
    """A file whose operators feed each other in a circle made readers loop for ever."""
    graph = read_tflite(tflite).graphs[0]
    first, last = graph.operators[0], graph.operators[-1]
    check_order(graph)
    back = dataclasses.replace(first, outputs=(*first.outputs, first.inputs[0]))
    for operators, fault in (
        ((last, *graph.operators[:-1]), "too early"),
        ((back, *graph.operators[1:]), "again"),
    ):
        with pytest.raises(ValueError, match=rf"damaged: operator 0 .* {fault}"):
            check_order(dataclasses.replace(graph, operators=operators))


def test_inputs_that_an_operator_needs(tflite):
    """LiteRT 2 reads the weights of a convolution without them, and the process ends."""
    graph = read_tflite(tflite).graphs[0]
    conv = next(op for op in graph.operators if op.name == "CONV_2D")
    x, weights, bias = conv.inputs

    def check(op):
        check_order(dataclasses.replace(graph, operators=(op,)))

    check(conv)
    check(dataclasses.replace(conv, inputs=(x, weights, -1)))
    check(dataclasses.replace(conv, name="UNIDIRECTIONAL_SEQUENCE_LSTM", inputs=(x, -1, bias)))
    check(dataclasses.replace(conv, name="someone's own", custom=True, inputs=(x, -1)))
    for name, inputs, place in (
        ("CONV_2D", (x, -1, bias), 1), ("ADD", (x, -1), 1), ("SOFTMAX", (-1,), 0),
        ("TRANSPOSE_CONV", (weights, bias, -1), 2),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"damaged: operator 0 .* has no input {place}"):
            check(dataclasses.replace(conv, name=name, inputs=inputs))


def test_tensors_of_gigabytes_are_refused():
    """LiteRT allocates what a file declares: 12.9 GB for this one, of a file of 60 kB."""
    tensor = TfliteTensor("a", (1, 8388616, 8, 48), "float32", 0)
    with pytest.raises(ValueError, match=r"takes 12\.9 GB, and at most 1\.1 are read"):
        check_size(tensor, memoryview(b""))
    check_size(dataclasses.replace(tensor, shape=(1, 4096, 4096, 16)), memoryview(b""))
