"""The audit, on files made here and on other people's, whose contents are known."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kzoo.recipes.programs.benchmark_plot import draw
from kzoo.tflite import audit, benchmark, convert
from kzoo.tflite.inspect.advice import Facts, advice
from kzoo.tflite.inspect.audit import bytes_by_kind
from kzoo.tflite.inspect.benchmark import RUNTIMES
from kzoo.tflite.runtime.trial import trial
from kzoo.tflite.xnnpack import largest_value, remedy, risks
from kzoo.weights.readers.flatbuffer import TfliteGraph, TfliteModel, TfliteOperator, TfliteTensor

WEIGHTS = Path(__file__).parents[2] / "shared" / "weights"
others = pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"{WEIGHTS} is not here")
makes_files = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="files are made by TensorFlow"
)

# name: operators, quantized weights per channel, of all; dtype of the input; operators that compute
# in floats; words of each piece of advice
KNOWN = {
    "mobilenet_v2_1.0_224_quant": (
        66, (0, 53), "uint8", (),
        ("Activations are uint8", "53 of 53 quantized weights have one scale", "AVERAGE_POOL_2D"),
    ),
    "tf2_mobilenet_v2_1.0_224_ptq": (
        68, (53, 53), "uint8", (), ("3 operators run outside XNNPACK",),
    ),
    "mobilenet_v1_0.25_224_float": (
        31, (0, 0), "float32", None, ("1 operator runs outside XNNPACK, on slower kernels: SQ",),
    ),
    "coral_deeplabv3_mnv2_dm05_pascal_quant": (
        72, (0, 55), "uint8", (), ("are uint8", "55 of 55", "ARG_MAX, AVERAGE_POOL_2D"),
    ),
    "keras_mobilenet_v3_small_1.0_224_dynrange_int8": (
        111, (47, 47), "float32", None, ("47 operators compute in floats on int8",),
    ),
}  # fmt: skip


@others
@pytest.mark.parametrize("name", KNOWN)
def test_other_peoples_files(name):
    from ai_edge_litert.interpreter import Interpreter

    path = WEIGHTS / f"{name}.tflite"
    found = audit(path)
    operators, per_channel, dtype, floats, advised = KNOWN[name]
    assert len(found.operators) == operators
    assert found.per_channel == per_channel
    assert found.inputs[0].dtype == dtype
    assert sum(found.bytes.values()) == path.stat().st_size
    assert (found.custom_ops, found.flex_ops, found.risks, found.failure) == ((), (), (), None)
    if floats is not None:
        assert found.float_ops == floats
    assert len(found.advice) == len(advised)
    for words, part in zip(found.advice, advised, strict=True):
        assert part in words
    # The interpreter's own list, without any delegate, has the same operators in the same order.
    from ai_edge_litert.interpreter import OpResolverType

    plain = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    assert found.operators == tuple(op["op_name"] for op in plain._get_ops_details())


@others
@pytest.mark.parametrize(
    ("name", "size", "parameters", "norms", "last"),
    [  # of the net with 1,000 classes; the files tell 1,001 apart
        ("mobilenet_v2_1.0_224_quant", 1, 3_504_872, 17_056, 1_280),
        ("tf2_mobilenet_v2_1.0_224_ptq", 1, 3_504_872, 17_056, 1_280),
        ("mobilenet_v1_0.25_224_float", 4, 470_072, 2_736, 256),
    ],
)
def test_bytes_of_weights_and_biases_by_hand(name, size, parameters, norms, last):
    """Batch norm's scale is in the weights, and its shift is the bias."""
    found = audit(WEIGHTS / f"{name}.tflite", run=False).bytes
    assert found["weights"] == size * (parameters - 2 * norms - 1_000 + last)
    assert found["biases"] == 4 * (norms + 1_001)


@makes_files
def test_a_readable_page(tiny, tmp_path):
    page = str(audit(convert(tiny, tmp_path / "a.tflite", scheme="float32")))
    assert "serving_default(image) -> predictions" in page
    assert "CONV_2D" in page
    assert "not quantized" in page


