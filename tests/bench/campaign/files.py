"""Model files that were changed: every reader answers, or says what is wrong with which file.

Of a .tflite file the numbers that make up its tables are changed (offsets, lengths, shapes, scales,
indices), found by watching the reader; of a .keras, .pth or .safetensors file the bytes inside its
archive, which is then whole again, so that the change arrives.
"""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzz_files import mutated as changed_bytes
from mutate_data import odd_number, swap_words

import kzoo.weights.readers.flatbuffer as flatbuffer
from campaign.cases import Budget, Case, isolated
from kzoo.tflite import Runner, audit, read_metadata
from kzoo.weights.readers.torch_file import read_stream, read_zip
from kzoo.weights.reading import read_checkpoint
from kzoo.weights.saved_model import load_model

TESTS = Path(__file__).parents[2]
TOGETHER = 40  # cases of a process, at the most
EXTREMES = (0, 1, 2, 3, -1, -2, 127, 128, 255, 256, 65535, 1 << 20, (1 << 31) - 1, -(1 << 31))


def watched(content: bytes) -> list[tuple[int, int]]:
    """Return (position, size) of every number that reading the tables of a .tflite file takes."""
    places: set[tuple[int, int]] = set()

    class Watched(flatbuffer.Reader):
        def scalar(self, form: str, at: int) -> object:
            places.add((at, struct.calcsize(f"<{form}")))
            return super().scalar(form, at)

        def span(self, at: int, count: int, size: int) -> memoryview:
            if size > 1 and count <= 64:  # shapes, scales, indices; not the weights
                places.update((at + i * size, size) for i in range(count))
            return super().span(at, count, size)

    plain = flatbuffer.Reader
    flatbuffer.Reader = Watched  # type: ignore[misc]
    try:
        flatbuffer.read_tflite(content)
    finally:
        flatbuffer.Reader = plain  # type: ignore[misc]
    return sorted(places)


def table_change(content: bytes, places: list[tuple[int, int]], rng: Random) -> bytes:
    """Return a .tflite file with one to three of its tables' numbers changed."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, size = rng.choice(places)
        old = int.from_bytes(data[at : at + size], "little", signed=True)
        other, _ = rng.choice(places)
        new = rng.choice((
            old + rng.choice((-4, -2, -1, 1, 2, 4)), rng.choice(EXTREMES), old ^ 1 << rng.randrange(
                8 * size), int.from_bytes(data[other : other + size], "little"), len(content),
        ))  # fmt: skip
        data[at : at + size] = (new % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(data)


def zip_change(content: bytes, rng: Random) -> bytes:
    """Return an archive with bytes of one of its files changed, and whole again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(parts))
    parts[name] = any_change(parts[name], rng, text=name.endswith((".json", ".txt")))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for own, inside in parts.items():
            archive.writestr(own, inside)
    return out.getvalue()


def any_change(content: bytes, rng: Random, *, text: bool = False) -> bytes:
    if text and rng.random() < 0.8:
        return rng.choice((odd_number, swap_words))(content, rng)
    return changed_bytes(content, rng.randrange(1 << 30))


def pickle_change(content: bytes, rng: Random) -> bytes:
    """Return a .pth with its pickle changed, in a whole archive where it is one."""
    return zip_change(content, rng) if content[:2] == b"PK" else any_change(content, rng)


def header_change(content: bytes, rng: Random) -> bytes:
    """Return a .safetensors file with its JSON changed and its length right."""
    end = 8 + int.from_bytes(content[:8], "little")
    head = any_change(content[8:end], rng, text=True)
    return len(head).to_bytes(8, "little") + head + content[end:]


def all_of(*reads: Callable[[Path], Any]) -> Callable[[Path], str | None]:
    """Return what has each of the readers read a file; raises what the last that refused said."""

    def read(path: Path) -> str | None:
        refused = None
        for one in reads:
            try:
                one(path)
            except ValueError as error:
                refused = error
                if one in NAMING and path.name not in str(error):
                    return f"an error that does not name the file: {error}"[:160]
        if refused:
            raise refused
        return None

    return read


NAMING = (read_checkpoint, load_model)  # their errors name the file
read_weights = all_of(read_checkpoint)
read_model = all_of(read_checkpoint, load_model)
read_torch = all_of(read_checkpoint, lambda path: TORCH[path.read_bytes()[:2] == b"PK"](
    path.read_bytes()))  # fmt: skip  # the first knows no net of these tensors
