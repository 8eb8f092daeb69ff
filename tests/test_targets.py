"""What the targets' tables say of files, against counts by hand and XNNPACK itself."""

import dataclasses
import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest

import kzoo
from kzoo.recipes.cli import main
from kzoo.tflite import audit, convert, targets
from kzoo.tflite.inspect.targets.rules import Answer, Operation
from kzoo.tflite.inspect.targets.verdicts import GROUPS, TARGETS, layer, partitions, verdict
from kzoo.weights.readers.flatbuffer import (
    OPERATORS,
    TfliteGraph,
    TfliteModel,
    TfliteOperator,
    TfliteTensor,
    read_tflite,
)

WEIGHTS = Path(__file__).parents[2] / "shared" / "weights"
others = pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"{WEIGHTS} is not here")
makes_files = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="files are made by TensorFlow"
)
KEYS = [
    "cpu",
    "gpu",
    "gpu-ir",
    "qualcomm",
    "mediatek",
    "tensor",
    "edgetpu",
    "wasm",
    "webgpu",
    "micro",
]

# How many operators each target refuses, counted by hand: the lists read beside the operators.
REFUSED = {
    "mobilenet_v2_1.0_224_quant": (2, 0, 55, 0, 0, 0, 0, 2, 0, 65),
    "tf2_mobilenet_v2_1.0_224_ptq": (3, 0, 54, 0, 0, 0, 0, 3, 0, 0),
    "mobilenet_v1_0.25_224_float": (1, 1, 1, 1, 1, 0, 31, 1, 1, 0),
    "coral_deeplabv3_mnv2_dm05_pascal_quant": (2, 1, 60, 0, 1, 0, 1, 2, 1, 72),
    "keras_mobilenet_v3_small_1.0_224_dynrange_int8": (8, 0, 0, 0, 0, 0, 111, 8, 0, 47),
}


@others
@pytest.mark.parametrize("name", REFUSED)
def test_other_peoples_files(name):
    found = targets(WEIGHTS / f"{name}.tflite")
    assert [v.target.key for v in found] == KEYS
    assert tuple(len(v.refused) for v in found) == REFUSED[name]


@others
@pytest.mark.parametrize("name", REFUSED)
def test_the_table_of_xnnpack_is_what_xnnpack_does(name):
    found = audit(WEIGHTS / f"{name}.tflite")
    cpu = found.targets[0]
    assert tuple(finding.index for finding in cpu.refused) == found.run.outside
    assert cpu.partitions == found.partitions


@makes_files
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["float32", "float16", "dynamic", "int8"])
def test_the_table_of_xnnpack_on_files_of_our_own(scheme, tiny, unseen, tmp_path):
    found = audit(convert(tiny, tmp_path / "a.tflite", scheme=scheme, calibration=unseen[0][:20]))
    assert tuple(finding.index for finding in found.targets[0].refused) == found.run.outside


def test_the_names_are_those_of_the_schema():
    for target in TARGETS.values():
        assert set(target.rules) <= set(OPERATORS)
        assert target.source.startswith("https://")
        assert set(target.remedies) - {""} <= set(OPERATORS)
    assert {key for keys in GROUPS.values() for key in keys} == set(KEYS) == set(TARGETS)


INT8, FLOAT = "int8", "float32"


def one_op(
    kind: str, *dtypes: str, shape=(1, 4, 4, 8), constants=(), custom=False, **options
) -> TfliteModel:
    """A file of one operator: `dtypes` of its input and output, then of `constants`."""
    names = [TfliteTensor(f"net/layer/{i}", shape, d, 0, (0.1,)) for i, d in enumerate(dtypes)]
    buffers = [memoryview(b"")]
    for value in constants:
        buffers.append(memoryview(value.tobytes()))
        names.append(TfliteTensor("c", value.shape, str(value.dtype), len(buffers) - 1))
    inputs = (0, *range(2, len(names)))
    op = TfliteOperator(kind, 1, inputs, (1,), options, custom)
    graph = TfliteGraph("main", tuple(names), (0,), (1,), (op,))
    return TfliteModel("", (graph,), tuple(buffers), {}, ())


KERNEL, BIAS = np.zeros((8, 1, 1, 8), np.int8), np.zeros(8, np.int32)
HALF = np.zeros((8, 1, 1, 8), np.float16)


