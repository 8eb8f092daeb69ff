"""What a part of the campaign tries: cases, each in a process of its own, and what came of them."""

import dataclasses
import os
import random
import resource
import select
import signal
import time
from collections.abc import Callable, Iterator

ANSWER, REFUSED = "answer", "refused"
HANG_S = 10.0
MOST_MB = 2048


@dataclasses.dataclass(frozen=True)
class Case:
    """One try. `outcome` is ANSWER, REFUSED (an error that tells what is wrong), or the fault."""

    load: str
    told: str  # what repeats it
    outcome: str
    seconds: float = 0.0
    mb: float = 0.0

    @property
    def passed(self) -> bool:
        return self.outcome in (ANSWER, REFUSED)


class Budget:
    """How long a part may go on, and how much it may try; `random` makes the same cases again."""

    def __init__(self, seed: int, seconds: float, count: int):
        self.seed, self.end, self.count = seed, time.monotonic() + seconds, count

    def numbers(self, share: float = 1.0) -> Iterator[int]:
        """Yield 0, 1, ... up to a share of `count`, or until a share of the time is used up."""
        now = time.monotonic()
        end = now + share * max(0.0, self.end - now)
        for i in range(max(1, round(share * self.count))):
            if i and time.monotonic() > end:
                return
            yield i

    def random(self, *parts: object) -> random.Random:
        return random.Random(f"{self.seed} {parts}")


def isolated(
    function: Callable[[], str | None], *, timeout_s: float = HANG_S, most_mb: float = MOST_MB,
    address_space: int | None = None,
) -> tuple[str, float, float]:  # fmt: skip
    """Return (outcome, seconds, MB at most) of a function in a process of its own.

    A ValueError or OSError is REFUSED where its message is one line or more of text. What else is
    raised, a signal, a hang or too much memory is a fault; so is a text that the function returns.
    """
    reader, writer = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        if address_space:
            resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
        try:
            word = function() or ANSWER
        except (ValueError, OSError) as error:
            word = REFUSED if str(error).strip() else f"{type(error).__name__} without a word"
        except BaseException as error:
            word = f"{type(error).__name__}: {error}".replace("\n", " ")[:160]
        os.write(writer, word.encode("utf-8", "replace"))
        os._exit(0)
    os.close(writer)
    told = b""
    while select.select([reader], [], [], max(0, start + timeout_s - time.monotonic()))[0]:
        more = os.read(reader, 4096)
        if not more:
            break
        told += more
    else:
        told = f"hang of {timeout_s:g} s".encode()
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    _, status, usage = os.wait4(child, 0)
    mb = usage.ru_maxrss / 1024
    outcome = told.decode("utf-8", "replace")
    if not outcome:
        outcome = f"ended by signal {os.WTERMSIG(status)}"
    elif mb > most_mb and outcome in (ANSWER, REFUSED):
        outcome = f"took {mb:.0f} MB"
    return outcome, time.monotonic() - start, mb


def tallied(part: str, cases: list[Case]) -> list[dict[str, object]]:
    """Return a row for each load: how many were tried, and what came of them."""
    rows = []
    for load in dict.fromkeys(case.load for case in cases):
        own = [case for case in cases if case.load == load]
        failed = [case for case in own if not case.passed]
        rows.append({
            "part": part, "load": load, "tried": len(own),
            "answered": sum(case.outcome == ANSWER for case in own),
            "refused": sum(case.outcome == REFUSED for case in own),
            "failed": len(failed),
            "slowest_s": round(max(case.seconds for case in own), 2),
            "peak_mb": round(max(case.mb for case in own)),
            "first_failure": f"{failed[0].told}: {failed[0].outcome}" if failed else "",
        })  # fmt: skip
    return rows
