"""A detector or segmenter in int8: float, usual conversion, kzoo's post-training int8, the run's.

    uv run python tests/bench/int8_accuracy.py RUN [--usual] [--ranges mse minmax]

RUN is the folder of a `kzoo detect` or `kzoo segment` run; its model.tflite has been trained in
int8 unless --qat-epochs was 0. All are measured by the interpreter on the run's validation
images: mAP by pycocotools, mean IoU. Cost: V3-Small at 320 px, 59 images: 2 minutes.
(For classifiers: qat_accuracy.py.)
"""

import argparse
import tempfile
from pathlib import Path

import keras

import kzoo
from kzoo.recipes.evaluation.finished_runs import open_finished
from kzoo.recipes.training.int8 import for_calibration
from kzoo.tflite import convert


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--usual", action="store_true", help="TensorFlow's own conversion too")
    parser.add_argument("--ranges", nargs="+", default=["mse"], help="mse, minmax, or a share")
    options = parser.parse_args()
    run = open_finished(options.run)
    labels = run.dataset.labels
    calibration = for_calibration(run.train, run.size, seed=run.settings["seed"])
    model = keras.saving.load_model(run.model, compile=False)

    def measure(name: str, file: Path) -> None:
        score = run.task.score(run.task.infer(run, file, run.dataset.val), run.dataset.val, labels)
        print(f"{name:12} {score} {run.task.report.figures(score, labels)}", flush=True)

    measure("float", run.model)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "model.tflite"
        if options.usual:
            try:
                convert(model, file, calibration=calibration, calibrator="tensorflow")
                measure("usual PTQ", file)
            except ValueError as error:
                print(f"usual PTQ    {error}")
        for ranges in options.ranges:
            chosen = ranges if ranges.isalpha() else float(ranges)
            int8 = kzoo.quantize(model, calibration=calibration, ranges=chosen)
            measure(f"PTQ {ranges}", convert(int8, file, labels=labels))
    measure("the run's", run.int8)


if __name__ == "__main__":
    main()