def axes(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.mark.parametrize(
    ("file", "says"),
    [  # the answers that are not "yes", by target
        # LiteRT#8598: accepted by 2.1.3, refused by 2.1.5 and 2.1.6
        (one_op("RELU_0_TO_1", FLOAT, FLOAT),
         {"cpu": "no", "wasm": "no", "gpu": "unknown", "webgpu": "unknown", "gpu-ir": "no",
          "mediatek": "no", "tensor": "unknown", "edgetpu": "no", "micro": "no"}),
        # Qualcomm and MediaTek have the one operator; XNNPACK and the Edge TPU do not, in int8.
        (one_op("HARD_SWISH", INT8, INT8),
         {"cpu": "no", "wasm": "no", "edgetpu": "no", "tensor": "unknown"}),
        (one_op("RELU6", INT8, INT8),
         {"cpu": "no", "wasm": "no", "gpu-ir": "no", "mediatek": "no", "tensor": "unknown"}),
        (one_op("CONV_2D", INT8, INT8, constants=(KERNEL, BIAS)),
         {"gpu-ir": "no", "tensor": "unknown"}),
        (one_op("CONV_2D", INT8, INT8, constants=(KERNEL, BIAS), dilation_w=2, dilation_h=1),
         {"gpu-ir": "no", "tensor": "unknown", "edgetpu": "no"}),
        (one_op("CONV_2D", INT8, INT8, constants=(KERNEL, BIAS), activation="tanh"),
         {"cpu": "no", "wasm": "no", "gpu-ir": "no", "mediatek": "no", "tensor": "unknown"}),
        (one_op("MEAN", INT8, INT8, constants=(axes(0),)),
         {"tensor": "unknown", "edgetpu": "no"}),
        (one_op("MEAN", INT8, INT8, constants=(axes(3),), shape=(1, 4, 4, 6)),
         {"tensor": "unknown", "edgetpu": "no"}),
        (one_op("SOFTMAX", FLOAT, FLOAT, beta=2.0),
         {"cpu": "no", "wasm": "no", "gpu": "no", "webgpu": "no", "gpu-ir": "no",
          "tensor": "unknown", "edgetpu": "no"}),
        (one_op("RESIZE_BILINEAR", INT8, INT8),
         {"gpu-ir": "no", "tensor": "unknown", "edgetpu": "unknown"}),
        (one_op("CAST", "int32", "uint8"), {
            "cpu": "no", "wasm": "no", "edgetpu": "no", "micro": "no", "tensor": "unknown"}),
        (one_op("TFLite_Detection_PostProcess", FLOAT, FLOAT, custom=True),
         dict.fromkeys(KEYS, "no")),
        # @mediapipe/selfie_segmentation ends in one.
        (one_op("Convolution2DTransposeBias", FLOAT, FLOAT, custom=True),
         {"cpu": "unknown", "wasm": "unknown", "qualcomm": "no", "mediatek": "no", "tensor": "no",
          "edgetpu": "no", "micro": "no"}),
    ],
)  # fmt: skip
def test_conditions_by_hand(file, says):
    graph = file.graphs[0]
    operation = Operation(file, graph, graph.operators[0], frozenset({0, 1}))
    answers = {key: target.answer(operation).support for key, target in TARGETS.items()}
    assert {key: a for key, a in answers.items() if a != "yes"} == says


def test_float16_weights_cost_a_delegate_nothing():
    tensors = (
        TfliteTensor("x", (1, 4, 4, 8), FLOAT, 0),
        TfliteTensor("half", (8, 1, 1, 8), "float16", 1),
        TfliteTensor("w", (8, 1, 1, 8), FLOAT, 0),
        TfliteTensor("y", (1, 4, 4, 8), FLOAT, 0),
    )
    operators = (
        TfliteOperator("DEQUANTIZE", 1, (1,), (2,), {}),
        TfliteOperator("CONV_2D", 1, (0, 2), (3,), {}),
    )
    graph = TfliteGraph("main", tensors, (0,), (3,), operators)
    file = TfliteModel("", (graph,), (memoryview(b""), memoryview(HALF.tobytes())), {}, ())
    gpu, micro = targets(file, ["gpu", "micro"])
    assert (gpu.answer, gpu.operators, gpu.partitions) == ("yes", 1, 1)
    assert (micro.answer, micro.refused[0].reason) == ("no", "from float16 to float32")


def test_a_damaged_operator_without_outputs():
    file = one_op("QUANTIZE", FLOAT, INT8)
    (graph,) = file.graphs
    operator = dataclasses.replace(graph.operators[0], outputs=())
    graph = dataclasses.replace(graph, operators=(operator,))
    assert len(targets(dataclasses.replace(file, graphs=(graph,)))) == len(TARGETS)


def chain(*kinds: str) -> TfliteModel:
    """A file of operators one after the other."""
    tensors = tuple(
        TfliteTensor(f"net/layer{i}/op", (1, 4), FLOAT, 0) for i in range(len(kinds) + 1)
    )
    operators = tuple(TfliteOperator(k, 1, (i,), (i + 1,), {}) for i, k in enumerate(kinds))
    graph = TfliteGraph("main", tensors, (0,), (len(kinds),), operators)
    return TfliteModel("", (graph,), (memoryview(b""),), {}, ())


def test_partitions_by_hand():
    file = chain("RELU", "SQUEEZE", "RELU", "RELU", "SQUEEZE", "RELU")
    assert partitions(file.graphs[0], {0, 2, 3, 5}) == [{0}, {2, 3}, {5}]
    gpu, mediatek = targets(file, ["gpu", "mediatek"])
    assert (gpu.partitions, gpu.taken, gpu.answer) == (3, 2, "partly")  # the largest alone
    assert (mediatek.partitions, mediatek.taken) == (3, 4)
    assert gpu.sentence == (
        "Refuses 2 of 6 operators, takes 2 in 3 partitions: 2 SQUEEZE not in its list (layer2 and "
        "others)."
    )
    # Two branches, of which one is refused: the other is not cut.
    tensors = tuple(TfliteTensor(str(i), (1, 4), FLOAT, 0) for i in range(5))
    operators = (
        TfliteOperator("RELU", 1, (0,), (1,), {}),
        TfliteOperator("SQUEEZE", 1, (0,), (2,), {}),
        TfliteOperator("RELU", 1, (1,), (3,), {}),
        TfliteOperator("ADD", 1, (3, 2), (4,), {}),
    )
    graph = TfliteGraph("main", tensors, (0,), (4,), operators)
    assert partitions(graph, {0, 2, 3}) == [{0, 2}, {3}]


def test_what_can_not_be_fed():
    (found,) = targets(chain("RELU"), "edgetpu")
    assert found.answer == "no"
    assert found.sentence == "Cannot be fed: the input is float32."
    assert found.advice == ("Convert with --io int8 or uint8.",)


def test_layers_by_their_tensors():
    def name(text: str) -> str:
        tensors = (TfliteTensor(text, (1,), FLOAT, 0),)
        op = TfliteOperator("RELU", 1, (), (0,), {})
        return layer(TfliteGraph("main", tensors, (), (0,), (op,)), op)

    assert name("mobilenet_v3_small_1/row1_se_pool_1/Mean") == "row1_se_pool"
    assert name("MobilenetV1/MobilenetV1/Conv2d_0/Relu6;more/x") == "Conv2d"
    assert name("MobilenetV2/expanded_conv/depthwise/Relu6") == "expanded_conv/depthwise"
    assert (name("predictions"), name("")) == ("predictions", "no name")


def test_unknown_is_never_yes():
    (found,) = targets(chain("RELU"), "tensor")
    assert found.answer == "unknown"
    assert "its compiler decides" in found.sentence
    assert TARGETS["tensor"].unlisted == Answer(
        "unknown", "its compiler decides; only what it refuses is published"
    )


def test_a_target_that_there_is_not(tmp_path):
    with pytest.raises(ValueError, match=r"There is no target 'nnapi'\. Choose one of cpu"):
        targets(chain("RELU"), "nnapi")
    assert [v.target.key for v in targets(chain("RELU"), ["web", "wasm"])] == ["wasm", "webgpu"]


@others
def test_the_command_says_what_to_do(capsys):
    file = WEIGHTS / "mobilenet_v1_0.25_224_float.tflite"
    main(["audit", str(file), "--target", "gpu"])
    page = capsys.readouterr().out
    assert page.startswith("Phone GPU (LiteRT ML Drift): Refuses 1 of 31 operators, takes 29 in 2")
    assert "  Use a reshape in place of squeeze." in page
    assert page.rstrip().endswith("(2026-08-21), not run.")


@makes_files
@pytest.mark.slow
def test_no_net_of_the_zoo_loses_an_operator_to_a_float_gpu(tmp_path):
    for name in ("MobileNetV1", "MobileNetV2", "MobileNetV3Small"):
        net = getattr(kzoo, name)(0.35 if name != "MobileNetV1" else 0.25, input_shape=(64, 64, 3))
        file = read_tflite(convert(net, tmp_path / "a.tflite", scheme="float16"))
        for key in ("cpu", "gpu", "gpu-ir", "qualcomm", "mediatek", "wasm", "webgpu"):
            assert verdict(file, TARGETS[key]).answer == "yes", (name, key)


def test_the_page_shows_the_matrix():
    """docs/targets.md has the tables that tests/bench/target_matrix.py makes of its CSVs."""
    program = Path(__file__).parent / "bench" / "target_matrix.py"
    spec = importlib.util.spec_from_file_location("target_matrix", program)
    matrix = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(matrix)
    page = matrix.PAGE.read_text(encoding="utf-8")
    for source in (matrix.CSV, matrix.OTHERS):
        shown = page.partition(matrix.begin(source))[2].partition(matrix.END)[0]
        assert shown == matrix.table(source)
    assert set(matrix.TITLES) == set(TARGETS)
