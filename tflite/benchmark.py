"""CPU time of .tflite files, side by side."""

import dataclasses
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kzoo.tflite.audit import audit
from kzoo.tflite.run import Runner


@dataclasses.dataclass(frozen=True)
class Timing:
    path: Path
    bytes: int
    cpu_ms: float  # of the whole process per inference, the median over rounds
    load_ms: float
    partitions: int | None  # of XNNPACK
    ratio: float  # CPU time against the first file's


@dataclasses.dataclass(frozen=True)
class Benchmark:
    timings: tuple[Timing, ...]
    threads: int

    def __getitem__(self, index: int) -> Timing:
        return self.timings[index]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        wide = max(len(t.path.name) for t in self.timings)
        yield f"{'file':{wide}} {'bytes':>11} {'CPU ms':>8} {'ratio':>6} {'load ms':>8} partitions"
        for t in self.timings:
            times = f"{t.bytes:>11,} {t.cpu_ms:>8.2f} {t.ratio:>6.2f} {t.load_ms:>8.1f}"
            yield f"{t.path.name:{wide}} {times} {t.partitions:>10}"


def benchmark(
    paths: Sequence[str | os.PathLike],
    *,
    rounds: int = 10,
    seconds: float = 0.1,
    threads: int = 1,
) -> Benchmark:
    """CPU time per inference of each file, in `rounds` turns of `seconds` each.

    Files take turns, so that what else the machine does falls on all of them. Compare ratios:
    absolute times are this machine's. Raises ValueError for a file that cannot be run.
    """
    if not paths:
        raise ValueError("benchmark takes a list of .tflite files. Received: none.")
    audits = [audit(path) for path in paths]
    for found in audits:
        if found.failure:
            raise ValueError(found.failure)
    runners = [Runner(path, threads=threads) for path in paths]
    times: list[list[float]] = [[] for _ in runners]
    generator = np.random.default_rng(0)
    for runner in runners:
        picture = generator.integers(0, 256, runner.input.shape[1:], np.uint8)
        runner(picture)  # sets the input; the first run also warms the caches up
    for _ in range(rounds):
        for runner, mine in zip(runners, times, strict=True):
            mine.append(1e3 * cpu_seconds(runner, seconds))
    medians = [statistics.median(mine) for mine in times]
    return Benchmark(
        tuple(
            Timing(
                path=Path(path),
                bytes=Path(path).stat().st_size,
                cpu_ms=median,
                load_ms=found.run.load_ms if found.run else float("nan"),
                partitions=found.partitions,
                ratio=median / medians[0],
            )
            for path, found, median in zip(paths, audits, medians, strict=True)
        ),
        threads,
    )


def cpu_seconds(runner: Runner, seconds: float) -> float:
    """CPU time of one inference, on average over `seconds` of wall time."""
    count, begun, end = 0, time.process_time(), time.perf_counter() + seconds
    while count == 0 or time.perf_counter() < end:
        runner.invoke()
        count += 1
    return (time.process_time() - begun) / count
