"""mAP of finished detectors in int8, by what their ranges are chosen by.

    python tests/bench/detect_int8.py RUN... [--work FOLDER] [--name NAME]

RUN are folders of `kzoo detect`, with their data where they were. Files are scored by the
interpreter on the validation images; 256 training images calibrate, as in the recipe, one draw.
What is in the work folder already is not measured again; --name writes
tests/bench/results/NAME.csv of all that is there. Cost: a minute of CPU a file.
"""

import argparse
import contextlib
import json
from pathlib import Path
from unittest import mock

from record import record

import kzoo
from kzoo.detection.detector import Detector
from kzoo.quantization import correct
from kzoo.recipes.evaluation.finished_runs import open_finished
from kzoo.recipes.task import Run
from kzoo.recipes.training.int8 import for_calibration
from kzoo.tflite import convert
from kzoo.weights.saved_model import load_model

CHOICES = {
    "calibration, as it is": {},
    "calibration, all anchors alike": {},
    "calibration, ranges mse": {"ranges": "mse"},
    "calibration, weights not fitted": {},
}
PATCHES: dict[str, tuple] = {
    "calibration, all anchors alike": (Detector, "differences", None),
    "calibration, weights not fitted": (correct, "is_fitted", lambda op: False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--choices", nargs="+", choices=CHOICES, default=list(CHOICES))
    parser.add_argument("--work", type=Path, default=Path("detect_int8"))
    parser.add_argument("--name", help="of the table of results (default: printed only)")
    options = parser.parse_args()
    options.work.mkdir(exist_ok=True)
    rows = []
    for folder in options.runs:
        run = open_finished(folder)
        found = json.loads((folder / "results.json").read_text())
        rows.append(row(run, "float", found["float_map"], found["float_map50"]))
        for choice in options.choices:
            kept = options.work / f"{folder.name}+{choice.replace(' ', '_')}.json"
            if not kept.is_file():
                kept.write_text(json.dumps(measured(run, choice, kept.with_suffix(".tflite"))))
            rows.append(row(run, choice, *json.loads(kept.read_text())))
    if options.name:
        record(options.name, rows)
    else:
        print(*rows, sep="\n")


def row(run: Run, model: str, found: float, found50: float) -> dict:
    images = len(run.dataset.val)
    return {"set": Path(run.settings["data"]).name, "run": run.folder.name, "images": images,
            "model": model, "map": found, "map50": found50}  # fmt: skip


def measured(run: Run, choice: str, file: Path) -> tuple[float, float]:
    """Return (mAP, mAP50) of the file that a choice makes."""
    model = load_model(run.model)
    images = for_calibration(run.train, run.size, seed=run.settings["seed"])
    patched = mock.patch.object(*PATCHES[choice]) if choice in PATCHES else contextlib.nullcontext()
    with patched:
        int8 = kzoo.quantize(model, calibration=images, **CHOICES[choice])
    convert(int8, file, labels=run.dataset.labels)
    score = run.task.score(
        run.task.infer(run, file, run.dataset.val), run.dataset.val, run.dataset.labels
    )
    return float(score.map), float(score.map50)


if __name__ == "__main__":
    main()
