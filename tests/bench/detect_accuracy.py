"""mAP of a detector in int8: float, usual conversion, kzoo's post-training int8, the run's own.

    uv run python tests/bench/detect_accuracy.py RUN [--usual]

RUN is the folder of a `kzoo detect` run; its model.tflite has been trained in int8 unless
--qat-epochs was 0. All are measured by the interpreter on the run's validation pictures, by
pycocotools. Cost: V3-Small at 320 px, 59 pictures: 2 minutes.
"""

import argparse
import tempfile
from pathlib import Path

import keras

import kzoo
from kzoo.recipes.annotations import read_boxes
from kzoo.recipes.boxes_score import score_boxes
from kzoo.recipes.data import Pictures
from kzoo.recipes.finder import finder
from kzoo.recipes.int8 import for_calibration
from kzoo.recipes.run import read_config
from kzoo.tflite import convert


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--usual", action="store_true", help="TensorFlow's own conversion too")
    options = parser.parse_args()
    config = read_config(options.run)
    dataset = read_boxes(
        config["data"],
        format=config["format"],
        val_fraction=config["val_fraction"],
        seed=config["seed"],
    )
    val = Pictures([e.path for e in dataset.val], config["size"])[:]
    paths = [example.path for example in dataset.train]
    calibration = for_calibration(paths, config["size"], seed=config["seed"])
    model = keras.saving.load_model(options.run / "model.keras", compile=False)

    def measure(name: str, file: Path) -> None:
        print(
            f"{name:12} {score_boxes(dataset.val, finder(file)(val), dataset.labels)}", flush=True
        )

    measure("float", options.run / "model.keras")
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "model.tflite"
        if options.usual:
            try:
                convert(model, file, calibration=calibration, calibrator="tensorflow")
                measure("usual PTQ", file)
            except ValueError as error:
                print(f"usual PTQ    {error}")
        for ranges in ("mse", 1e-4, "minmax"):
            int8 = kzoo.quantize(model, calibration=calibration, ranges=ranges)
            measure(f"PTQ {ranges}", convert(int8, file, labels=dataset.labels))
    measure("the run's", options.run / "model.tflite")


if __name__ == "__main__":
    main()
