"""Pictures a second out of a folder, packed shards, a tar file and memory; memory of whole epochs.

    uv run python tests/bench/input_speed.py [FOLDER]     two minutes of CPU

FOLDER holds JPEG files, in any layout; without one, pictures are drawn. Each store gives the same
pictures at 224 px, in the same order; the rounds go from store to store in turn. CPU is that of all
threads, of which one decodes. Then the memory of whole epochs of 1,000 to 100,000 packed pictures,
in a process each.

Reached on 300 photos of 16 kB, ms of CPU each: folder 1.09, shards 1.11, tar 1.09, memory .34;
augmented 3.50, 3.66, 3.46, 2.71. The container costs next to nothing beside Pillow, and ArrayRecord
was chosen for what tar lacks: an index, and checksums that tell a damaged record when it is read.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from kzoo.recipes import data as reading
from kzoo.recipes.augment import Augment, Batches
from kzoo.recipes.data import Pictures, read_dataset
from kzoo.recipes.demo import SHAPES, draw
from kzoo.recipes.shards import Writer, packed_record

SIZE, COUNT, ROUNDS, BATCH = 224, 300, 3, 32
MANY = (1_000, 10_000, 100_000)


def photos(folder: Path | None) -> list[bytes]:
    """JPEG files, the longer side at most 512 px."""
    if folder:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
        return [p.read_bytes() for p in files[:COUNT]]
    rng, drawn = np.random.default_rng(0), []
    for i in range(COUNT):
        image = draw(list(SHAPES)[i % len(SHAPES)], rng).resize((400, 300))
        noisy = np.asarray(image, "float32") + rng.normal(0, 6, (300, 400, 3))
        file = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype("uint8")).save(file, "JPEG", quality=90)
        drawn.append(file.getvalue())
    return drawn


def packed(folder: Path, records: list[bytes], count: int, shard_mb: float = 64) -> Path:
    """`count` pictures, those of `records` again and again."""
    writer = Writer(folder, int(shard_mb * 1e6))
    for split, n in (("train", count), ("val", 10)):
        content = (packed_record(f"{i}.jpg", records[i % len(records)]) for i in range(n))
        writer.split(split, content, {"targets": np.arange(n, dtype="int32") % 10})
    writer.finish("classify", [str(k) for k in range(10)], [], {})
    return folder


class Tar:
    """A tar file read by its members' offsets, as webdataset's shards are laid out."""

    def __init__(self, path: Path, records: list[bytes]):
        with tarfile.open(path, "w") as out:
            for i, content in enumerate(records):
                member = tarfile.TarInfo(f"{i:06d}.jpg")
                member.size = len(content)
                out.addfile(member, io.BytesIO(content))
        with tarfile.open(path) as file:
            self.places = [(m.offset_data, m.size) for m in file]
        self.file = path.open("rb")

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> np.ndarray:
        place, size = self.places[i]
        content = os.pread(self.file.fileno(), size, place)
        return reading.read_picture(Member(content), SIZE)


class Member:
    def __init__(self, content: bytes):
        self.content = content

    def open(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self.content)


def speed(scratch: Path, folder: Path | None) -> None:
    records = photos(folder)
    (scratch / "folder").mkdir()
    paths = [scratch / "folder" / f"{i}.jpg" for i in range(len(records))]
    for path, content in zip(paths, records, strict=True):
        path.write_bytes(content)
    reading.CACHE_BYTES = 0  # each picture is read each time
    shards = read_dataset(packed(scratch / "packed", records, len(records))).train.paths
    stores = {
        "folder": Pictures(paths, SIZE),
        "shards (ArrayRecord)": Pictures(shards, SIZE),
        "tar, by offsets": Tar(scratch / "a.tar", records),
        "memory": np.stack([reading.read_picture(path, SIZE) for path in paths]),
    }
    epochs = {
        f"{name}{', augmented' if augment else ''}": Batches(
            store, np.zeros(len(records), int), classes=2, batch_size=BATCH,
            augment=Augment() if augment else None, size=SIZE,
        )
        for augment in (False, True)
        for name, store in stores.items()
    }  # fmt: skip
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in epochs}
    for turn in range(ROUNDS + 1):
        for name, epoch in epochs.items():
            shown = epoch.shuffled(0, turn)
            wall, cpu = time.perf_counter(), time.process_time()
            for i in range(len(shown)):
                shown[i]
            if turn:  # the first warms up
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    raw(shards, stores["tar, by offsets"], paths)
    kb = sum(map(len, records)) / len(records) / 1e3
    print(f"\n{len(records)} JPEG files of {kb:.0f} kB, at {SIZE} px, one thread")
    print(f"{'':32} pictures/s   ms of CPU each   CPU / folder")
    base = 0.0
    for name, taken in times.items():
        columns = zip(*taken, strict=True)
        wall, cpu = (statistics.median(values) / len(records) for values in columns)
        base = base or cpu
        print(f"{name:32} {1 / wall:10.0f}   {1e3 * cpu:14.2f}   {cpu / base:12.2f}")


def raw(shards, tar: Tar, paths: list[Path]) -> None:
    """The bytes alone."""
    order = np.random.default_rng(0).permutation(len(paths))
    reads = {
        "files": lambda i: paths[i].read_bytes(),
        "ArrayRecord": lambda i: shards[i].open().read(),
        "tar": lambda i: os.pread(tar.file.fileno(), tar.places[i][1], tar.places[i][0]),
    }
    for name, read in reads.items():
        start = time.process_time()
        for i in order:
            read(int(i))
        print(f"bytes alone, {name:12} {1e6 * (time.process_time() - start) / len(order):6.0f} us")


def memory(scratch: Path) -> None:
    rng = np.random.default_rng(0)
    records = []
    for i in range(50):
        file = io.BytesIO()
        draw(list(SHAPES)[i % len(SHAPES)], rng).resize((48, 48)).save(file, "JPEG")
        records.append(file.getvalue())
    print("\nan epoch at 48 px, whole      packed MB   resident MB before   and at most   seconds")
    for count in MANY:
        folder = packed(scratch / f"many-{count}", records, count, shard_mb=8)
        size = sum(p.stat().st_size for p in folder.iterdir()) / 1e6
        words = [sys.executable, __file__, "--epoch", str(folder)]
        said = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
        print(
            f"{count:8,} pictures {size:21.1f} {said['before']:20.0f} {said['most']:13.0f} "
            f"{said['seconds']:9.1f}"
        )


def one_epoch(folder: Path) -> None:
    def resident() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    before, start = resident(), time.perf_counter()
    most = before
    train = read_dataset(folder).train
    pictures = Pictures(train.paths, 48)
    shown = Batches(pictures, train.targets, classes=10, batch_size=128).shuffled(0, 0)
    for i in range(len(shown)):
        shown[i]
        most = max(most, resident())
    seconds = time.perf_counter() - start
    print(json.dumps({"before": before, "most": most, "seconds": seconds}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--memory", action="store_true", help="that alone")
    parser.add_argument("--epoch", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.epoch:
        one_epoch(given.epoch)
        sys.exit()
    with tempfile.TemporaryDirectory() as scratch:
        if not given.memory:
            speed(Path(scratch), given.folder)
        memory(Path(scratch))
