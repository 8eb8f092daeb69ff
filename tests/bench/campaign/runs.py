"""The smallest runs of each recipe, in processes of their own, and what they leave."""

import functools
import hashlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scenes import draw_scene

import kzoo
from kzoo.backbones.rows import Bneck, Conv, Head
from kzoo.recipes.classify import classify
from kzoo.recipes.detect import detect
from kzoo.recipes.multilabel import multilabel
from kzoo.recipes.segment import segment
from kzoo.registry import register

NET, PYRAMID = "campaign_net", "campaign_pyramid"  # so small that a run takes seconds
ROWS = (Conv(3, 16, 2), Bneck(3, 1, 16), Bneck(3, 2, 24, 2), Bneck(3, 2, 24))
SMALL = {"weights": "none", "epochs": 2, "qat_epochs": 0, "batch_size": 4, "quiet": True}


@register(NET)
def campaign_net(alpha: float = 1.0, **options: Any) -> Any:
    return kzoo.build(NET, ROWS, Head(), alpha, **options)


@register(PYRAMID)
def campaign_pyramid(alpha: float = 1.0, **options: Any) -> Any:
    """A row at each stride up to 32, which detectors and segmenters need."""
    rows = (Conv(3, 16, 2), *(Bneck(3, 1, width, 2) for width in (16, 16, 24, 32)), Conv(1, 64))
    return kzoo.build(PYRAMID, rows, Head(), alpha, **options)


RECIPES: dict[str, Callable[..., Any]] = {
    "classify": functools.partial(classify, model=NET, alpha=0.35, size=32, **SMALL),
    "detect": functools.partial(detect, model=PYRAMID, alpha=0.35, size=64, **SMALL),
    "multilabel": functools.partial(multilabel, model=NET, alpha=0.35, size=32, **SMALL),
    "segment": functools.partial(segment, model=PYRAMID, alpha=0.35, size=64, **SMALL),
}


def colours(folder: Path, labels: tuple[str, ...] = ("red", "green"), each: int = 8) -> Path:
    """Images of one colour and noise in a folder for each class."""
    rng = np.random.default_rng(0)
    for k, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for i in range(each):
            image = rng.integers(0, 100, (32, 32, 3), dtype="uint8")
            image[..., k % 3] += 120
            Image.fromarray(image).save(folder / label / f"{i}.png")
    return folder


def tagged(folder: Path, each: int = 8) -> Path:
    """The images of `colours` with a table of their labels: one, both or none."""
    images = sorted(colours(folder, each=each).rglob("*.png"))
    lines = [f"{image.relative_to(folder).as_posix()},{int(i % 2)},{int(i % 3 == 0)}\n"
             for i, image in enumerate(images)]  # fmt: skip
    (folder / "labels.csv").write_text("".join(["file,odd,third\n", *lines]))
    return folder / "labels.csv"


def boxes(folder: Path, count: int = 8) -> Path:
    """Scenes with their boxes as YOLO writes them."""
    rng = np.random.default_rng(0)
    for split, n in (("train", count), ("val", count // 2)):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        for i in range(n):
            scene = draw_scene(64, rng)
            scene.image.save(folder / "images" / split / f"{i}.png")
            lines = [f"{k} {(x + w / 2) / 64} {(y + h / 2) / 64} {w / 64} {h / 64}\n"
                     for k, (x, y, w, h) in scene.objects]  # fmt: skip
            (folder / "labels" / split / f"{i}.txt").write_text("".join(lines))
    (folder / "data.yaml").write_text(
        "train: images/train\nval: images/val\nnames: [circle, cross, triangle]\n"
    )
    return folder


def masks(folder: Path, count: int = 8) -> Path:
    """Scenes with their masks."""
    rng = np.random.default_rng(0)
    for split, n in (("train", count), ("val", count // 2)):
        for part in ("images", "masks"):
            (folder / split / part).mkdir(parents=True)
        for i in range(n):
            scene = draw_scene(64, rng)
            scene.image.save(folder / split / "images" / f"{i}.png")
            scene.mask.save(folder / split / "masks" / f"{i}.png")
    (folder / "labels.txt").write_text("background\ncircle\ncross\ntriangle\n")
    return folder


DATA = {"classify": colours, "detect": boxes, "multilabel": tagged, "segment": masks}


def started(function: Callable[[], Any], *, log: Path, file_size: int | None = None) -> int:
    """Run a function in a child; its exit code is that of `kzoo`: 0, 1 for one line, else 70."""
    child = os.fork()
    if child:
        return child
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    code = 0
    try:
        function()
    except (ValueError, OSError) as error:
        print(f"kzoo: {error}", file=sys.stderr, flush=True)
        code = 1
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        code = 70
    os._exit(code)


def ended(child: int, *, after_s: float | None = None, of_cpu: bool = False) -> int:
    """Wait for a child, or kill it with -9 after some seconds; return its exit code, or -signal.

    of_cpu: the seconds are of the processor, which other work on the machine does not stretch.
    """
    start = time.monotonic()
    while after_s is None or spent(child, start, of_cpu) < after_s:
        pid, status = os.waitpid(child, 0 if after_s is None else os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def spent(child: int, start: float, of_cpu: bool) -> float:
    """Return the seconds since `start`, or those of the processor that a child has used."""
    clock = (~child << 3) | 2  # what clock_getcpuclockid(3) returns on Linux
    return time.clock_gettime(clock) if of_cpu else time.monotonic() - start


def told(log: Path, code: int) -> str:
    """Return the outcome of a child that was to refuse or to end well."""
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    last = text.splitlines()[-1] if text else ""
    if code == 0:
        return "answer"
    return "refused" if code == 1 and last.startswith("kzoo: ") else f"code {code}: {last[:150]}"


def digests(folder: Path, names: tuple[str, ...] = ("model.tflite", "predictions.csv")) -> dict:
    """Return the SHA-256 of a run's results, by name."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in names
        if (folder / name).is_file()
    }


def unfinished(folder: Path) -> list[str]:
    """Return what a run that ended well should not have left."""
    return [str(p.relative_to(folder)) for p in folder.rglob("*")
            if p.name.startswith(".part-") or p.name.endswith((".lock", ".part"))]  # fmt: skip
