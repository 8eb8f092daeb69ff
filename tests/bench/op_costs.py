"""Where the time of a float32 and an int8 file of the same net goes, by kind of op.

    uv run python tests/bench/op_costs.py [--float FILE --int8 FILE] [--model mobilenet_v3_small]

LiteRT's Python interpreter times no single ops. So each file is cut after each op, with the tensors
still unread as outputs, and all cuts are timed in turn: an op costs what its cut takes more than
the cut before. The least of the rounds, CPU time of one thread. Without files the net is made with
random weights; with files --model is what their table is called. About three minutes.
"""

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from record import record

from kzoo.tflite.writer import as_text, tflite_content

ROUNDS, SECONDS = 9, 0.012
NAMES = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
KINDS = {  # of an op by its output's name and its own; the first that fits
    "resize": r".*RESIZE_BILINEAR$",
    "argmax": r".*ARG_MAX$",
    "concatenation and reshape": r".*(CONCATENATION|RESHAPE)$",
    "squeeze-excite, pool": r"_se_pool.*",
    "squeeze-excite, convolutions and gate": r"_se_(squeeze|excite|gate).*",
    "squeeze-excite, product": r"_se_scale.*",
    "hard-swish": r".*(_act|_out|_wide)_.*(ADD|MUL|HARD_SWISH)$",
    "input": r".*(QUANTIZE|preprocessing).*",
    "depthwise": r".*DEPTHWISE_CONV_2D$",
    "stem": r".*row0_conv.*CONV_2D$",
    "1 x 1 convolutions": r".*CONV_2D$",
    "sums": r".*ADD$",
}


def cut(content: bytes, count: int) -> tuple[bytes, str]:
    """Return (the file with its first `count` ops alone, the kind of the last one)."""
    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    graph.operators = graph.operators[:count]
    made = [int(i) for op in graph.operators for i in op.outputs]
    read = {int(i) for op in graph.operators for i in op.inputs}
    graph.outputs = np.array([i for i in made if i not in read], np.int32)
    model.signatureDefs = []
    last = graph.operators[-1]
    name = as_text(graph.tensors[last.outputs[0]].name).split(";")[0].partition("/")[2]
    own = NAMES[model.operatorCodes[last.opcodeIndex].builtinCode]
    shared = len(set(last.inputs.tolist())) == 2 and own == "ADD" and "_gate" not in name
    kinds = [kind for kind, pattern in KINDS.items() if re.search(pattern, f"{name} {own}")]
    if shared and "hard-swish" in kinds and len(graph.tensors[last.inputs[1]].shape) == 4:
        kinds = ["sums"]
    return tflite_content(model), (kinds or ["head and output"])[0]


def interpreter(content: bytes) -> Interpreter:
    made = Interpreter(model_content=content, num_threads=1)
    made.allocate_tensors()
    port = made.get_input_details()[0]
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, port["shape"])
    made.set_tensor(
        port["index"], (values - 128 * (port["dtype"] == np.int8)).astype(port["dtype"])
    )
    made.invoke()
    return made


def least_ms(cuts: list[Interpreter]) -> np.ndarray:
    """CPU time of an inference of each, (n,)."""
    rounds = []
    for _ in range(ROUNDS):
        row = []
        for made in cuts:
            count, begun, start = 0, time.process_time(), time.perf_counter()
            while time.perf_counter() < start + SECONDS:
                made.invoke()
                count += 1
            row.append(1e3 * (time.process_time() - begun) / count)
        rounds.append(row)
    return np.min(rounds, axis=0)


def costs(file: Path) -> tuple[dict[str, float], float]:
    """Return ({kind: ms}, ms of the whole file)."""
    content = file.read_bytes()
    ops = len(schema.ModelT.InitFromPackedBuf(content).subgraphs[0].operators)
    cuts, kinds = zip(*(cut(content, count) for count in range(1, ops + 1)), strict=True)
    ms = least_ms([interpreter(one) for one in cuts])
    found = dict.fromkeys([*KINDS, "head and output"], 0.0)
    for kind, more in zip(kinds, np.diff(ms, prepend=0), strict=True):
        found[kind] += more
    return found, ms[-1]


def made(name: str, folder: Path) -> tuple[Path, Path]:
    import kzoo
    from kzoo.tflite import convert

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from qat_nets import images, randomized

    net = randomized(kzoo.get_model(name)(classifier_activation=None))
    int8 = kzoo.quantize(net, calibration=images(8, size=224))
    return (
        convert(net, folder / "float32.tflite", scheme="float32"),
        convert(int8, folder / "int8.tflite"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mobilenet_v3_small")
    parser.add_argument("--float", type=Path, dest="float32")
    parser.add_argument("--int8", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = (given.float32, given.int8)
        (f, whole_f), (i, whole_i) = map(
            costs, files if all(files) else made(given.model, Path(folder))
        )
    rows = [
        {"model": given.model, "ops": kind, "float_us": 1e3 * f[kind], "int8_us": 1e3 * i[kind],
         "share_of_int8": i[kind] / whole_i, "int8_over_float_whole": i[kind] / whole_f,
         "rounds": ROUNDS}
        for kind in f
    ]  # fmt: skip
    rows.append({"model": given.model, "ops": "all", "float_us": 1e3 * whole_f,
                 "int8_us": 1e3 * whole_i, "share_of_int8": 1.0,
                 "int8_over_float_whole": whole_i / whole_f, "rounds": ROUNDS})  # fmt: skip
    record(f"op_costs_{given.model}", rows)


if __name__ == "__main__":
    main()
