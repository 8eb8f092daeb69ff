"""`benchmark`: CPU time of .tflite files, measured alternately, in the runtimes of LiteRT."""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.tflite.inspect.audit import audit
from kzoo.tflite.runtime.runner import Runner


@dataclasses.dataclass(frozen=True)
class Timing:
    """The cost of one file in one runtime."""

    path: Path
    runtime: str  # one of RUNTIMES
    bytes: int  # size of the file
    cpu_ms: float  # CPU time of all threads per image, the median over rounds
    wall_ms: float  # wall time per image
    load_ms: float  # time to open the file in LiteRT's interpreter, as are the next two
    memory_mb: float  # growth of a process that opens and runs the file
    partitions: int | None  # of XNNPACK
    ratio: float  # CPU time / that of the first file


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The result of `benchmark`. `str` of it is a table."""

    timings: tuple[Timing, ...]
    threads: int

    def __getitem__(self, index: int) -> Timing:
        return self.timings[index]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each timing's file, with as much of its path as distinguishes it."""
        return shortest_names([timing.path for timing in self.timings])

    @property
    def verdict(self) -> str:
        """A sentence that names the fastest file."""
        if len(self.timings) == 1:
            return f"{self.names[0]} takes {self.timings[0].cpu_ms:.2f} ms of CPU time an image."
        best = min(range(len(self.timings)), key=lambda i: self.timings[i].cpu_ms)
        fastest, first = self.timings[best], self.timings[0]
        if best == 0:
            return f"{self.names[0]} ({first.runtime}) is the fastest: {first.cpu_ms:.2f} ms."
        return (
            f"{self.names[best]} ({fastest.runtime}) is the fastest: {fastest.cpu_ms:.2f} ms of "
            f"CPU time an image, {fastest.ratio:.2f} of {self.names[0]} ({first.runtime})."
        )

    def _lines(self) -> Iterator[str]:
        wide = max(map(len, (*self.names, "file")))
        yield self.verdict
        yield ""
        yield (
            f"{'file':{wide}} {'runtime':10} {'bytes':>11} {'CPU ms':>8} {'ratio':>6} "
            f"{'wall ms':>8} {'load ms':>8} {'MB':>6} partitions    {self.threads} thread(s)"
        )
        for t, name in zip(self.timings, self.names, strict=True):
            times = f"{t.cpu_ms:>8.2f} {t.ratio:>6.2f} {t.wall_ms:>8.2f} {t.load_ms:>8.1f}"
            parts = "" if t.partitions is None else t.partitions
            yield (
                f"{name:{wide}} {t.runtime:10} {t.bytes:>11,} {times} {t.memory_mb:>6.1f} "
                f"{parts:>10}"
            )


def shortest_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return each path's name, with as many of its folders as distinguish it from the others."""

    def tail(path: Path, parts: int) -> str:
        return str(Path(*path.absolute().parts[-parts:]))

    names = []
    for path in paths:
        others = {other.absolute() for other in paths} - {path.absolute()}
        parts = 1
        while any(tail(path, parts) == tail(other, parts) for other in others):
            parts += 1
        names.append(tail(path, parts))
    return tuple(names)


def interpreter(path: Path, threads: int, image: np.ndarray) -> Callable[[], Any]:
    """Return a function that runs the file in LiteRT's interpreter with XNNPACK."""
    runner = Runner(path, threads=threads)
    runner(image)
    return runner.invoke


def compiled(path: Path, threads: int, image: np.ndarray) -> Callable[[], Any]:
    """Return a function that runs the file in LiteRT's newer CompiledModel API on the CPU."""
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.options import CpuOptions, Options

    from kzoo.tflite.ports import from_pixels

    model = CompiledModel.from_file(str(path), options=Options(cpu_options=CpuOptions(threads)))
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    inputs[0].write(from_pixels(image, Runner(path).input.dtype))
    return lambda: model.run_by_index(0, inputs, outputs)


def reference(path: Path, threads: int, image: np.ndarray) -> Callable[[], Any]:
    """Return a function that runs the file on the interpreter's own kernels, without XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from kzoo.tflite.ports import from_pixels

    plain = Interpreter(
        str(path), num_threads=threads,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )  # fmt: skip
    plain.allocate_tensors()
    port = plain.get_input_details()[0]
    plain.set_tensor(port["index"], from_pixels(image, np.dtype(port["dtype"]).name))
    return plain.invoke


RUNTIMES: dict[str, Callable[[Path, int, np.ndarray], Callable[[], Any]]] = {
    "litert": interpreter,
    "compiled": compiled,
    "reference": reference,
}


def benchmark(
    paths: Sequence[str | os.PathLike[str]],
    *,
    rounds: int = 10,
    seconds: float = 0.1,
    threads: int = 1,
    runtimes: Sequence[str] = ("litert",),
) -> Benchmark:
    """Return the time per image of each file in each of `runtimes`, in ms.

        print(kzoo.tflite.benchmark(["float32.tflite", "int8.tflite"]))

    rounds, seconds: in each round every file runs for `seconds`. The files alternate, so that other
        load on the machine affects all of them; results are medians over rounds.
    threads: number of threads of the runtime.
    runtimes: of "litert" (interpreter with XNNPACK), "compiled" (CompiledModel) and "reference"
        (without XNNPACK).

    Compare ratios: absolute times are only valid for this machine. Raises ValueError for a file
    that cannot be run, an unknown runtime, and an empty list.
    """
    if not paths:
        raise ValueError("benchmark takes a list of .tflite files. Received: none.")
    for runtime in runtimes:
        if runtime not in RUNTIMES:
            raise ValueError(f"A runtime is one of {', '.join(RUNTIMES)}. Received: {runtime!r}")
    audits = [audit(path) for path in paths]
    for found in audits:
        if found.failure:
            raise ValueError(found.failure)
    cases = [(found, runtime) for found in audits for runtime in runtimes]
    generator = np.random.default_rng(0)
    runs = []
    for found, runtime in cases:
        image = generator.integers(0, 256, found.inputs[0].shape, np.uint8)
        runs.append(RUNTIMES[runtime](found.path, threads, image))
        runs[-1]()  # warm-up
    times: list[list[tuple[float, float]]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, mine in zip(runs, times, strict=True):
            mine.append(seconds_of(run, seconds))
    medians = [
        tuple(1e3 * statistics.median(x) / found.inputs[0].shape[0] for x in zip(*m, strict=True))
        for (found, _), m in zip(cases, times, strict=True)
    ]
    return Benchmark(
        tuple(
            Timing(
                path=found.path,
                runtime=runtime,
                bytes=found.path.stat().st_size,
                cpu_ms=cpu,
                wall_ms=wall,
                load_ms=found.run.load_ms if found.run else float("nan"),
                memory_mb=found.run.memory_mb if found.run else float("nan"),
                partitions=found.partitions,
                ratio=cpu / medians[0][0],
            )
            for (found, runtime), (cpu, wall) in zip(cases, medians, strict=True)
        ),
        threads,
    )


def seconds_of(run: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """Return the mean (CPU time, wall time) of one inference, in s, over `seconds` of wall time."""
    count, begun, start = 0, time.process_time(), time.perf_counter()
    while count == 0 or time.perf_counter() < start + seconds:
        run()
        count += 1
    return (time.process_time() - begun) / count, (time.perf_counter() - start) / count
