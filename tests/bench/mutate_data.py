"""Mutated annotation files and images: each is read, or told with its file; none crashes or hangs.

    python tests/bench/mutate_data.py --count 3000

Every file of every format of tests/data_sets.py is changed at random: bytes flipped, cut out,
doubled or cut off, numbers replaced by odd ones, words swapped, lines lost. Outcomes: "same" (the
reading of the file as it was), "told" (another reading, with an issue), "refused" (a ValueError),
"changed" (another reading without an issue: a digit of a coordinate, which nobody can see), "crash"
and "hang". One row a format into results/mutate_data.csv.
"""

import argparse
import csv
import io
import os
import platform
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from data_sets import LAYOUTS, SCENE, image, text

from kzoo.recipes.data import read_boxes, read_dataset, read_masks
from kzoo.recipes.data.images import look_at, read_image

ODD = ("", "nan", "-1", "1e999", "99999999999999999999", "0", "null", "true", '"', "[", "{}", "\0",
       "ä", "<", "&", "../../x", "-0.5", "1e-320", "[[[[", "\u202e")  # fmt: skip
TIMEOUT_S = 20
RESULTS = Path(__file__).parent / "results" / "mutate_data.csv"
COLUMNS = ("kind", "format", "n", "same", "told", "refused", "changed", "crash", "hang",
           "slowest_s", "mean_ms", "peak_mb", "seed", "commit", "machine", "command")  # fmt: skip


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Return a file's bytes with one to three changes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice(CHANGES)(content, rng)
    return content


