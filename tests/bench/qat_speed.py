"""CPU time of int8 MobileNetV3 in its split form, against float32 and the usual conversion.

    uv run python tests/bench/qat_speed.py        (about 5 minutes on one core)

The usual conversion is TensorFlow's of the same net (kzoo's V3 has keras.applications' operators),
with calibration images. Weights are random, with activations of order one: what an operator costs
does not depend on them.
Times are CPU time of one thread, files taking turns; read the ratios.
Reached: 0.48, 0.57, 0.27, 0.94 and 0.28 in the order printed (AVX512-VNNI, LiteRT 2.3).
"""

import sys
import tempfile
from pathlib import Path

import keras

import kzoo
from kzoo.tflite import benchmark, convert

sys.path.insert(0, str(Path(__file__).parents[1]))
from qat_nets import images, randomized

BUILDERS = {
    "v2": kzoo.MobileNetV2,
    "v3-large": kzoo.MobileNetV3Large,
    "v3-small": kzoo.MobileNetV3Small,
}


def main() -> None:
    calibration = images(8, size=224)
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, Path] = {}

        def add(name: str, model: keras.Model, **options) -> None:
            files[name] = convert(model, Path(folder) / f"{name}.tflite", **options)

        for name, build in BUILDERS.items():
            model = randomized(build(classifier_activation=None))
            add(f"{name}-float32", model, scheme="float32")
            add(f"{name}-int8", kzoo.quantize(model, calibration=calibration))
            if name != "v2":
                one = kzoo.quantize(model, calibration=calibration, hard_swish="op")
                add(f"{name}-int8-op", one)
                usual = {"calibration": calibration, "calibrator": "tensorflow"}
                add(f"{name}-int8-usual", model, **usual)
        table = benchmark(list(files.values()))
    print(table)
    ms = dict(zip(files, (t.cpu_ms for t in table.timings), strict=True))
    size = dict(zip(files, (t.bytes for t in table.timings), strict=True))
    for wanted, small, large, bound in (
        ("V3-L int8 / its float32", "v3-large-int8", "v3-large-float32", 0.50),
        ("V3-S int8 / its float32", "v3-small-int8", "v3-small-float32", 0.60),
        ("V3-L int8 / the usual conversion of it", "v3-large-int8", "v3-large-int8-usual", 0.28),
        ("V3-L int8 / V2 int8", "v3-large-int8", "v2-int8", 1.00),
    ):
        print(f"{wanted:40} {ms[small] / ms[large]:5.2f}   (wanted: at most {bound:.2f})")
    ratio = size["v3-large-int8"] / size["v3-large-float32"]
    print(f"{'V3-L int8 file / float32 file':40} {ratio:5.2f}   (wanted: at most 0.28)")


if __name__ == "__main__":
    main()
