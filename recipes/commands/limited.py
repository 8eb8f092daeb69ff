"""A command under a limit of its address space (`ulimit -v`).

Where memory cannot be had, C++ aborts the process. So the command runs in a child, and the parent
says what happened.
"""

import contextlib
import ctypes
import faulthandler
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

ARENA_MAX, ARENAS = -8, 1  # of mallopt (glibc's malloc.h); each arena reserves 64 MB or more
DEATH_SIGNAL = 1  # of prctl (linux/prctl.h): what a child gets when its parent has ended
TENSORFLOW_GB = 2.0  # of address space, before there is a model
STILL_S = 120.0  # after an allocation has failed, TensorFlow may wait for a lock for ever


def limit_gb() -> float | None:
    """Return the limit of this process's address space in GB; None where there is none."""
    if resource is None or not hasattr(os, "fork"):
        return None
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if most == resource.RLIM_INFINITY else most / 1e9


def in_child(act: Callable[[], int], *, always_computes: bool = False) -> int:
    """Return what `act` returns in a child process, or -signal where a signal ended it.

    Returns twice, as fork does: in the child too. What the child's libraries write where they crash
    goes to file descriptor 2. Ctrl-C reaches both; SIGTERM is passed on. A child that
    `always_computes` is killed after `STILL_S` seconds in which it slept.
    """
    child = os.fork()
    if child == 0:
        with contextlib.suppress(AttributeError, OSError):  # elsewhere than on Linux with glibc
            ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
            ctypes.CDLL(None).mallopt(ARENA_MAX, ARENAS)
        faulthandler.enable(2)
        return act()
    before = [
        (signal.SIGINT, signal.signal(signal.SIGINT, signal.SIG_IGN)),
        (signal.SIGTERM, signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))),
    ]
    try:
        return ended(child, STILL_S if always_computes else float("inf"))
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def ended(child: int, still_s: float, look_s: float = 0.1) -> int:
    """Wait for a child; return its exit code. Kill it once it has slept for `still_s` seconds."""
    if still_s == float("inf"):
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    before, since = None, time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        now = sleeping_after(child)
        if now is None or now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > still_s:
            os.kill(child, signal.SIGKILL)
        time.sleep(look_s)


def sleeping_after(process: int) -> int | None:
    """Return the CPU time (ticks) of a process that sleeps; None where it runs, is stopped, waits
    for a disk, or where the system does not say (proc(5), stat)."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) if fields[0] == "S" else None


def advice(limit: float | None) -> str:
    """Return what to do where memory ran out under a limit, or under none."""
    tight = (
        f" The address space of this process is limited to {limit:.1f} GB (ulimit -v), of which "
        f"TensorFlow alone takes {TENSORFLOW_GB:g}." if limit else ""
    )  # fmt: skip
    return (
        f"memory ran out.{tight} A smaller --batch-size takes less, and so does a smaller --size; "
        "--accumulate keeps the size of the batch."
    )
