"""Disks that are full or read-only, files that go, folders that move: said, and made good after.

Where `mount` is allowed, the disk is a small tmpfs; else writes are limited by RLIMIT_FSIZE.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from campaign import kill, runs
from campaign.cases import ANSWER, Budget, Case

KB = (8, 40, 120, 300, 600, 1200)  # of a disk, or of a file


def cases(budget: Budget, loads: tuple[str, ...] = ("classify", "pack", "convert", "download"),
          ) -> Iterator[Case]:  # fmt: skip
    """Yield what came of commands on bad disks, by what was bad."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for load in loads:
            folder = root / load
            folder.mkdir()
            act, results = kill.ACTS[load](folder)
            whole = folder / "whole"
            runs.ended(runs.started(lambda: act(whole), log=folder / "log"))  # noqa: B023
            wanted = runs.digests(whole, results)
            for kb in KB[:: 1 if budget.count > 20 else 3]:
                start = time.monotonic()
                outcome = full(act, results, wanted, folder / f"disk{kb}", kb)
                yield Case("full", f"{load}, {kb} kB", outcome, time.monotonic() - start)
            yield Case("read-only", load, read_only(act, folder / "ro"))
            yield Case("a file in the way", load, in_the_way(act, folder / "file"))
        if "classify" in loads:
            for i in budget.numbers():
                if i >= max(1, budget.count // 10):
                    break
                moment = budget.random("gone", i).uniform(0.1, 1)
                yield Case(
                    "image removed", f"after {moment:.2f}", removed(root / f"gone{i}", moment)
                )
                yield Case(
                    "folders moved", f"after {moment:.2f}", moved(root / f"moved{i}", moment)
                )


def mounted(place: Path, kb: int) -> bool:
    """Mount a tmpfs of that size, where that is allowed."""
    place.mkdir()
    if os.geteuid() or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={kb}k", "none", str(place)]
    return subprocess.run(command, capture_output=True).returncode == 0


def full(
    act: Callable[[Path], Any], results: tuple[str, ...], wanted: dict, place: Path, kb: int
) -> str:
    """Run on a disk of that size, then again with room: the end is that of a run with room."""
    mount, out, log = mounted(place, kb), place / "out", place.with_suffix(".log")
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


def removed(folder: Path, share: float) -> str:
    """Of the images one is removed while the run goes on, and put back before it is resumed."""
    folder.mkdir()
    act, results = kill.ACTS["classify"](folder)
    log = folder / "log"
    code = runs.ended(runs.started(lambda: act(folder / "whole"), log=log))
    wanted = runs.digests(folder / "whole", results)
    child = runs.started(lambda: act(folder / "out"), log=log)
    time.sleep(3 * share)
    image = folder / "data" / "red" / "3.png"
    content = image.read_bytes()
    image.unlink()
    told = runs.told(log, runs.ended(child))
    image.write_bytes(content)
    if told not in ("answer", "refused"):
        return told
    code = runs.ended(runs.started(lambda: act(folder / "out"), log=log))
    if code:
        return f"not resumed: {runs.told(log, code)}"
    return told if runs.digests(folder / "out", results) == wanted else "other bytes"


def moved(folder: Path, share: float) -> str:
    """The run's folder and its images move while it is dead."""
    folder.mkdir()
    act, results = kill.ACTS["classify"](folder)
    log = folder / "log"
    runs.ended(runs.started(lambda: act(folder / "whole"), log=log))
    wanted = runs.digests(folder / "whole", results)
    runs.ended(runs.started(lambda: act(folder / "out"), log=log), after_s=3 * share)
    shutil.move(folder / "data", folder / "elsewhere")
    if (folder / "out").exists():
        shutil.move(folder / "out", folder / "there")
    code = runs.ended(runs.started(
        lambda: runs.RECIPES["classify"](
            folder / "elsewhere", out=str(folder / "there"), save_every=1e-4, qat_epochs=1),
        log=log,
    ))  # fmt: skip
    if code:
        return f"not resumed: {runs.told(log, code)}"
    # predictions.csv names the images where they are now.
    same = runs.digests(folder / "there", results)["labels.txt"] == wanted["labels.txt"]
    return ANSWER if same and (folder / "there" / "model.tflite").is_file() else "other results"
