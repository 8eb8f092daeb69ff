"""The wheel in empty environments: each extra alone, the newest and the oldest versions it allows.

    uv run python tests/bench/wheel_matrix.py [--extras "none;jax"] [--python 3.11,3.12,3.13]

Builds the wheel, installs it with `uv` and runs it from an empty folder: `kzoo --help`, then
whatever the extra allows. PyTorch is left out: its wheels are taken by pip (CONTRIBUTING.md). A
cell is `ok` or the last line of what went wrong. The first Python gets every row; the others get
those of SHORT, with the newest versions. A Python is a version that `uv` finds, or a path.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from record import record

HERE = Path(__file__).parents[2]
FORWARD = "import kzoo, numpy; m = kzoo.MobileNetV3Small(.5, input_shape=(64, 64, 3), classes=3); "
SETTLED = "assert numpy.isfinite(m.predict(numpy.ones((2, 64, 64, 3)), verbose=0)).all()"
DRAW = (
    "import numpy, pathlib; from PIL import Image\n"
    "draw = numpy.random.default_rng(0)\n"
    "for name, low in (('dark', 0), ('light', 128)):\n"
    "    folder = pathlib.Path('photos', name); folder.mkdir(parents=True)\n"
    "    for i in range(12):\n"
    "        pixels = draw.integers(low, low + 127, (48, 48, 3)).astype('uint8')\n"
    "        Image.fromarray(pixels).save(folder / f'{i}.png')"
)
CLASSIFY = (
    "kzoo classify photos --model mobilenet_v3_small --alpha .5 --size 48 --weights none "
    "--epochs 1 --qat-epochs 1 --out run"
)
# Extras that are installed together, the backend, and what must run.
MATRIX: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "none": ("", "", ("kzoo list",)),
    "tensorflow": ("tensorflow", "tensorflow", (FORWARD + SETTLED, "import kzoo.tflite")),
    "jax": ("jax", "jax", (FORWARD + SETTLED,)),
    "recipes": ("recipes", "", ("kzoo list",)),
    "heic": ("heic", "", ("import pillow_heif",)),
    "large": ("large", "", ("import array_record",)),
    "tensorboard": ("tensorboard", "", ("import tensorboard",)),
    "fast": ("fast", "", ("import cv2",)),
    "tfmot": ("tfmot", "tensorflow", ("import tensorflow_model_optimization",)),
    "keras-cv": ("keras-cv", "tensorflow", ("import keras_cv",)),
    "keras-hub": ("keras-hub", "tensorflow", ("import keras_hub",)),
    "tensorflow and recipes": ("tensorflow,recipes", "tensorflow", (DRAW, CLASSIFY)),
    "tensorflow, jax and recipes": ("tensorflow,jax,recipes", "jax", (DRAW, CLASSIFY)),
}
SHORT = ("none", "jax", "tensorflow and recipes")
RESOLUTIONS = ("highest", "lowest-direct")


def tried(words: list[str], folder: Path, **variables: str) -> str:
    """Run a command; return "ok" or the last line that it printed."""
    plain = {
        key: value for key, value in os.environ.items()
        if key not in ("PYTHONPATH", "VIRTUAL_ENV", "KERAS_BACKEND")
    }  # fmt: skip
    done = subprocess.run(
        words, cwd=folder, env=plain | variables, capture_output=True, text=True, timeout=900
    )
    if not done.returncode:
        return "ok"
    return (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1][:160]


def cell(name: str, wheel: Path, python: str, resolution: str, folder: Path) -> dict[str, str]:
    """Install the wheel with its extras into an empty environment and run it."""
    extras, backend, runs = MATRIX[name]
    environment, empty = folder / "environment", folder / "empty"
    empty.mkdir()
    made = tried(["uv", "venv", "--quiet", "--python", python, str(environment)], folder)
    target = f"kzoo[{extras}] @ {wheel.as_uri()}" if extras else str(wheel)
    install = ["uv", "pip", "install", "--quiet", "--resolution", resolution, target]
    row = {
        "python": Path(python).name.removeprefix("python"),
        "extra": name,
        "versions": resolution,
    }
    row["install"] = tried(install, folder, VIRTUAL_ENV=str(environment)) if made == "ok" else made
    if row["install"] != "ok":
        return row | {"help": "not run", "run": "not run"}
    programs = environment / "bin"
    variables = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder)}
    if backend:
        variables["KERAS_BACKEND"] = backend
    row["help"] = tried([str(programs / "kzoo"), "--help"], empty, **variables)
    for run in runs:
        words = run.split() if run.startswith("kzoo ") else ["python", "-c", run]
        words[0] = str(programs / words[0])
        row["run"] = tried(words, empty, **variables)
        if row["run"] != "ok":
            row["run"] = f"{run.split()[0]}: {row['run']}"
            break
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--extras", default=";".join(MATRIX), help="rows of MATRIX, with ; between")
    parser.add_argument("--python", default="3.11", help="versions or paths, commas between")
    parser.add_argument("--resolutions", default=",".join(RESOLUTIONS))
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        build = [sys.executable, "-m", "build", "--wheel", "--outdir", place, str(HERE)]
        subprocess.run(build, check=True, capture_output=True)
        (wheel,) = Path(place).glob("*.whl")
        names, resolutions = given.extras.split(";"), given.resolutions.split(",")
        first, *others = given.python.split(",")
        cells = [(first, name, resolution) for name in names for resolution in resolutions]
        cells += [(other, name, "highest") for other in others for name in names if name in SHORT]
        for i, (python, name, resolution) in enumerate(cells):
            folder = Path(place) / str(i)
            folder.mkdir()
            rows.append(cell(name, wheel, python, resolution, folder))
            print(rows[-1], flush=True)
            shutil.rmtree(folder)
    record("wheel_matrix", rows)


if __name__ == "__main__":
    main()
