"""`kzoo benchmark`: CPU time of files side by side, as a table and a plot."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from kzoo.files import replacing
from kzoo.recipes.evaluation.plots import plain_text
from kzoo.recipes.programs.predict_images import require_runs
from kzoo.tflite import Benchmark, benchmark


def benchmark_files(
    files: Sequence[str | Path], *, threads: int = 1, runtimes: Sequence[str] = ("litert",),
    plot: str | Path | None = None,
) -> Benchmark:  # fmt: skip
    """Time `files`; with `plot` draw them into that file, .png, .svg or .pdf."""
    for file in files:
        require_runs(Path(file))
    found = benchmark(files, threads=threads, runtimes=runtimes)
    if plot:
        with replacing(Path(plot)) as part:
            draw(found).savefig(part, format=Path(plot).suffix.lstrip(".") or "png", dpi=120)
    return found


def draw(found: Benchmark) -> Figure:
    """Return one bar of CPU time for each file and runtime, with its ratio to the first."""
    names = [
        f"{plain_text(name)}\n{t.runtime}, {t.bytes / 1e6:.1f} MB"
        for name, t in zip(found.names, found.timings, strict=True)
    ]
    figure = Figure(figsize=(8, 1.2 + 0.55 * len(names)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(names, [t.cpu_ms for t in found.timings], color="#2458d3")
    axes.bar_label(bars, [f"{t.cpu_ms:.2f} ms, {t.ratio:.2f}" for t in found.timings], padding=4)
    axes.margins(x=0.25)
    axes.invert_yaxis()
    axes.set_xlabel(f"CPU time per image in ms, {found.threads} thread(s)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
