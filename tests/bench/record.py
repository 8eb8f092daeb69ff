"""Writes what a bench measured to tests/bench/results/NAME.csv, with what repeats it."""

import csv
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Return the processor's name and how many of its cores there are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def commit() -> str:
    """Return the commit measured, "-dirty" where a file differs that is no table of results."""
    name, changed = (
        subprocess.run(["git", *words], cwd=RESULTS, capture_output=True, text=True).stdout.strip()
        for words in (
            ["describe", "--always"],
            ["status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude)*.csv"],
        )
    )
    return f"{name}-dirty" if name and changed else name or "unknown"


def difference(values: Sequence[float], digits: int = 4) -> str:
    """Return the mean of paired differences with its standard error: "+0.0100 ± 0.0025"."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):+.{digits}f} ± {error:.{digits}f}"


def record(name: str, rows: Sequence[Mapping[str, Any]], *, seed: int = 0) -> Path:
    """Write the rows as a table, and print it; return its path. Numbers keep four digits.

    Of absolute paths in the command the file's name is kept.
    """
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    command = " ".join(["python", f"tests/bench/{Path(sys.argv[0]).name}", *words])
    same = {"seed": seed, "commit": commit(), "machine": machine(), "command": command}
    path = RESULTS / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, [*rows[0], *same], lineterminator="\n")
        table.writeheader()
        for row in rows:
            short = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}
            print("  ".join(f"{key} {value}" for key, value in short.items()))
            table.writerow(short | same)
    return path
