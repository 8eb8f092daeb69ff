"""`kzoo benchmark`: CPU time of .tflite files, side by side."""

import dataclasses
from typing import Any

from kzoo.recipes.inputs import require_file
from kzoo.recipes.options import Command, JsonOptions, option

RUNTIMES = ("litert", "compiled", "reference")


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions(JsonOptions):
    """What `kzoo benchmark` takes."""

    files: tuple[str, ...] = option(".tflite files; ratios are relative to the first")
    threads: int = option("threads per runtime", 1)
    runtimes: tuple[str, ...] = option(
        f"{', '.join(RUNTIMES)}; may be repeated to compare several", ("litert",),
        choices=RUNTIMES, repeat=True, flag="runtime",
    )  # fmt: skip
    plot: str | None = option("image file to write a plot to", None)


def run(options: BenchmarkOptions) -> Any:
    for file in options.files:
        require_file(file)
    from kzoo.recipes.programs.benchmark_plot import benchmark_files

    return benchmark_files(
        options.files, threads=options.threads, runtimes=options.runtimes, plot=options.plot
    )


COMMAND = Command(
    "benchmark",
    "measure the CPU time of .tflite files",
    BenchmarkOptions,
    run,
    "kzoo benchmark float32.tflite int8.tflite --plot times.png",
)