def flip(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return b"\xff"
    i = rng.randrange(len(content))
    return content[:i] + bytes([content[i] ^ 1 << rng.randrange(8)]) + content[i + 1 :]


def span(content: bytes, rng: random.Random) -> tuple[int, int]:
    i = rng.randrange(len(content) + 1)
    return i, min(len(content), i + rng.choice((1, 4, 20, 200)))


def lose(content: bytes, rng: random.Random) -> bytes:
    i, j = span(content, rng)
    return content[:i] + content[j:]


def double(content: bytes, rng: random.Random) -> bytes:
    i, j = span(content, rng)
    return content[:j] + content[i:j] * rng.choice((1, 3)) + content[j:]


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def odd_number(content: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(rb"-?\d+\.?\d*", content))
    if not found:
        return flip(content, rng)
    one = rng.choice(found)
    return content[: one.start()] + rng.choice(ODD).encode() + content[one.end() :]


def swap_words(content: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(rb"\w+", content))
    if len(found) < 2:
        return flip(content, rng)
    a, b = sorted(rng.sample(found, 2), key=lambda m: m.start())
    middle = content[a.end() : b.start()]
    return content[: a.start()] + b[0] + middle + a[0] + content[b.end() :]


def lose_line(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if len(lines) > 1:
        del lines[rng.randrange(len(lines))]
    return b"".join(lines)


def insert(content: bytes, rng: random.Random) -> bytes:
    i = rng.randrange(len(content) + 1)
    more = rng.choice((rng.choice(ODD).encode(), rng.randbytes(rng.choice((1, 8, 300)))))
    return content[:i] + more + content[i:]


CHANGES = (flip, lose, double, cut, odd_number, odd_number, swap_words, lose_line, insert)


class Hang(BaseException):
    """Reading took longer than `TIMEOUT_S`."""


def stop(*_: Any) -> None:
    raise Hang


def outcome_of(read: Callable[[], Any], wanted: Any, seen: Callable[[Any], Any]) -> str:
    """Return what came of reading a mutated file."""
    signal.alarm(TIMEOUT_S)
    try:
        found = read()
        if seen(found) == wanted:
            return "same"
        return "told" if found.issues else "changed"
    except ValueError as error:
        return "refused" if type(error) is ValueError else "crash"
    except Hang:
        return "hang"
    except Exception as error:
        print(f"{type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
        return "crash"
    finally:
        signal.alarm(0)


def boxes_seen(dataset: Any) -> list:
    return sorted(
        (split, e.path.name, dataset.labels[k], tuple(box.round(4).tolist()))
        for split in ("train", "val", "test")
        for e in getattr(dataset, split)
        for k, box in zip(e.labels, e.boxes, strict=True)
    )


def classes_seen(dataset: Any) -> list:
    return sorted(
        (split, path.name, dataset.labels[target])
        for split in ("train", "val", "test")
        for path, target in zip(
            getattr(dataset, split).paths, getattr(dataset, split).targets, strict=True
        )
    )


def masks_seen(dataset: Any) -> list:
    return [
        (dataset.labels, split, p.image.name, int(p.mask.read().astype(int).sum()))
        for split in ("train", "val", "test")
        for p in getattr(dataset, split)
    ]


def class_table(root: Path) -> Path:
    rows = ["file,label,split"]
    for i in range(9):
        image(root / f"{i}.png", (16, 16))
        rows.append(f"{i}.png,{'ab'[i % 2]},{('train', 'train', 'val')[i % 3]}")
    text(root / "x.csv", "\n".join(rows))
    return root


def mask_files(root: Path) -> Path:
    for i in range(6):
        image(root / "images" / f"{i}.png", (16, 16))
        own = np.zeros((16, 16, 3), "uint8")
        own[:8] = 128, 0, 0
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(own).save(root / "masks" / f"{i}.png")
    text(root / "labelmap.txt", "ground:0,0,0::\nthing:128,0,0::\n")
    text(root / "train.txt", "0\n1\n2\n3\n")
    text(root / "val.txt", "4\n5\n")
    return root


SMALL = {name: own for name, own in SCENE.items() if name != "train/c"}
SETS: dict[str, tuple[Callable, Callable, Callable]] = {
    **{name: (lambda root, w=write: w(root, SMALL), read_boxes, boxes_seen)
       for name, write in LAYOUTS.items()},
    "coco outlines": (lambda root: LAYOUTS["coco"](root, SMALL), read_masks, masks_seen),
    "labelme outlines": (lambda root: LAYOUTS["labelme"](root, SMALL), read_masks, masks_seen),
    "class table": (class_table, lambda root: read_dataset(root / "x.csv"), classes_seen),
    "masks and label map": (mask_files, read_masks, masks_seen),
}  # fmt: skip
TEXTS = (".json", ".xml", ".txt", ".yaml", ".csv")


def annotation_rows(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each format: `count` mutations, shared out evenly."""
    for number, (name, (write, read, seen)) in enumerate(SETS.items()):
        rng = random.Random(seed * 1000 + number)
        n = count // len(SETS) + (number < count % len(SETS))
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write(root)
            kinds = (*TEXTS, ".png") if name.startswith("masks") else TEXTS
            files = sorted(p for p in root.rglob("*") if p.suffix in kinds and "images" not in (
                p.parts))  # fmt: skip
            wanted = seen(read(root))
            outcomes: Counter[str] = Counter()
            times = []
            for _ in range(n):
                file = rng.choice(files)
                before = file.read_bytes()
                file.write_bytes(mutated(before, rng))
                start = time.perf_counter()
                outcomes[outcome_of(lambda: read(root), wanted, seen)] += 1  # noqa: B023
                times.append(time.perf_counter() - start)
                file.write_bytes(before)
        yield row("annotations", name, n, outcomes, times)


def stored_images() -> dict[str, bytes]:
    """Return one image in each format that this machine writes."""
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype="uint8"))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photo"
    forms = {
        "JPEG": {"exif": exif}, "PNG": {"exif": exif}, "WEBP": {"exif": exif}, "TIFF": {},
        "GIF": {}, "BMP": {}, "AVIF": {}, "JPEG2000": {}, "PPM": {}, "TGA": {}, "HEIF": {},
    }  # fmt: skip
    found = {}
    for form, options in forms.items():
        out = io.BytesIO()
        try:
            photo.save(out, form, **options)
        except (KeyError, OSError, ValueError):
            continue
        found[form] = out.getvalue()
    for name, values in (("TIFF 16", (np.eye(48) * 4095).astype("uint16")),
                         ("TIFF float", np.eye(48, dtype="float32"))):  # fmt: skip
        out = io.BytesIO()
        Image.fromarray(values).save(out, "TIFF")
        found[name] = out.getvalue()
    return found


def image_rows(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each format of images; "same" is read, "told" is a fault that is said."""
    stored = stored_images()
    with tempfile.TemporaryDirectory() as folder:
        for number, (form, content) in enumerate(stored.items()):
            rng = random.Random(seed * 1000 + number)
            n = count // len(stored) + (number < count % len(stored))
            outcomes: Counter[str] = Counter()
            times = []
            file = Path(folder) / "a.jpg"
            for _ in range(n):
                file.write_bytes(mutated(content, rng))
                start = time.perf_counter()
                outcomes[image_outcome(file)] += 1
                times.append(time.perf_counter() - start)
            yield row("images", form, n, outcomes, times)


def image_outcome(file: Path) -> str:
    signal.alarm(TIMEOUT_S)
    try:
        look = look_at(file)
        if look.fault:
            return "told"
        return "same" if read_image(file, 32).shape == (32, 32, 3) else "crash"
    except Hang:
        return "hang"
    except Exception as error:
        print(f"{type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
        return "crash"
    finally:
        signal.alarm(0)


def row(kind: str, form: str, n: int, outcomes: Counter, times: list[float]) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {name: outcomes[name] for name in COLUMNS[3:9]}
    return {
        "kind": kind, "format": form, "n": n, **found, "slowest_s": round(max(times), 3),
        "mean_ms": round(1000 * sum(times) / n, 2), "peak_mb": round(peak),
    }  # fmt: skip


def run(count: int, seed: int) -> list[dict[str, Any]]:
    """Return the rows of `count` mutated annotation files and as many images."""
    signal.signal(signal.SIGALRM, stop)
    return [*annotation_rows(count, seed), *image_rows(count, seed)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--append", action="store_true", help="to the rows that are there")
    given = parser.parse_args()
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    about = {
        "seed": given.seed,
        "commit": commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "command": f"mutate_data.py --count {given.count}",
    }
    rows = [found | about for found in run(given.count, given.seed)]
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a" if given.append else "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not given.append:
            writer.writeheader()
        writer.writerows(rows)
    for found in rows:
        print(*(f"{found[name]!s:>12}" for name in COLUMNS[:12]))


if __name__ == "__main__":
    main()