@makes_files
@pytest.mark.slow
def test_corrupted_files_give_an_answer_or_an_error(tiny, unseen, tmp_path):
    """A sample of what tests/bench/fuzz_files.py does at length."""
    files = [
        convert(tiny, tmp_path / "int8.tflite", calibration=unseen[0][:20], labels=list("abcdef")),
        convert(tiny, tmp_path / "float.tflite", scheme="float32"),
    ]
    program = Path(__file__).parent / "bench" / "fuzz_files.py"
    done = subprocess.run(
        [sys.executable, program, *files, "--cases", "60", "--seed", "7"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "error error error error" in done.stdout
    assert "answer answer answer answer" in done.stdout


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        audit(tmp_path / "none.tflite")
    (tmp_path / "empty.tflite").write_bytes(b"")
    with pytest.raises(ValueError, match=r"not a \.tflite file"):
        audit(tmp_path / "empty.tflite")


def conv(scale_out: float, kind: str = "CONV_2D") -> TfliteGraph:
    tensors = (
        TfliteTensor("x", (1, 4, 4, 2), "int8", 0, (0.5,), (0,)),
        TfliteTensor("w", (2, 1, 1, 2), "int8", 1, (0.25, 4.0), (0, 0)),
        TfliteTensor("y", (1, 4, 4, 2), "int8", 0, (scale_out,), (0,)),
    )
    return TfliteGraph("main", tensors, (0,), (2,), (TfliteOperator(kind, 1, (0, 1), (2,), {}),))


def test_factors_out_of_bounds_by_hand():
    assert list(risks(conv(0.01))) == []  # .5 * 4 / .01 = 200
    assert list(risks(conv(0.005))) == ["0 CONV_2D (factor 400, XNNPACK takes 0 to 256)"]
    assert list(risks(conv(0.0005, "ADD"))) != []
    assert list(risks(conv(0.005, "MEAN"))) == []


def test_a_transposed_convolution_has_its_input_third():
    """Its inputs are (the shape of the output, weights, x, bias)."""
    tensors = (
        TfliteTensor("shape", (4,), "int32", 1),
        TfliteTensor("w", (2, 2, 2, 2), "int8", 2, (0.25, 4.0), (0, 0)),
        TfliteTensor("x", (1, 4, 4, 2), "int8", 0, (0.5,), (0,)),
        TfliteTensor("b", (2,), "int32", 3, (0.125, 2.0), (0, 0)),
        TfliteTensor("y", (1, 8, 8, 2), "int8", 0, (0.005,), (0,)),
    )
    operator = TfliteOperator("TRANSPOSE_CONV", 3, (0, 1, 2, 3), (4,), {})
    graph = TfliteGraph("main", tensors, (2,), (4,), (operator,))
    assert list(risks(graph)) == ["0 TRANSPOSE_CONV (factor 400, XNNPACK takes 0 to 256)"]
    buffers = tuple(np.zeros(n, np.uint8) for n in (0, 16, 16, 8))
    found = bytes_by_kind(TfliteModel("", (graph,), buffers, {}, ()), 50)
    assert found == {"weights": 16, "biases": 8, "other": 16, "structure": 10}
    cut_off = dataclasses.replace(operator, inputs=(0, 1))  # of a damaged file
    assert list(risks(dataclasses.replace(graph, operators=(cut_off,)))) == []


def test_activations_of_a_network_that_diverged_by_hand():
    assert largest_value(conv(0.5)) == 64  # 128 levels below zero
    assert largest_value(TfliteGraph("main", (), (), (), ())) == 0
    assert "kzoo.quantize" in remedy(largest_value(conv(10.0)))
    assert "activations reach 1.3e+05" in remedy(largest_value(conv(1000.0)))
    assert "lower learning rate" in remedy(largest_value(conv(1000.0)))


def test_advice_by_hand():
    tensors = (
        TfliteTensor("x", (1, 4, 4, 2), "int8", 0, (0.5,), (0,)),
        TfliteTensor("y", (1, 4, 4, 2), "float32", 0),
        TfliteTensor("z", (1, 4, 4, 2), "float32", 0),
    )
    operators = (
        TfliteOperator("HARD_SWISH", 1, (0,), (0,), {}),
        TfliteOperator("DEQUANTIZE", 1, (0,), (1,), {}),
        TfliteOperator("FlexErfinv", 1, (1,), (2,), {}, custom=True),
    )
    facts = Facts(
        TfliteGraph("main", tensors, (0,), (2,), operators), {0, 1, 2}, ("2 FlexErfinv",), (0, 2),
        ("0 CONV_2D",), (0, 1), (), ("2 FlexErfinv",),
    )  # fmt: skip
    words = list(advice(facts))
    assert "1 operator runs outside XNNPACK, on slower kernels: FlexErfinv." in words
    parts = ("1 HARD_SWISH operators run", "XNNPACK's bounds", "0 QUANTIZE and 1 DEQ", "Flex")
    for part in parts:
        assert any(part in one for one in words)
    calm = Facts(conv(0.01), {0, 2}, (), (), (), (1, 1), (), ())
    assert list(advice(calm)) == []


@others
def test_the_command_needs_no_keras():
    """In well under a second of CPU, the process that tries the file left out."""
    code = (
        "import sys; from kzoo.recipes.cli import main; status = main(sys.argv[1:]); "
        "print(status, *{'keras', 'tensorflow', 'jax', 'torch', 'PIL'} & set(sys.modules))"
    )
    file = WEIGHTS / "mobilenet_v1_0.25_224_float.tflite"
    for more in ((), ("--target", "gpu"), ("--json",)):
        done = subprocess.run(
            [sys.executable, "-c", code, "audit", file, *more], capture_output=True, text=True
        )
        assert done.stdout.splitlines()[-1].strip() == "0", done.stdout + done.stderr
        assert "SQUEEZE" in done.stdout
        assert "nothing to improve" not in done.stdout


def test_a_process_that_dies_is_told_by_its_signal(tmp_path, monkeypatch):
    killer = tmp_path / "killer.py"
    killer.write_text(f"import os; os.kill(os.getpid(), {int(signal.SIGABRT)})")
    monkeypatch.setattr("kzoo.tflite.runtime.trial.__file__", os.fspath(killer))
    with pytest.raises(ValueError, match="signal 6"):
        trial(tmp_path / "any.tflite")


@makes_files
@pytest.mark.slow
def test_benchmark_takes_turns(tiny, unseen, tmp_path):
    small = convert(tiny, tmp_path / "int8.tflite", calibration=unseen[0][:20])
    large = convert(tiny, tmp_path / "float.tflite", scheme="float32")
    found = benchmark([large, small], rounds=2, seconds=0.02, runtimes=tuple(RUNTIMES))
    assert found[0].ratio == 1
    assert [t.runtime for t in found.timings] == ["litert", "compiled", "reference"] * 2
    assert found[3].bytes < found[0].bytes
    assert all(0 < t.cpu_ms < 1000 and t.memory_mb > 0 for t in found.timings)
    assert "int8.tflite" in str(found)
    draw(found).savefig(tmp_path / "plot.png")
    with pytest.raises(ValueError, match="Received: none"):
        benchmark([])
    with pytest.raises(ValueError, match=r"one of litert, compiled, reference\. Received: 'onnx'"):
        benchmark([large], runtimes=("onnx",))


@makes_files
def test_benchmark_counts_images(tiny, tmp_path, monkeypatch):
    """A file of four images a run takes a quarter of its run for each."""
    kinds = {"scheme": "float32"}
    files = [convert(tiny, tmp_path / f"{n}.tflite", batch_size=n, **kinds) for n in (1, 4)]
    monkeypatch.setattr(sys.modules[benchmark.__module__], "seconds_of", lambda *_: (0.1, 0.1))
    found = benchmark(files, rounds=1)
    assert [round(t.cpu_ms, 6) for t in found.timings] == [100, 25]


@pytest.mark.skipif(sys.platform != "linux", reason="address spaces are limited on Linux")
def test_a_trial_takes_no_more_than_some_gigabytes():
    """A damaged file can ask for any amount, and LiteRT allocates it."""
    code = (
        "from kzoo.tflite.runtime import trial; trial.limit_memory(); bytearray(trial.MOST_BYTES)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "MemoryError"
