"""The address space capped: a recipe runs, or one line says what would fit."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from campaign import runs
from campaign.cases import ANSWER, REFUSED, Budget, Case

GB = (4, 3, 2)
SMALL = ("--weights", "none", "--epochs", "1", "--qat-epochs", "1", "--model", "mobilenet_v3_small",
         "--size", "96")  # fmt: skip
ADVICE = ("--batch-size", "--size")


def cases(budget: Budget, loads: tuple[str, ...] = tuple(runs.DATA)) -> Iterator[Case]:
    """Yield what became of recipes with their default batch under a limit of the address space."""
    with tempfile.TemporaryDirectory() as name:
        for i, (gb, recipe) in enumerate((gb, recipe) for gb in GB for recipe in loads):
            if i >= budget.count or (i and time.monotonic() > budget.end):
                break
            folder = Path(name, f"{recipe}{gb}")
            folder.mkdir()
            data = runs.DATA[recipe](folder / "data")
            start = time.monotonic()
            yield Case(f"{recipe}, {gb} GB", recipe, capped(recipe, data, folder / "run", gb),
                       time.monotonic() - start)  # fmt: skip


def capped(recipe: str, data: Path, out: Path, gb: float) -> str:
    """Run `kzoo RECIPE` as a person would after `ulimit -v`; return the outcome."""
    code = (
        "import resource, sys; from kzoo.recipes.cli import main; "
        f"resource.setrlimit(resource.RLIMIT_AS, ({int(gb * 1e9)},) * 2); sys.exit(main())"
    )
    command = [sys.executable, "-c", code, recipe, str(data), "--out", str(out), *SMALL]
    environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = done.stderr.strip().splitlines()
    if done.returncode == 0:
        return ANSWER
    if done.returncode == 1 and len(lines) == 1 and any(word in lines[0] for word in ADVICE):
        return REFUSED
    return f"code {done.returncode}: {' | '.join(lines[-2:])}"[:160]
