"""Disks that are full or read-only, files that go, folders that move: said, and made good after.

Where `mount` is allowed, the full disk is a small tmpfs. RLIMIT_FSIZE stands for a quota, and
SIGSTOP for a slow disk.
"""

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from campaign import kill, runs
from campaign.cases import ANSWER, REFUSED, Budget, Case

KB = (8, 40, 120, 300, 600, 1200)  # of a disk, or of a file


def cases(budget: Budget, loads: tuple[str, ...] = ("pack", "download", "convert", "classify"),
          ) -> Iterator[Case]:  # fmt: skip
    """Yield what came of commands on bad disks, by command and by what was bad."""
    with tempfile.TemporaryDirectory() as name:
        for load in loads:
            root = Path(name, load)
            root.mkdir()
            act, results = kill.ACTS[load](root)
            whole = root / "whole"
            start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            runs.ended(runs.started(lambda: act(whole), log=root / "log"))  # noqa: B023
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = time.monotonic() - start
            of_cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            wanted = runs.digests(whole, results)
            few = budget.count <= 20 or load in ("convert", *runs.RECIPES)
            for kb in KB[:: 3 if few else 1]:
                for bad, limited in (("full", False), ("limit of a file's size", True)):
                    start = time.monotonic()
                    outcome = full(act, results, wanted, root / f"{bad}{kb}", kb, limited)
                    yield Case(f"{load}, {bad}", f"{kb} kB", outcome, time.monotonic() - start)
            yield Case(f"{load}, read-only", "once", read_only(act, root / "ro"))
            yield Case(f"{load}, a file in the way", "once", in_the_way(act, root / "file"))
            told = stalled(act, results, wanted, root / "slow", seconds)
            yield Case(f"{load}, stalls", "three times", told)
            if load in runs.RECIPES:
                for i in range(max(1, budget.count // 10)):
                    moment = budget.random("moved", i).uniform(0.1, 1)
                    told = removed(act, root, f"removed{i}", wanted, moment * of_cpu / 2)
                    yield Case(f"{load}, image removed", f"at {moment / 2:.0%}", told)
                    told = moved(act, load, root, f"moved{i}", wanted, moment * of_cpu)
                    yield Case(f"{load}, folders moved", f"at {moment:.0%}", told)


def mounted(place: Path, kb: int) -> bool:
    """Mount a tmpfs of that size, where that is allowed."""
    if os.geteuid() or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={kb}k", "none", str(place)]
    return subprocess.run(command, capture_output=True).returncode == 0


def full(
    act: kill.Act, results: tuple[str, ...], wanted: dict, place: Path, kb: int,
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


def read_only(act: kill.Act, place: Path) -> str:
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


def in_the_way(act: kill.Act, place: Path) -> str:
    """A file stands where the folder would go: it stays as it is."""
    place.write_text("mine")
    log = place.with_suffix(".log")
    told = runs.told(log, runs.ended(runs.started(lambda: act(place), log=log)))
    return told if place.read_text() == "mine" else "a file of the user's is gone"


def stalled(
    act: kill.Act, results: tuple[str, ...], wanted: dict, out: Path, seconds: float
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


def removed(act: kill.Act, root: Path, name: str, wanted: dict, after_s: float) -> str:
    """An image is removed while the run goes on, and put back before it is resumed."""
    out, log, image = root / name, root / "log", next(iter(sorted((root / "data").rglob("*.png"))))
    content = image.read_bytes()
    child = runs.started(lambda: act(out), log=log)
    while runs.spent(child, 0, True) < after_s:
        time.sleep(0.01)
    image.unlink()
    outcome = runs.told(log, runs.ended(child))
    image.write_bytes(content)
    if outcome not in (ANSWER, REFUSED):
        return outcome
    code = runs.ended(runs.started(lambda: act(out), log=log))
    if code:
        return f"not resumed: {runs.told(log, code)}"
    return outcome if runs.digests(out, tuple(wanted)) == wanted else "other bytes"


def moved(
    act: kill.Act, load: str, root: Path, name: str, wanted: dict, after_s: float
) -> str:  # fmt: skip
    """The run's folder and its images move while it is dead; it is then resumed there."""
    out, there, log = root / name, root / f"{name}-there", root / "log"
    runs.ended(runs.started(lambda: act(out), log=log), after_s=after_s, of_cpu=True)
    shutil.copytree(root / "data", root / f"{name}-data")
    (root / "data").rename(root / "away")  # where they were there is nothing now
    if out.exists():
        shutil.move(out, there)
    again, _ = kill.resumed(load, root / f"{name}-data")
    code = runs.ended(runs.started(lambda: again(there), log=log))
    (root / "away").rename(root / "data")
    if code:
        return f"not resumed: {runs.told(log, code)}"
    # predictions.csv names the images where they are now.
    same = [key for key in wanted if key != "predictions.csv"]
    found = runs.digests(there, tuple(same))
    return ANSWER if found == {key: wanted[key] for key in same} else "other bytes"