TORCH = (read_stream, read_zip)
read_flat = all_of(read_metadata, read_checkpoint, lambda file: str(audit(file, run=False)))


def run_flat(path: Path) -> None:
    """In an interpreter, in this process."""
    runner = Runner(path)
    runner(np.zeros(runner.input.shape[1:], np.uint8))


Change = Callable[[bytes, Random], bytes]
Feed = Callable[[Path], str | None]


def samples(folder: Path) -> dict[str, tuple[list[Path], list[Change], list[Feed]]]:
    """Return {kind: (files, how they are changed, what reads them)}."""
    golden = TESTS / "golden"
    flat = sorted(folder.glob("*.tflite"))
    found: dict[str, tuple[list[Path], list[Change], list[Feed]]] = {
        ".keras": (
            sorted((golden / "saved").glob("*.keras")),
            [zip_change, zip_change, any_change], [read_model],
        ),
        ".pth": (
            [golden / "torch_zip.pth", golden / "torch_stream.pth"],
            [any_change, pickle_change], [read_torch],
        ),
        ".safetensors": ([safetensors(folder)], [header_change, any_change], [read_weights]),
        ".h5": (sorted(folder.glob("*.h5")), [any_change], [read_weights]),
        "model.json": (sorted(folder.glob("*.json")), [
            lambda content, rng: any_change(content, rng, text=True)], [read_weights]),
    }  # fmt: skip
    if flat:
        places = {path.read_bytes(): watched(path.read_bytes()) for path in flat}

        def change(content: bytes, rng: Random) -> bytes:
            return table_change(content, places[content], rng)

        found[".tflite, read"] = (flat, [change, change, any_change], [read_flat])
        found[".tflite, run"] = (flat, [change, change, any_change], [run_flat])
    return {kind: own for kind, own in found.items() if own[0]}


def safetensors(folder: Path) -> Path:
    """Write a small file of two layers as timm names them."""
    file, at, head, body = folder / "a.safetensors", 0, {}, b""
    shapes = {"conv_stem.weight": (8, 3, 3, 3)} | {
        f"bn1.{part}": (8,) for part in ("weight", "bias", "running_mean", "running_var")
    }
    for name, shape in shapes.items():
        raw = np.ones(shape, "<f4").tobytes()
        offsets = [at, at + len(raw)]
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        body, at = body + raw, at + len(raw)
    text = json.dumps(head).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return file


def make(folder: Path) -> None:
    """Write the samples that TensorFlow makes, in a process of its own."""
    code = (
        f"import sys; sys.path[:0] = {[str(TESTS), str(TESTS / 'bench')]!r}\n"
        "from pathlib import Path; import kzoo; from fuzz_files import made\n"
        f"made(Path({str(folder)!r}))\n"
        "net = kzoo.MobileNetV2(0.35, input_shape=(32, 32, 3), classes=3)\n"
        f"net.save({str(folder / 'a.h5')!r}); net.save_weights({str(folder / 'a.weights.h5')!r})\n"
    )
    environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def cases(budget: Budget, *, tflite: bool = True, own: Path | None = None) -> Iterator[Case]:
    """Yield what came of changed files, by kind.

    tflite: whether TensorFlow makes some .tflite and .h5 files first; `own`: a folder of others.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if tflite:
            start = time.monotonic()
            make(folder)
            budget.end += time.monotonic() - start
        for file in own.glob("*.*") if own else ():
            shutil.copy2(file, folder)
        kinds = samples(folder)
        for k, (kind, (sources, changes, feeds)) in enumerate(kinds.items()):
            contents = [source.read_bytes() for source in sources]

            def feed(i: int) -> str | None:
                rng, which = budget.random(kind, i), i % len(sources)  # noqa: B023
                content = changes[i % len(changes)](contents[which], rng)  # noqa: B023
                path = folder / f"case{i}{''.join(sources[which].suffixes[-1:])}"  # noqa: B023
                path.write_bytes(content)
                try:
                    return feeds[i % len(feeds)](path)  # noqa: B023
                finally:
                    path.unlink()

            count = budget.count // len(kinds)
            for start in budget.numbers(1 / (len(kinds) - k)):
                numbers = range(count)[start * TOGETHER : (start + 1) * TOGETHER]
                if not numbers:
                    break
                for i, found in zip(numbers, isolated(feed, numbers), strict=True):
                    yield Case(kind, f"{sources[i % len(sources)].name} {i}", *found)
