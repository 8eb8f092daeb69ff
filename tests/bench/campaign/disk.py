"""Disks that are full or read-only, files that go, folders that move: said, and made good after.

Where `mount` is allowed, the full disk is a small tmpfs. RLIMIT_FSIZE stands for a quota, and
SIGSTOP for a slow disk.
"""

import functools
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from campaign import kill, runs
from campaign.cases import ANSWER, REFUSED, Budget, Case

KB = (8, 40, 120, 300, 600, 1200)  # of a disk, or of a file


def cases(budget: Budget, loads: tuple[str, ...] = ("pack", "download", "convert", "classify"),
          ) -> Iterator[Case]:  # fmt: skip
    """Yield what came of commands on bad disks, by what was bad."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for load in loads:
            folder = root / load
            folder.mkdir()
            act, results = kill.ACTS[load](folder)
            whole = folder / "whole"
            start = time.monotonic()
            runs.ended(runs.started(lambda: act(whole), log=folder / "log"))  # noqa: B023
            seconds = time.monotonic() - start
            wanted = runs.digests(whole, results)
            few = budget.count <= 20 or load in ("convert", "classify")
            for kb in KB[:: 3 if few else 1]:
                for bad, limited in (("full", False), ("limit of a file's size", True)):
                    start = time.monotonic()
                    outcome = full(act, results, wanted, folder / f"{bad}{kb}", kb, limited)
                    yield Case(bad, f"{load}, {kb} kB", outcome, time.monotonic() - start)
            yield Case("read-only", load, read_only(act, folder / "ro"))
            yield Case("a file in the way", load, in_the_way(act, folder / "file"))
            yield Case("stalls", load, stalled(act, results, wanted, folder / "slow", seconds))
        if "classify" in loads:
            moments = [budget.random("gone", i).uniform(0.1, 1) for i in range(budget.count // 10)]
            yield from removed(root / "gone", moments)
            yield from moved(root / "moved", moments)


def mounted(place: Path, kb: int) -> bool:
    """Mount a tmpfs of that size, where that is allowed."""
    if os.geteuid() or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={kb}k", "none", str(place)]
    return subprocess.run(command, capture_output=True).returncode == 0


def full(
    act: Callable[[Path], Any], results: tuple[str, ...], wanted: dict, place: Path, kb: int,
    limited: bool,
) -> str:  # fmt: skip
    """Run on a disk of that size, then again with room: the end is that of a run with room.

    limited: it is the size of each file that is limited, as by a quota.
    """
    place.mkdir()
    mount = not limited and mounted(place, kb)
    out, log = place / "out", place.with_suffix(".log")
    try:
        limit = None if mount else kb << 10
        code = runs.ended(runs.started(lambda: act(out), log=log, file_size=limit))
        first = runs.told(log, code)
        if first not in ("answer", "refused"):
            return first
        half = runs.digests(out, results)
        if any(half[name] != wanted[name] for name in half):
            return f"half-written {sorted(half)}"
        if mount:
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        code = runs.ended(runs.started(lambda: act(out), log=log))
        if code:
            return f"with room: {runs.told(log, code)}"
        return first if runs.digests(out, results) == wanted else "other bytes with room"
    finally:
        if mount:
            subprocess.run(["umount", str(place)], check=False)


def read_only(act: Callable[[Path], Any], place: Path) -> str:
    place.mkdir()
    if not mounted(place, 64):
        return ANSWER  # root writes anywhere; a user without mount is not tried
    try:
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        log = place.with_suffix(".log")
        told = runs.told(log, runs.ended(runs.started(lambda: act(place / "out"), log=log)))
        return "it says nothing of a disk that it cannot write" if told == ANSWER else told
    finally:
        subprocess.run(["umount", str(place)], check=False)


def in_the_way(act: Callable[[Path], Any], place: Path) -> str:
    """A file stands where the folder would go: it stays as it is."""
    place.write_text("mine")
    log = place.with_suffix(".log")
    told = runs.told(log, runs.ended(runs.started(lambda: act(place), log=log)))
    return told if place.read_text() == "mine" else "a file of the user's is gone"


def stalled(
    act: Callable[[Path], Any], results: tuple[str, ...], wanted: dict, out: Path, seconds: float
) -> str:
    """The process stands still three times, as where a disk is slow; it ends in the same bytes."""
    log = out.with_suffix(".log")
    child = runs.started(lambda: act(out), log=log)
    for _ in range(3):
        time.sleep(seconds / 5)
        os.kill(child, signal.SIGSTOP)
        time.sleep(1)
        os.kill(child, signal.SIGCONT)
    told = runs.told(log, runs.ended(child))
    return told if runs.digests(out, results) == wanted else f"other bytes: {told}"


def reference(folder: Path) -> tuple[Callable[[Path], Any], Path, dict, float]:
    """Return (a training, its log, the digests of what it ends in, its seconds of CPU)."""
    folder.mkdir()
    act, results = kill.ACTS["classify"](folder)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    runs.ended(runs.started(lambda: act(folder / "whole"), log=folder / "log"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return act, folder / "log", runs.digests(folder / "whole", results), seconds


def removed(folder: Path, moments: list[float]) -> Iterator[Case]:
    """Of the images one is removed while the run goes on, and put back before it is resumed."""
    act, log, wanted, seconds = reference(folder)
    for i, moment in enumerate(moments):
        out, image = folder / f"out{i}", folder / "data" / "red" / "3.png"
        content = image.read_bytes()
        child = runs.started(lambda: act(out), log=log)  # noqa: B023
        while runs.spent(child, 0, True) < moment * seconds / 2:
            time.sleep(0.01)
        image.unlink()
        outcome = runs.told(log, runs.ended(child))
        image.write_bytes(content)
        if outcome in (ANSWER, REFUSED):
            code = runs.ended(runs.started(lambda: act(out), log=log))  # noqa: B023
            if code:
                outcome = f"not resumed: {runs.told(log, code)}"
            elif runs.digests(out, tuple(wanted)) != wanted:
                outcome = "other bytes"
        yield Case("image removed", f"at {moment:.0%}", outcome)


def moved(folder: Path, moments: list[float]) -> Iterator[Case]:
    """The run's folder and its images move while it is dead."""
    act, log, wanted, seconds = reference(folder)
    for i, moment in enumerate(moments):
        out, there, data = folder / f"out{i}", folder / f"there{i}", folder / f"data{i}"
        child = runs.started(lambda: act(out), log=log)  # noqa: B023
        runs.ended(child, after_s=moment * seconds, of_cpu=True)
        shutil.copytree(folder / "data", data)
        (folder / "data").rename(folder / "away")  # where they were there is nothing now
        if out.exists():
            shutil.move(out, there)
        again = functools.partial(
            runs.RECIPES["classify"], data, out=str(there), save_every=1e-4, qat_epochs=1
        )
        code = runs.ended(runs.started(again, log=log))
        (folder / "away").rename(folder / "data")
        # predictions.csv names the images where they are now.
        found = runs.digests(there, ("model.tflite", "labels.txt"))
        same = found == {name: wanted[name] for name in found} and len(found) == 2
        outcome = f"not resumed: {runs.told(log, code)}" if code else ANSWER
        yield Case("folders moved", f"at {moment:.0%}", outcome if same or code else "other bytes")
