"""Corrupted .tflite files through `read_metadata`, `audit`, `Runner` and `compare`, by layers too.

    uv run python tests/bench/fuzz_files.py [FILE.tflite...] [--cases 2000] [--seed 0]

Each case is a file with some of its bytes overwritten, cut off, doubled or moved, fed to each of
them in a process of its own with a time limit. Allowed are a ValueError and an answer; anything
else (another exception, a signal, a hang) is printed with the seed that makes the file again.
Without files it makes three: int8, float32 and dynamic. Of 3,000 cases on eleven files, the
published ones among them (seeds 10000 to 12399, 50000 to 50599), and of 1,400 more since layers are
looked at (200 each from seeds 60000, 61000, ... on; 100, 150 and 150 from 71000, 72000 and 73000),
none crashed or hung.
"""

import argparse
import collections
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SECONDS = 60  # honest files take under one


def mutated(content: bytes, seed: int) -> bytes:
    """The file with one to three mutations."""
    random = np.random.default_rng(seed)
    data = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        # Half of them where the flatbuffer's tables are: at its beginning and end.
        span = len(data) if random.random() < 0.5 else min(len(data), 4096)
        at = int(random.integers(0, max(1, span)))
        at = at if random.random() < 0.5 else max(0, len(data) - 1 - at)
        size = int(random.choice([1, 2, 4, 32]))
        MUTATIONS[int(random.integers(len(MUTATIONS)))](data, at, size, random)
    return bytes(data)


def overwrite(data: bytearray, at: int, size: int, random: np.random.Generator) -> None:
    data[at : at + size] = random.bytes(len(data[at : at + size]))


def flip(data: bytearray, at: int, size: int, random: np.random.Generator) -> None:
    if at < len(data):
        data[at] ^= 1 << int(random.integers(8))


def extreme(data: bytearray, at: int, size: int, random: np.random.Generator) -> None:
    """A number of 4 bytes at the edge of what there is."""
    value = int(random.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 4, 2**16, len(data)]))
    at -= at % 4
    data[at : at + 4] = value.to_bytes(4, "little")[: len(data[at : at + 4])]


def cut(data: bytearray, at: int, size: int, random: np.random.Generator) -> None:
    if random.random() < 0.3:
        del data[at:]


def double(data: bytearray, at: int, size: int, random: np.random.Generator) -> None:
    data[at:at] = data[at : at + size]


def remove(data: bytearray, at: int, size: int, random: np.random.Generator) -> None:
    del data[at : at + size]


def move(data: bytearray, at: int, size: int, random: np.random.Generator) -> None:
    where = int(random.integers(0, max(1, len(data))))
    size = min(size, len(data) - at, len(data) - where)
    data[at : at + size] = data[where : where + size]


MUTATIONS = (overwrite, overwrite, flip, flip, flip, extreme, extreme, cut, double, remove, move)


def feed(path: Path, sound: Path) -> Iterator[str]:
    """What each of the functions does with a file: "answer" or "error"."""
    from kzoo.tflite import Runner, audit, compare, read_metadata
    from kzoo.tflite.inspect.layer_noise import with_outputs
    from kzoo.weights.readers.flatbuffer import read_tflite

    def run() -> None:
        runner = Runner(path)
        runner(np.zeros(runner.input.shape[1:], np.uint8))

    def compared() -> None:
        runner = Runner(sound)
        compare(sound, path, np.zeros((1, *runner.input.shape[1:]), np.uint8))

    def by_layers() -> None:
        """What `compare` does with the file when it is asked for layers."""
        run()
        graph = read_tflite(path).graphs[0]
        computed = sorted({t for op in graph.operators for t in op.outputs if t >= 0})
        copy = path.with_name("layers.tflite")
        tensors = {f"layer {t}": t for t in computed}
        copy.write_bytes(with_outputs(path.read_bytes(), tensors))
        runner = Runner(copy)
        runner(np.zeros(runner.input.shape[1:], np.uint8))

    for function in (
        lambda: str(read_metadata(path)),
        lambda: str(audit(path, run=False)),
        run,
        compared,
        by_layers,
    ):
        try:
            function()
            yield "answer"
        except ValueError:
            yield "error"


def outcome(path: Path, sound: Path) -> str:
    """`feed` in a child process: "answer error ..." of the functions, or what became of it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            for word in feed(path, sound):
                os.write(writer, f"{word} ".encode())
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}"[:200].encode())
            os._exit(1)
        os._exit(0)
    os.close(writer)
    output, end = b"", time.monotonic() + SECONDS
    while select.select([reader], [], [], max(0, end - time.monotonic()))[0]:
        more = os.read(reader, 4096)
        if not more:
            break
        output += more
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    how = {0: "", -9: "hang or killed"}.get(code, f"signal {-code}" if code < 0 else "")
    return f"{output.decode().strip()} {how}".strip()


def campaign(files: list[Path], cases: int, seed: int) -> tuple[collections.Counter, list[str]]:
    """(How often each outcome came, the ones that must not be)."""
    list(feed(files[0], files[0]))  # imports all that the children need: each would, for 8 s
    counts: collections.Counter = collections.Counter()
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "case.tflite")
        for i in range(cases):
            source = files[i % len(files)]
            target.write_bytes(mutated(source.read_bytes(), seed + i))
            found = outcome(target, source)
            counts[found] += 1
            if set(found.split()) - {"answer", "error"}:
                bad.append(f"{source.name}, seed {seed + i}: {found}")
    return counts, bad


def made(folder: Path) -> list[Path]:
    """Small files of several kinds."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import keras
    from conftest import beginning, gratings, settled, solved

    from kzoo.tflite import Metadata, convert

    keras.utils.set_random_seed(0)
    images, labels = gratings(200, seed=0)
    net = beginning(0.35, input_shape=(64, 64, 3), classes=6)
    net = solved(settled(net, images[:128]), images, labels)
    note = Metadata(author="someone", run={"a": 1})
    names = list("abcdef")
    return [
        convert(net, folder / "int8.tflite", calibration=images[:40], labels=names, metadata=note),
        convert(net, folder / "float32.tflite", scheme="float32", labels=names, metadata=note),
        convert(net, folder / "dynamic.tflite", scheme="dynamic"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        files = given.files or made(Path(folder))
        counts, bad = campaign(files, given.cases, given.seed)
    print(
        f"{given.cases} cases in {time.monotonic() - start:.0f} s; "
        "metadata, audit, run, compare, layers:"
    )
    for found, n in counts.most_common():
        print(f"{n:6} {found}")
    print("\n".join(bad))
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
