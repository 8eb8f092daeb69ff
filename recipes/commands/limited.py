"""Running a command under a limit of its address space (`ulimit -v`).

If an allocation fails, C++ aborts the process. So the command runs in a child process, and the
parent prints an error.
"""

import contextlib
import ctypes
import faulthandler
import os
import signal
from collections.abc import Callable

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

ARENA_MAX, ARENAS = -8, 1  # of mallopt (glibc's malloc.h); each arena reserves 64 MB or more
DEATH_SIGNAL = 1  # of prctl (linux/prctl.h): PR_SET_PDEATHSIG
TENSORFLOW_GB = 2.0  # address space of TensorFlow without a model


def limit_gb() -> float | None:
    """Return the limit of this process's address space in GB; None without a limit."""
    if resource is None or not hasattr(os, "fork"):
        return None
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if most == resource.RLIM_INFINITY else most / 1e9


def in_child(act: Callable[[], int]) -> int:
    """Run `act` in a child process; return its exit code, or -signal if a signal ended it.

    Like fork, it returns in the child, too. Tracebacks of crashes go to file descriptor 2. Ctrl-C
    reaches both processes; SIGTERM is passed on to the child.
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
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        for number, handler in before:
            signal.signal(number, handler)


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
