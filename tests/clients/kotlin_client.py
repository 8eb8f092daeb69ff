"""Compiles the Kotlin of `kzoo android` and runs its arithmetic.

    python tests/clients/kotlin_client.py        # a minute, with the files there

The compiler is Kotlin's own, from npm (kotlin-compiler, 70 MB, into the user's cache), on the JVM
of this machine. Android, CameraX and LiteRT are stubs (android_stubs/): signatures as documented,
with enough inside to run the app's own functions. What is run is

- Resample.kt on photos that shrink, grow and are transparent, against Pillow, to the bit;
- Task.kt of a classifier, a detector, one with TFLite_Detection_PostProcess, a segmenter, one that
  ends in its mask, and a detector and a segmenter of an input that is no square, on the outputs of
  their files, against what `Runner` makes of them;
- Tiles.kt, with the detector of bright squares that tests/test_tiles.py has, against
  kzoo.detection.tiles.

No phone and no Android SDK is involved.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
from arm_client import cache  # noqa: E402
from conftest import CLASSES  # noqa: E402
from test_tiles import bright_squares  # noqa: E402
from zoo_files import WIDE, detector, segmenter, stripes, zoo_files  # noqa: E402

import kzoo  # noqa: E402
from kzoo.detection.detector import at_own_size  # noqa: E402
from kzoo.detection.tiles import AUTO  # noqa: E402
from kzoo.recipes.programs.android_folder import DETECTION_THRESHOLD, SOURCES, android  # noqa: E402
from kzoo.sizes import tiles_text  # noqa: E402
from kzoo.tflite import BoxOutputs, Metadata, Runner, SegmenterOutput, audit, convert  # noqa: E402

COMPILER = "kotlin-compiler@2.4.20"
LABELS = [f"stripes {i}" for i in range(CLASSES)]
NETS = {  # of zoo_files: the metadata that a run would have written
    "v2": Metadata(labels=tuple(LABELS)),
    "ssdlite": None,
    "ssdlite_op": None,
    "lraspp": Metadata(labels=tuple(LABELS), outputs=SegmenterOutput("none")),
    "lraspp_mask": None,
    "ssdlite_wide": None,  # of 64 x 96 px
    "lraspp_wide": Metadata(labels=tuple(LABELS), outputs=SegmenterOutput("none")),
}


WIDE_NETS = {
    "ssdlite_wide": lambda: detector(WIDE),
    "lraspp_wide": lambda: segmenter(kzoo.LRASPP, WIDE),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=Path, default=cache() / "zoo", help="made where missing")
    parser.add_argument("--compiler", type=Path, default=cache() / "kotlin")
    parser.add_argument("--only", nargs="+", choices=tuple(NETS), default=tuple(NETS))
    given = parser.parse_args()
    jars = compiler(given.compiler)
    only = tuple(dict.fromkeys(net.split("_")[0] for net in given.only))
    files = {net: file for net, form, file in zoo_files(given.files, only) if form == "int8"}
    files |= wide_files(given.files)
    with tempfile.TemporaryDirectory() as folder:
        for net in given.only:
            app = made(Path(folder) / net, files[net], net)
            classes = compiled(app, jars)
            if net == "v2":
                print(f"resampled: {resampling(classes, jars, Path(folder))} images as Pillow's")
            if net == "ssdlite":
                print(f"tiles: {tiling(classes, jars, Path(folder))} objects as kzoo finds them")
            print(f"{net}: {reading(app, classes, jars, files[net])}", flush=True)


def wide_files(folder: Path) -> dict[str, Path]:
    """int8 files of a detector and a segmenter whose input is no square, made where missing."""
    files = {}
    for net, make in WIDE_NETS.items():
        files[net] = folder / f"{net}_int8.tflite"
        if not files[net].is_file():
            keras.utils.set_random_seed(0)
            convert(make(), files[net], calibration=stripes(100, WIDE))
    return files


def compiler(folder: Path) -> Path:
    """The folder of the compiler's jars, fetched by npm where it is not there yet."""
    jars = folder / "package" / "lib"
    if not jars.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", COMPILER], cwd=folder, check=True)
        with tarfile.open(next(folder.glob("kotlin-compiler-*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
    return jars


def made(run: Path, file: Path, net: str) -> Path:
    """The app of a run that ended in `file`."""
    from kzoo.tflite.metadata.writing import add_metadata

    run.mkdir()
    (run / "config.json").write_text(json.dumps({"task": "classify", "model": net}))
    (run / "labels.txt").write_text("\n".join(LABELS))
    said = NETS[net]
    content = file.read_bytes()
    (run / "model.tflite").write_bytes(add_metadata(content, said) if said else content)
    return android(run, tiles=(2, 2) if net == "ssdlite" else None)


def compiled(app: Path, jars: Path) -> Path:
    """The classes of the app's Kotlin, with the stubs and Check.kt. Raises with what is wrong."""
    sources = app / SOURCES
    package = re.search(r"package (\S+)", next(sources.rglob("Model.kt")).read_text())
    assert package
    checks = [
        app / "Check.kt",
        *([app / "CheckTiles.kt"] if any(sources.rglob("Tiles.kt")) else []),
    ]
    for check in checks:
        text = (HERE / "android_stubs" / f"{check.name}.txt").read_text()
        check.write_text(text.replace("@PACKAGE@", package[1]))
    words = ["-no-stdlib", "-no-reflect", "-cp", jars / "kotlin-stdlib.jar", "-d", app / "classes"]
    files = [*sources.rglob("*.kt"), *(HERE / "android_stubs").glob("*.kt"), *checks]
    java("org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", [*words, *files], sorted(jars.glob("*.jar")))
    return app / "classes"


def java(main_class: str, words: list, jars: list[Path], *, assets: Path | None = None) -> str:
    place = [f"-Dassets={assets}"] if assets else []
    command = ["java", *place, "-cp", ":".join(map(str, jars)), main_class, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=assets)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout


def check_class(classes: Path, name: str = "CheckKt") -> str:
    found = next(classes.rglob(f"{name}.class")).relative_to(classes)
    return ".".join(found.with_suffix("").parts)


def resampling(classes: Path, jars: Path, folder: Path) -> int:
    """How many images Resample.kt makes as Pillow does. Raises where one differs in any byte."""
    random = np.random.default_rng(0)
    names, wanted = [], []
    for i, (width, height) in enumerate([(500, 333), (40, 50), (64, 64), (301, 63), (1200, 900)]):
        pixels = random.integers(0, 256, (height, width, 4), np.uint8)
        pixels[..., 3] = 255
        order = pixels[..., [2, 1, 0, 3]]  # ARGB as little-endian integers
        names.append(folder / f"{i}.argb")
        names[-1].write_bytes(np.array([width, height], "<i4").tobytes() + order.tobytes())
        photo = Image.fromarray(pixels[..., :3])
        wanted.append(np.asarray(photo.resize((WIDE[1], WIDE[0]), Image.Resampling.BILINEAR)))
    java(check_class(classes), ["resample", WIDE[1], WIDE[0], *names], [classes, *stdlib(jars)])
    for name, values in zip(names, wanted, strict=True):
        found = np.fromfile(f"{name}.out", np.uint8).reshape(values.shape)
        np.testing.assert_array_equal(found, values)
    return len(names)


def tiling(classes: Path, jars: Path, folder: Path) -> int:
    """How many objects Tiles.kt finds as kzoo does. Raises where one is more than 1 px off."""
    random, told = np.random.default_rng(0), 0
    for tiles in ((1, 1), (2, 2), (3, 2), AUTO):
        photos, names = [], []
        for i in range(20):
            height, width = random.integers(150, 600, 2)
            image = np.zeros((height, width, 3), np.uint8)
            for channel in range(3):
                side = int(random.choice([16, 30, 90]))
                y, x = random.integers(0, (height - side, width - side))
                image[y : y + side, x : x + side, channel] = 255
            photos.append(image)
            order = np.dstack([image[..., ::-1], np.full((height, width), 255, np.uint8)])
            names.append(folder / f"tiles{i}.argb")
            names[-1].write_bytes(np.array([width, height], "<i4").tobytes() + order.tobytes())
        words, own = [tiles_text(tiles), *names], [classes, *stdlib(jars)]
        page = java(check_class(classes, "CheckTilesKt"), words, own)
        lines = [line.split("\t") for line in page.splitlines()]
        looked = at_own_size(bright_squares, photos, (64, 64), tiles, {})
        for name, image, wanted in zip(names, photos, looked, strict=True):
            own = sorted(
                [int(line[1]), *map(float, line[2:])] for line in lines if line[0] == str(name)
            )
            size = [*image.shape[:2]] * 2
            boxes = sorted([label, *(box / size).tolist()] for box, label, _ in wanted)
            np.testing.assert_allclose(own, boxes, atol=1 / 64)
            told += len(own)
    return told


def stdlib(jars: Path) -> list[Path]:
    return [jars / "kotlin-stdlib.jar"]


def reading(app: Path, classes: Path, jars: Path, file: Path) -> str:
    """What Task.kt reads of the outputs of some images, held against `Runner`. Raises otherwise."""
    assets = app / "app" / "src" / "main" / "assets"
    found = audit(next(assets.glob("*.tflite")), run=False)
    outputs = found.metadata.outputs if found.metadata else None
    runner, told = Runner(found.path), 0
    names = [port.name for port in found.outputs]
    if isinstance(outputs, BoxOutputs):
        names = [outputs.boxes, outputs.scores]
    elif hasattr(outputs, "order"):
        names = list(outputs.order)
    images = stripes(4, runner.input.shape[1:], seed=3)
    for image in images:
        values = runner(image)
        values = values if isinstance(values, dict) else {names[0]: values}
        for i, name in enumerate(names):
            kind = np.uint8 if found.outputs[0].dtype == "uint8" else "<f4"
            (assets / f"{i}.raw").write_bytes(np.asarray(values[name], kind).tobytes())
        raws = [assets / f"{i}.raw" for i in range(len(names))]
        page = java(check_class(classes), ["read", *raws], [classes, *stdlib(jars)], assets=assets)
        lines = [line.split("\t") for line in page.splitlines()]
        told += len(lines)
        if len(names) > 1:
            wanted = runner.detect([image], score_threshold=DETECTION_THRESHOLD)[0]
            objects(lines, wanted, image.shape[:2])
        elif len(found.outputs[0].shape) == 2:
            classes_of(lines, values[names[0]].reshape(-1))
        else:
            mask = values[names[0]][0] if values[names[0]].ndim > 3 else values[names[0]]
            mask = mask.argmax(-1) if mask.ndim == 3 and mask.shape[-1] == CLASSES else mask
            drawn = np.fromfile(assets / "mask.out", np.uint8)
            np.testing.assert_array_equal(drawn, mask.reshape(-1).astype(np.uint8))
    return f"{told} results on {len(images)} images, as Runner has them"


def classes_of(lines: list[list[str]], scores: np.ndarray) -> None:
    order = np.argsort(-scores, kind="stable")[: len(lines)]
    assert [line[0] for line in lines] == [LABELS[i] for i in order], (lines, scores)
    np.testing.assert_allclose([float(line[1]) for line in lines], scores[order], atol=1e-5)


def objects(lines: list[list[str]], wanted: Any, size: tuple[int, int]) -> None:
    """The same objects, in any order among equal scores; boxes in shares against pixels."""
    most = min(20, len(wanted.scores))
    np.testing.assert_allclose(
        sorted(float(line[1]) for line in lines)[::-1][:most],
        sorted(np.asarray(wanted.scores).tolist())[::-1][:most],
        atol=1e-5,
    )
    boxes = np.asarray(wanted.boxes) / np.tile(size, 2)
    for line in lines:
        box = np.array([float(value) for value in line[2:]])
        near = np.abs(np.clip(box, 0, 1) - np.clip(boxes, 0, 1)).max(-1)
        assert near.min() < 1e-3, (line, boxes[near.argmin()])


if __name__ == "__main__":
    if shutil.which("java") is None or shutil.which("npm") is None:
        sys.exit("This needs java (17 or newer) and npm.")
    main()
