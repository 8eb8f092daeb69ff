"""int8 by calibration of nets with real ImageNet weights, over several draws of calibration images.

    uv run python tests/bench/int8_draws.py PHOTOS --v3-small FILE.tflite --v2 FILE.pth
        [--draws 5] [--choices "as it is" ...] [--work FOLDER]

Half of the photos under PHOTOS are calibrated from, 100 a draw, and the other half scores: by the
interpreter, against the float model, so that no labels are needed. FILE.tflite holds
keras.applications' V3-Small weights, FILE.pth torchvision's V2 weights, both of 1,000 classes.
Photos that are not ImageNet's are harder: the float model is less sure of them. Writes
tests/bench/results/int8_draws.csv, a row for each net and choice: means and standard deviations
over the draws, and the CPU time of the files against the one of `as it is` of the same draw.
`distilled` is trained as `convert_within` does it, without labels, on 400 of those to calibrate
from. What is in the work folder already is not measured again. Cost: V3-Small 30 s of CPU a file,
distilled 4 minutes; V2 60 s.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import keras
import numpy as np
from record import record

import kzoo
from kzoo.quantization import correct, equalize
from kzoo.recipes.data.images import Images
from kzoo.tflite import benchmark, compare, convert
from kzoo.tflite.convert.within import distilled

BUILD: dict[str, Callable[..., keras.Model]] = {
    "V3-Small": kzoo.MobileNetV3Small,
    "V2": kzoo.MobileNetV2,
}
BASE = "as it is"
CHOICES: dict[str, dict] = {
    BASE: {},
    "equalized everywhere": {"equalization": "all"},
    "ranges mse": {"ranges": "mse"},
    "ranges minmax": {"ranges": "minmax"},
    "no equalization before 1x1 convolutions": {},
    "no equalization": {"equalization": False},
    "weights not fitted": {},
    "no bias correction": {"bias_correction": False},
    "distilled": {},
}
PATCHES: dict[str, tuple] = {
    "no equalization before 1x1 convolutions": (equalize, "before_pointwise", lambda *_: None),
    "weights not fitted": (correct, "is_fitted", lambda op: False),
}
SIZE, CALIBRATED, TRAINED = 224, 100, 400


def photos(folder: Path, scored: int) -> tuple[list[Path], np.ndarray]:
    """(Paths to calibrate from, images (N, H, W, C) to score on), the same for all draws."""
    paths = sorted(folder.rglob("*.jpg"))
    paths = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
    half = len(paths) // 2
    return paths[:half], Images(paths[half:][:scored], SIZE)[:]


def drawn(pool: list[Path], draw: int) -> np.ndarray:
    """The calibration images of a draw, (CALIBRATED, SIZE, SIZE, 3)."""
    chosen = np.random.default_rng(draw).permutation(len(pool))[:CALIBRATED]
    return Images([pool[i] for i in chosen], SIZE)[:]


@contextlib.contextmanager
def patched(choice: str) -> Iterator[None]:
    with mock.patch.object(*PATCHES[choice]) if choice in PATCHES else contextlib.nullcontext():
        yield


def measure(
    model: keras.Model, choice: str, calibration: np.ndarray, images: np.ndarray, file: Path,
    pool: list[Path],
) -> dict[str, float]:  # fmt: skip
    start = time.process_time()
    with patched(choice):
        int8 = kzoo.quantize(model, calibration=calibration, **CHOICES[choice])
        if choice == "distilled":
            int8 = distilled(int8, model, Images(pool[:TRAINED], SIZE)[:])
    seconds = time.process_time() - start
    found = compare(model, convert(int8, file), images)
    return {"agreement": found.agreement, "sqnr_db": found.sqnr_db, "quantize_s": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--v3-small", type=Path, help="a .tflite file of 1,000 classes")
    parser.add_argument("--v2", type=Path, help="torchvision's mobilenet_v2-b0353104.pth")
    parser.add_argument("--draws", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--choices", nargs="+", choices=CHOICES, default=list(CHOICES))
    parser.add_argument("--images", type=int, default=400, help="that score")
    parser.add_argument("--work", type=Path, help="folder of what is measured already")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="int8_draws_"))
    work.mkdir(exist_ok=True)
    pool, images = photos(options.photos, options.images)
    for net, weights in (("V3-Small", options.v3_small), ("V2", options.v2)):
        if not weights:
            continue
        model = BUILD[net](weights=weights)
        for draw in options.draws:
            todo = {c: work / f"{net}+{draw}+{c.replace(' ', '_')}.json" for c in options.choices}
            if all(path.is_file() for path in todo.values()):
                continue
            calibration = drawn(pool, draw)
            for choice, path in todo.items():
                if not path.is_file():
                    file = path.with_suffix(".tflite")
                    row = measure(model, choice, calibration, images, file, pool)
                    row |= {"net": net, "choice": choice, "images": len(images)}
                    path.write_text(json.dumps(row))
                    print(*row.values(), flush=True)
    record("int8_draws", summary(work))


def summary(work: Path) -> list[dict]:
    """A row for each net and choice."""
    rows = []
    for net in BUILD:
        bases = sorted(work.glob(f"{net}+*+{BASE.replace(' ', '_')}.tflite"))
        for choice in CHOICES:
            files = sorted(work.glob(f"{net}+*+{choice.replace(' ', '_')}.json"))
            if not files:
                continue
            found = [json.loads(file.read_text()) for file in files]

            def spread(key: str, digits: int, found: list[dict] = found) -> str:
                values = [one[key] for one in found]
                return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"

            mine = files[0].with_suffix(".tflite")
            base = bases[0] if bases else mine
            timings = benchmark([base, mine]).timings if base != mine else ()
            ratio = timings[1].cpu_ms / timings[0].cpu_ms if timings else 1.0
            rows.append({
                "net": net, "choice": choice, "draws": len(found), "photos": found[0]["images"],
                "agreement": spread("agreement", 3), "sqnr_db": spread("sqnr_db", 1),
                "cpu_of_file": f"{ratio:.2f}", "quantize_cpu_s": spread("quantize_s", 0),
            })  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
