"""What the step from a uint8 input to int8 costs, by way of float32 and directly.

    uv run python tests/bench/input_op.py mobilenet_v3_small        (a minute)

V3-Small at 224 px, SSDLite on it at 320 and LR-ASPP on it at 512, with random weights: the float32
file, the int8 file as it is written for the CPU (uint8 -> float32 -> int8, both XNNPACK's), the one
with a single QUANTIZE (as for NPUs, and for the CPU before), and one with an int8 input, timed in
turn. CPU time of one thread, the least of the rounds.
"""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

import keras

import kzoo
from kzoo.tflite import FORMS, convert

sys.path.insert(0, str(Path(__file__).parents[1]))
from op_costs import ROUNDS, interpreter, least_ms
from qat_nets import images, randomized
from record import record


def body(size: int, **options) -> keras.Model:
    return kzoo.MobileNetV3Small(input_shape=(size, size, 3), include_top=False, **options)


NETS = {
    "mobilenet_v3_small": (224, lambda size: kzoo.MobileNetV3Small(classifier_activation=None)),
    "ssdlite_v3_small": (320, lambda size: kzoo.SSDLite(body(size), 20)),
    "lraspp_v3_small": (512, lambda size: kzoo.LRASPP(body(size, output_stride=16), 21)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("net", choices=list(NETS))
    name = parser.parse_args().net
    size, build = NETS[name]
    FORMS["direct"] = dataclasses.replace(FORMS["cpu"], float_first=False)
    net = randomized(build(size))
    int8 = kzoo.quantize(net, calibration=images(2, size=size))
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "float32": convert(net, Path(folder) / "f.tflite", scheme="float32"),
            "int8, by way of float32": convert(int8, Path(folder) / "a.tflite"),
            "int8, one QUANTIZE": convert(int8, Path(folder) / "b.tflite", target="direct"),
            "int8, int8 input": convert(int8, Path(folder) / "c.tflite", io="int8"),
        }
        ms = least_ms([interpreter(file.read_bytes()) for file in files.values()])
    rows = [
        {"net": name, "size": size, "file": kind, "cpu_ms": float(own),
         "over_float": float(own / ms[0]), "rounds": ROUNDS}
        for kind, own in zip(files, ms, strict=True)
    ]  # fmt: skip
    record(f"input_op_{name}", rows)


if __name__ == "__main__":
    main()
