"""Two processes at once in the same place: one refuses or waits, and no files are mixed."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from campaign import kill, runs
from campaign.cases import ANSWER, Budget, Case
from kzoo.tflite import Runner


def cases(budget: Budget, loads: tuple[str, ...] = ("download", "pack", "convert", "classify"),
          ) -> Iterator[Case]:  # fmt: skip
    """Yield what became of commands that were run twice at once, by command."""
    with tempfile.TemporaryDirectory() as name:
        for load in loads:
            folder = Path(name, load)
            folder.mkdir()
            act, results = kill.ACTS[load](folder)
            whole = folder / "whole"
            runs.ended(runs.started(lambda: act(whole), log=folder / "log"))  # noqa: B023
            wanted = runs.digests(whole, results)
            for i in budget.numbers():
                if i >= max(1, budget.count // 6):
                    break
                yield Case(load, f"case {i}", twice(act, results, wanted, folder, f"out{i}"))
        if "convert" in loads:
            yield Case("convert, while it is read", "20 times", read_meanwhile(Path(name)))


def twice(
    act: Callable[[Path], Any], results: tuple[str, ...], wanted: dict, folder: Path, out: str
) -> str:
    """Start two at once; return what is wrong with how they end."""
    logs = [folder / "one.log", folder / "two.log"]
    children = [runs.started(lambda: act(folder / out), log=log) for log in logs]
    codes = [runs.ended(child) for child in children]
    told = [runs.told(log, code) for log, code in zip(logs, codes, strict=True)]
    faults = [word for word in told if word not in ("answer", "refused")]
    if faults or "answer" not in told:
        return " / ".join(told)
    found = runs.digests(folder / out, results)
    left = runs.unfinished(folder / out)
    return ANSWER if found == wanted and not left else f"mixed: {sorted(found)}, left {left}"


def read_meanwhile(folder: Path) -> str:
    """Files are read again and again while others take their place."""
    act, _ = kill.ACTS["convert"](folder)
    out = folder / "served"
    if runs.ended(runs.started(lambda: act(out), log=folder / "log")):
        return "no file"

    def again() -> None:
        for _ in range(2):
            act(out)

    child = runs.started(again, log=folder / "log")
    for _ in range(20):
        try:
            Runner(out / "a.tflite")
        except (ValueError, OSError) as error:
            return f"a half file was read: {error}"
    return ANSWER if runs.ended(child) == 0 else "the conversion failed"
