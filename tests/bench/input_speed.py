"""Images a second by kzoo's own reader, grain and tf.data; memory of whole epochs.

    uv run --with grain python tests/bench/input_speed.py [FOLDER]     four minutes of CPU

FOLDER holds JPEG files, in any layout; without one, images are drawn. All give the same images
at 224 px; the rounds go from one to the next in turn. kzoo reads a folder, packed shards, a tar
file and memory; grain reads the shards, through kzoo's decoding and augmentation; tf.data reads
TFRecord and decodes by TensorFlow's own operators, beside kzoo's. First on one thread, then on two
threads and in two processes. Then the memory of whole epochs of 1,000 to 100,000 packed images,
in a process each.

Reached on 300 drawn photos of 35 kB, one thread, ms of CPU each: folder 1.89, shards 1.68, the same
by grain 1.79, tar 1.60, tf.data .88, memory .09; augmented (before that became one pass, see
image_cost.py) 4.70, 4.56, 4.72, 4.57, 4.17, 2.66. The container costs next to nothing beside
decoding, and ArrayRecord was chosen for what tar lacks: an index, and checksums that tell a damaged
record when it is read. Why neither grain nor tf.data: docs/large.md.
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
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from kzoo.recipes.data import images as reading
from kzoo.recipes.data.augment import Augment, Batches
from kzoo.recipes.data.class_dataset import read_dataset
from kzoo.recipes.data.images import Images
from kzoo.recipes.data.packed import Writer, packed_record, unpacked
from kzoo.recipes.programs.demo import SHAPES, draw

SIZE, COUNT, ROUNDS, BATCH = 224, 300, 3, 32
AHEAD = 4  # times the images, where two read at a time
Turn = Callable[[int], Iterable]  # the batches of an epoch
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
    """`count` images, those of `records` again and again."""
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
        return reading.read_image(Member(content), SIZE)


class Member:
    def __init__(self, content: bytes):
        self.content = content

    def open(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self.content)


def by_kzoo(store, augment: Augment | None, *, threads: int = 1) -> Turn:
    epoch = Batches(
        store, np.zeros(len(store), int), classes=2, batch_size=BATCH, augment=augment, size=SIZE
    )

    def turn(k: int) -> Iterable:
        shown = epoch.shuffled(0, k)
        if threads == 1:
            yield from (shown[i] for i in range(len(shown)))
            return
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(shown.__getitem__, range(len(shown)))

    return turn


def by_grain(
    folder: Path, augment: Augment | None, *, times: int = 1, threads: int = 1, processes: int = 0
) -> Turn:
    """Its data source, order, batches and threads or processes; images as kzoo makes them."""
    import absl.flags
    import grain

    shards = sorted(map(str, folder.glob("train-*.array_record"))) * times

    def example(record: bytes, rng: np.random.Generator) -> np.ndarray:
        image = reading.read_image(Member(unpacked(record)[1]), SIZE)
        return augment(image, SIZE, rng) if augment else image.astype("float32")

    def turn(k: int) -> Iterable:
        source = grain.sources.ArrayRecordDataSource(shards)
        data = grain.MapDataset.source(source).seed(k).shuffle().random_map(example).batch(BATCH)
        whole = data.to_iter_dataset(
            grain.ReadOptions(num_threads=0 if processes else threads, prefetch_buffer_size=4)
        )
        if processes:
            absl.flags.FLAGS.mark_as_parsed()  # its processes ask for flags
            whole = whole.mp_prefetch(grain.MultiprocessingOptions(num_workers=processes))
        return whole

    return turn


def by_tf_data(files: list[str], augment: Augment | None, *, threads: int = 1) -> Turn:
    import tensorflow as tf

    def moved(image, k):
        rng = np.random.default_rng(int(k))
        return augment(image.astype("uint8"), SIZE, rng)

    def example(k, record):
        image = tf.io.decode_jpeg(record, channels=3)
        image = tf.image.resize(image, (SIZE, SIZE))
        if augment:
            image = tf.numpy_function(moved, [image, k], tf.float32)
        return image

    def turn(k: int) -> Iterable:
        data = tf.data.TFRecordDataset(files).shuffle(AHEAD * COUNT, seed=k).enumerate()
        data = data.map(example, num_parallel_calls=threads).batch(BATCH).prefetch(1)
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        return data.with_options(options)

    return turn


def speed(scratch: Path, folder: Path | None) -> None:
    records = photos(folder)
    count = len(records)
    (scratch / "folder").mkdir()
    paths = [scratch / "folder" / f"{i}.jpg" for i in range(count)]
    for path, content in zip(paths, records, strict=True):
        path.write_bytes(content)
    reading.CACHE_BYTES = 0  # each image is read each time
    shards = read_dataset(packed(scratch / "packed", records, count)).train.paths
    files = [written(scratch / "a.tfrecord", records)]
    stores = {
        "folder": Images(paths, SIZE),
        "shards (ArrayRecord)": Images(shards, SIZE),
        "tar, by offsets": Tar(scratch / "a.tar", records),
        "memory": np.stack([reading.read_image(path, SIZE) for path in paths]),
    }
    long = Images(shards[:] * AHEAD, SIZE)
    one: dict[str, Turn] = {}
    both: dict[str, Turn] = {}
    for augment in (None, Augment()):
        end = ", augmented" if augment else ""
        one |= {name + end: by_kzoo(store, augment) for name, store in stores.items()}
        one[f"shards, grain{end}"] = by_grain(scratch / "packed", augment)
        one[f"TFRecord, tf.data{end}"] = by_tf_data(files, augment)
        more = {"folder": scratch / "packed", "augment": augment, "times": AHEAD}
        both |= {
            f"kzoo, two threads{end}": by_kzoo(long, augment, threads=2),
            f"grain, two threads{end}": by_grain(**more, threads=2),
            f"grain, two processes{end}": by_grain(**more, processes=2),
            f"tf.data, two threads{end}": by_tf_data(files * AHEAD, augment, threads=2),
        }
    kb = sum(map(len, records)) / count / 1e3
    print(f"{count} JPEG files of {kb:.0f} kB, at {SIZE} px")
    raw(shards, stores["tar, by offsets"], paths)
    on_one_thread(one, count)
    on_both_cores(both, AHEAD * count)


def written(file: Path, records: list[bytes]) -> str:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(file)) as out:
        for record in records:
            out.write(record)
    return str(file)


def on_one_thread(epochs: dict[str, Turn], count: int) -> None:
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in epochs}
    for k in range(ROUNDS + 1):
        for name, turn in epochs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            batches = sum(1 for _ in turn(k))
            assert batches == -(-count // BATCH), (name, batches)
            if k:  # the first warms up
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    print(f"\n{'one thread':34} images/s   ms of CPU each   CPU / folder")
    base = 0.0
    for name, times in taken.items():
        wall, cpu = (statistics.median(values) / count for values in zip(*times, strict=True))
        base = base or cpu
        print(f"{name:34} {1 / wall:10.0f}   {1e3 * cpu:14.2f}   {cpu / base:12.2f}")


def on_both_cores(epochs: dict[str, Turn], count: int) -> None:
    """From the second quarter of an epoch on: processes have begun by then."""
    print(f"\n{'two at a time':34} images/s   after as many seconds")
    for name, turn in epochs.items():
        begun = time.perf_counter()
        for i, _ in enumerate(turn(0)):
            if i * BATCH < count / 4:
                start, first = time.perf_counter(), i + 1
        rate = (count - first * BATCH) / (time.perf_counter() - start)
        print(f"{name:34} {rate:10.0f}   {start - begun:10.1f}")


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
        result = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
        print(
            f"{count:8,} images {size:21.1f} {result['before']:20.0f} {result['most']:13.0f} "
            f"{result['seconds']:9.1f}"
        )


def one_epoch(folder: Path) -> None:
    def resident() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    before, start = resident(), time.perf_counter()
    most = before
    train = read_dataset(folder).train
    images = Images(train.paths, 48)
    shown = Batches(images, train.targets, classes=10, batch_size=128).shuffled(0, 0)
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
