"""Running a command under a limit of its address space (`ulimit -v`).

If an allocation fails, C++ aborts the process. So the command runs in a child process, and the
parent prints an error.
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
DEATH_SIGNAL = 1  # of prctl (linux/prctl.h): PR_SET_PDEATHSIG
TENSORFLOW_GB = 2.0  # address space of TensorFlow without a model
STILL_S = 120.0  # timeout: after a failed allocation TensorFlow may wait for a lock forever


def limit_gb() -> float | None:
    """Return the limit of this process's address space in GB; None without a limit."""
    if resource is None or not hasattr(os, "fork"):
        return None
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if most == resource.RLIM_INFINITY else most / 1e9


def in_child(act: Callable[[], int], *, always_computes: bool = False) -> int:
    """Run `act` in a child process; return its exit code, or -signal if a signal ended it.

    Like fork, it returns in the child, too. Tracebacks of crashes go to file descriptor 2. Ctrl-C
    reaches both processes; SIGTERM is passed on to the child.

    always_computes: kill the child after `STILL_S` seconds without CPU time.
    """
    child = os.fork()
    if child == 0:
        with contextlib.suppress(AttributeError, OSError):  # not Linux with glibc
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
    """Wait for a child and return its exit code; kill it after sleeping for `still_s` seconds."""
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
    """Return the CPU time (ticks) of a sleeping process; None for other states (proc(5), stat)."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) if fields[0] == "S" else None


def advice(limit: float | None) -> str:
    """Return the error message for memory that ran out, with a limit in GB or without."""
    tight = (
        f" The address space of this process is limited to {limit:.1f} GB (ulimit -v), of which "
        f"TensorFlow alone takes {TENSORFLOW_GB:g}." if limit else ""
    )  # fmt: skip
    return (
        f"memory ran out.{tight} A smaller --batch-size takes less, and so does a smaller --size; "
        "--accumulate keeps the size of the batch."
    )
