"""CPU time of detectors per image, one thread: the net, decoding and suppression, the whole.

    python tests/bench/detect_speed.py RUN [--images 20] [--rounds 3]

RUN is a run of `kzoo detect` with the map at stride 8. The net that it made, and the same one with
the published maps and anchors, which has its weights but for that map, take turns on validation
images, as float32 and int8 files. Writes tests/bench/results/detect_speed.csv: medians, and their
ratios to the published layout in the same number format; absolute times are this machine's.
"Objects" are decoding, suppression and box voting of all boxes from a score on: .3 is for showing,
.01 for measuring. Cost: a minute.
"""

import argparse
import itertools
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import record

import kzoo
from kzoo.detection.detections import detections
from kzoo.detection.detector import Detector
from kzoo.recipes.data.images import Images
from kzoo.recipes.detect import Config, loaded
from kzoo.recipes.evaluation.finished_runs import open_finished
from kzoo.recipes.task import Run
from kzoo.tflite import Runner, audit, convert
from kzoo.weights.saved_model import load_model

THRESHOLDS = (0.3, 0.01)
CALIBRATION = 100


def cpu_ms(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return (CPU time, what the call returns)."""
    begun = time.process_time()
    result = call()
    return 1e3 * (time.process_time() - begun), result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    run = open_finished(given.run)
    dataset, size, fine = run.dataset, run.size, load_model(run.model)
    models = {"published": as_published(fine, run), "with a map at stride 8": fine}
    calibration = Images([e.path for e in dataset.train[:CALIBRATION]], size)[:]
    images = Images([e.path for e in dataset.val[: given.images]], size)[:]
    runners: dict[tuple[str, str], Runner] = {}
    partitions = {}
    with tempfile.TemporaryDirectory() as place:
        for name, model in models.items():
            sources = {
                "float32": (model, {"scheme": "float32"}),
                "int8": (kzoo.quantize(model, calibration=calibration.astype("float32")), {}),
            }
            for kind, (source, options) in sources.items():
                file = convert(source, Path(place) / f"{name}_{kind}.tflite", **options)
                runners[name, kind] = Runner(file)
                partitions[name, kind] = audit(file).partitions
    times: dict[tuple[str, str], dict[str, list[float]]] = {}
    for image, _ in itertools.product(images, range(given.rounds)):
        for key, runner in runners.items():
            own = times.setdefault(key, {})
            net, outputs = cpu_ms(lambda: runner(image[None]))  # noqa: B023
            own.setdefault("net_ms", []).append(net)
            for least in THRESHOLDS:
                rest, _ = cpu_ms(lambda: objects(models[key[0]], outputs, least))  # noqa: B023
                own.setdefault(f"objects_from_{least}_ms", []).append(rest)
                own.setdefault(f"whole_from_{least}_ms", []).append(net + rest)
    rows = []
    first = next(iter(models))
    for (name, kind), columns in times.items():
        medians = {column: statistics.median(values) for column, values in columns.items()}
        base = {key: statistics.median(values) for key, values in times[first, kind].items()}
        ratios = {f"{key.removesuffix('_ms')}_ratio": medians[key] / base[key] for key in medians}
        rows.append({
            "data": Path(run.settings["data"]).name, "detector": name, "size_px": size,
            "anchors": len(models[name].anchor_boxes),
            "MACs_M": kzoo.profile(models[name]).macs / 1e6,
            "file": kind, "partitions": partitions[name, kind], "images": len(images),
            **medians, **ratios,
        })  # fmt: skip
    record("detect_speed", rows)


def as_published(fine: Detector, run: Run) -> Detector:
    """Return the detector without its first map, with published anchors."""
    same = {name: run.settings[name] for name in ("model", "alpha", "size", "loss", "box_loss")}
    model, _ = loaded(Config(run.settings["data"], weights="none", **same), run.dataset)
    for layer in model.layers:
        head = re.fullmatch(r"(boxes|logits)(\d)(_.*)", layer.name)
        name = f"{head[1]}{int(head[2]) + 1}{head[3]}" if head else layer.name
        if layer.weights:
            layer.set_weights(fine.get_layer(name).get_weights())
    return model


def objects(model: Detector, outputs: Any, least: float) -> Any:
    return detections(
        outputs, model.anchor_boxes, score_threshold=least, activation=model.activation
    )


if __name__ == "__main__":
    main()
