"""How time and memory grow with the number of images and with their size.

    uv run python tests/bench/growth.py read compare report --images 1000 10000 --side 32
    uv run python tests/bench/growth.py epoch quantize convert --sizes 64 128 256 512

Each figure is from a process of its own: CPU seconds of the part, and the process's peak memory.
"growth" is the exponent against the row before: 1 is linear in images, 2 in the side (pixels).
Each part has a table of its own, growth_PART.csv. Drawn JPEGs of 320 x 240 px in two class folders;
MobileNetV3-Small with random weights. Parts: read (`read_dataset`), epoch (decode, augment and
train on 256 images, 8 a step), quantize (64 images), convert, compare (float model and int8 file,
on the images of --images or 64), report (a classifier's, measured on all images). With --images
the net's images have --side px.
"""

import argparse
import dataclasses
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from read_speed import draw
from record import record

SOME = 64


def used() -> float:
    """Return the CPU seconds of this process and of those that it waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


def read(data: Path, count: int, size: int) -> Callable[[], Any]:
    from kzoo.recipes.data import read_dataset

    return lambda: read_dataset(data)


def net_of(size: int) -> Any:
    import kzoo

    return kzoo.MobileNetV3Small(input_shape=(size, size, 3), classes=2)


def noise(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype="uint8")


def epoch(data: Path, count: int, size: int) -> Callable[[], Any]:
    from kzoo.recipes.data.augment import Augment, Batches
    from kzoo.recipes.data.images import Images

    paths = sorted((data / "a").iterdir())[:256]
    net = net_of(size)
    net.compile("adam", "categorical_crossentropy")
    batches = Batches(
        Images(paths, round(size * 8 / 7)), np.arange(len(paths)) % 2, classes=2, batch_size=8,
        augment=Augment(), size=size,
    )  # fmt: skip
    net.fit(batches.only(batches.order[:8]), verbose=0)
    return lambda: net.fit(batches, verbose=0)


def quantize(data: Path, count: int, size: int) -> Callable[[], Any]:
    import kzoo

    net, images = net_of(size), noise(SOME, size)
    return lambda: kzoo.quantize(net, calibration=images)


def convert(data: Path, count: int, size: int) -> Callable[[], Any]:
    import kzoo
    from kzoo.tflite import convert

    int8 = kzoo.quantize(net_of(size), calibration=noise(8, size))
    return lambda: convert(int8, data / f"{size}.tflite")


def compare(data: Path, count: int, size: int) -> Callable[[], Any]:
    import kzoo
    from kzoo.tflite import compare, convert

    net, images = net_of(size), noise(count or SOME, size)
    file = convert(kzoo.quantize(net, calibration=images[:8]), data / f"{count}.tflite")
    return lambda: compare(net, file, images)


def report(data: Path, count: int, size: int) -> Callable[[], Any]:
    import kzoo
    from kzoo.files import save_model, write_json
    from kzoo.recipes.classify import TASK
    from kzoo.recipes.configs.image_labels import ClassifyConfig
    from kzoo.recipes.data.class_dataset import Split, read_dataset
    from kzoo.recipes.evaluation.evaluate import evaluate
    from kzoo.recipes.evaluation.report import write_report
    from kzoo.recipes.task import Run

    found = read_dataset(data)
    paths = (*found.train.paths, *found.val.paths)
    everything = Split(paths, np.concatenate([found.train.targets, found.val.targets]))
    folder = data.parent / "run"
    folder.mkdir()
    config = ClassifyConfig(str(data), out=str(folder), size=size, weights="none")
    write_json(folder / "config.json", dataclasses.asdict(config))
    run = Run(TASK, vars(config), dataclasses.replace(found, val=everything), folder, config)
    net = net_of(size)
    save_model(net, run.model)
    TASK.write_file(run, kzoo.quantize(net, calibration=noise(8, size)), lambda step: None)
    return lambda: write_report(run, evaluate(run, net), [])


PARTS = {part.__name__: part for part in (read, epoch, quantize, convert, compare, report)}
READ_FILES = {"read", "epoch", "report"}


def measured(part: str, data: Path, count: int, size: int) -> dict[str, float]:
    """Return what a part takes, measured in a process of its own."""
    words = [sys.executable, __file__, part, "--child", str(data), str(count), str(size)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=dict(os.environ))
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--images", type=int, nargs="*", default=[])
    parser.add_argument("--sizes", type=int, nargs="*", default=[])
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        work = PARTS[given.parts[0]](Path(given.child[0]), *map(int, given.child[1:]))
        before = used()
        work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps({"cpu_s": used() - before, "peak_mb": peak}))
        return
    with tempfile.TemporaryDirectory() as folder:
        for count in given.images or [512]:
            if READ_FILES & set(given.parts):
                draw(Path(folder) / str(count), count)
            else:
                (Path(folder) / str(count) / "classify").mkdir(parents=True)
        for part in given.parts:
            rows: list[dict[str, Any]] = []
            points = [(n, given.side) for n in given.images] + [(0, side) for side in given.sizes]
            for i, (count, size) in enumerate(points):
                data = Path(folder) / str(count or (given.images or [512])[0]) / "classify"
                found = measured(part, data, count, size)
                row = {"part": part, "images": count or "", "size": size, **found, "growth": ""}
                same = i and (count > 0) == (points[i - 1][0] > 0)
                if same:
                    step = count / points[i - 1][0] if count else size / points[i - 1][1]
                    row["growth"] = math.log(found["cpu_s"] / rows[-1]["cpu_s"]) / math.log(step)
                rows.append(row)
            record(f"growth_{part}", rows)


if __name__ == "__main__":
    main()
