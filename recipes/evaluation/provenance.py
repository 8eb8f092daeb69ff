"""`Provenance` of a run: command, versions, machine, time, and the speed of its file."""

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import shlex
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kzoo
from kzoo.recipes.task import Run
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.display import duration
from kzoo.sizes import size_text
from kzoo.tflite import Runner

PACKAGES = ("keras", "tensorflow", "jax", "torch", "ai-edge-litert", "numpy")
RUNS = 30  # of the file, to measure the median time


@dataclasses.dataclass(frozen=True)
class Provenance:
    """How the results of a run were produced."""

    command: str
    seed: int
    ended: str  # date and time, UTC
    training_s: float  # time of the epochs, without reading the data, calibration and conversion
    file_ms: float | None  # wall time per image, one thread, this machine; None if it cannot run
    machine: str
    backend: str
    versions: Mapping[str, str]

    def rows(self) -> list[tuple[str, str]]:
        """Return (name, text) rows for the report page."""
        speed = "cannot be run here" if self.file_ms is None else (
            f"{self.file_ms:.2f} ms per image, one thread, on this machine; phones differ"
        )  # fmt: skip
        return [
            ("command", self.command),
            ("seed", str(self.seed)),
            ("ended", f"{self.ended} UTC"),
            ("time in epochs", duration(self.training_s)),
            ("int8 file", speed),
            ("machine", self.machine),
            ("backend", self.backend),
            ("versions", ", ".join(f"{name} {value}" for name, value in self.versions.items())),
        ]


def provenance(run: Run, settings: Mapping[str, Any], history: Sequence[Row]) -> Provenance:
    """Return the provenance of a run; `settings` are those of its config.json."""
    now = datetime.datetime.now(datetime.UTC)
    return Provenance(
        command_of(run, settings),
        int(settings["seed"]),
        now.strftime("%Y-%m-%d %H:%M"),
        float(sum(row.get("seconds", 0.0) for row in history)),
        milliseconds(run.int8),
        machine(),
        keras.backend.backend(),
        versions(),
    )


def command_of(run: Run, settings: Mapping[str, Any]) -> str:
    """Return the command that repeats a run: its data, and the settings that are not defaults."""
    words = ["kzoo", run.task.name, str(settings["data"])]
    for field in dataclasses.fields(run.task.Config):
        value = settings.get(field.name, field.default)
        same = value == field.default or (value == [] and field.default == ())
        if field.default is dataclasses.MISSING or same or field.name == "out":
            continue
        flag = field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif field.name == "size":
            words += [f"--{flag}", size_text(value)]
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, list | tuple) else [value])]
    return shlex.join(words)


def versions() -> dict[str, str]:
    """Return the versions of kzoo, Python and the installed `PACKAGES`."""
    found = {"kzoo": kzoo.__version__, "Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Return the processor's name, the number of cores, and the system, as text."""
    name = platform.processor() or platform.machine()
    file = Path("/proc/cpuinfo")
    if file.is_file():
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def milliseconds(file: Path) -> float | None:
    """Return the median wall time of a .tflite file per image in ms; None if it cannot be run.

    `kzoo benchmark` also measures CPU time and memory, in separate processes.
    """
    try:
        runner = Runner(file)
    except ValueError:
        return None
    image = np.zeros((1, *runner.input.shape[1:]), runner.input.dtype)
    runner(image)  # warm-up
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        runner(image)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)
