"""CPU time of a detector per image, one thread: the net, decoding and suppression, the whole.

    uv run python tests/bench/detect_speed.py RUN [--images 30] [--rounds 5]

RUN is the folder of a `kzoo detect` run. Its int8 file, the same net in float32, and the int8 file
with TFLite_Detection_PostProcess behind it take turns on validation images. Compare ratios:
absolute times are this machine's. Cost: a minute.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras

from kzoo.detection.detections import detections
from kzoo.recipes.data.box_dataset import read_boxes
from kzoo.recipes.data.images import Images
from kzoo.recipes.training.run_folder import read_config
from kzoo.tflite import Runner, audit, convert
from kzoo.tflite.convert.postprocess import PostProcess, add_postprocess
from kzoo.tflite.metadata.reading import read_metadata

THRESHOLDS = (0.3, 0.01)  # for showing, for measuring


def cpu_ms(call: Callable[[], object]) -> float:
    begun = time.process_time()
    call()
    return 1e3 * (time.process_time() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    config = read_config(options.run)
    dataset = read_boxes(
        config["data"],
        format=config["format"],
        val_fraction=config["val_fraction"],
        seed=config["seed"],
    )
    images = Images([e.path for e in dataset.val[: options.images]], config["size"])[:]
    int8 = options.run / "model.tflite"
    anchors = read_metadata(int8).outputs.anchors
    with tempfile.TemporaryDirectory() as place:
        model = keras.saving.load_model(options.run / "model.keras", compile=False)
        exact = convert(model, Path(place) / "float32.tflite", scheme="float32")
        whole = Path(place) / "op.tflite"
        add_postprocess(int8, whole, settings=PostProcess(threshold=THRESHOLDS[0]))
        runners = {
            "float32": Runner(exact),
            "int8": Runner(int8),
            "int8 with the op": Runner(whole),
        }
        for name, file in (("float32", exact), ("int8", int8), ("int8 with the op", whole)):
            found = audit(file)
            print(f"{name}: {found.partitions} XNNPACK partition(s), outside: {found.outside}")
    times: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for image in images:
            for name, runner in runners.items():
                outputs = {}
                body = cpu_ms(lambda: outputs.update(runner(image[None])))  # noqa: B023
                times.setdefault(name, []).append(body)
                if "count" in outputs:
                    continue
                for least in THRESHOLDS:
                    rest = cpu_ms(lambda: detections(outputs, anchors, score_threshold=least))  # noqa: B023
                    times.setdefault(f"{name}, objects from {least}", []).append(rest)
                    times.setdefault(f"{name}, whole, from {least}", []).append(body + rest)
    for name, found in times.items():
        print(f"{name:32} {statistics.median(found):7.2f} ms")


if __name__ == "__main__":
    main()
