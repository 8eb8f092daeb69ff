"""A command under a limit of its address space (`ulimit -v`).

Where memory cannot be had, C++ aborts the process. So the command runs in a child, and the parent
says what happened.
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
DEATH_SIGNAL = 1  # of prctl (linux/prctl.h): what a child gets when its parent has ended
TENSORFLOW_GB = 2.0  # of address space, before there is a model


def limit_gb() -> float | None:
    """Return the limit of this process's address space in GB; None where there is none."""
    if resource is None or not hasattr(os, "fork"):
        return None
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if most == resource.RLIM_INFINITY else most / 1e9


def in_child(act: Callable[[], int]) -> int:
    """Return what `act` returns in a child process, or -signal where a signal ended it.

    Returns twice, as fork does: in the child too. What the child's libraries write where they crash
    goes to file descriptor 2. Ctrl-C reaches both; SIGTERM is passed on.
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
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        for number, handler in before:
            signal.signal(number, handler)


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
