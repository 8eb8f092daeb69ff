"""What a part of the campaign tries: cases, each in a process of its own, and what came of them."""

import dataclasses
import json
import os
import random
import resource
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence

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


Try = tuple[str, float, float]  # outcome, seconds, MB at most
Function = Callable[[int], str | None]


def isolated(function: Function, numbers: Sequence[int]) -> list[Try]:
    """Return what came of function(number) for each number, in processes of their own.

    A ValueError or OSError is REFUSED where its message is one line or more of text. What else is
    raised, a signal, a hang or too much memory is a fault; so is a text that the function returns.
    A process goes on with the next number, which is ten times cheaper than one for each. A fault
    ends it. The number is then tried alone; the outcome says if it passes there.
    """
    tries: list[Try] = []
    while len(tries) < len(numbers):
        found = one_process(function, numbers[len(tries) :])
        outcome, seconds, mb = found[-1]
        if len(found) > 1 and outcome not in (ANSWER, REFUSED):
            ((alone, *_),) = one_process(function, numbers[len(tries) + len(found) - 1 :][:1])
            fault = alone not in (ANSWER, REFUSED)
            found[-1] = alone if fault else f"{outcome}, after others only", seconds, mb
        tries += found
    return tries


def one_process(function: Function, numbers: Sequence[int]) -> list[Try]:
    """Return what came of the numbers in one child, up to and with the first fault."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        for number in numbers:
            found = attempt(function, number)
            os.write(writer, json.dumps(found).encode() + b"\n")
            if found[0] not in (ANSWER, REFUSED):
                break
        os._exit(0)
    os.close(writer)
    tries: list[Try] = []
    with os.fdopen(reader, "rb", buffering=0) as lines:
        while len(tries) < len(numbers) and (not tries or tries[-1][0] in (ANSWER, REFUSED)):
            start = time.monotonic()
            ready = select.select([lines], [], [], HANG_S)[0]
            line = lines.readline() if ready else b""  # a pipe takes as much at once: whole
            if not line:
                break
            tries.append(tuple(json.loads(line)))
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    if not line:
        outcome = f"ended by signal {os.WTERMSIG(status)}" if ready else f"hang of {HANG_S:g} s"
        tries.append((outcome, time.monotonic() - start, usage.ru_maxrss / 1024))
    return tries


def attempt(function: Function, number: int) -> Try:
    start = time.monotonic()
    try:
        outcome = function(number) or ANSWER
    except (ValueError, OSError) as error:
        outcome = REFUSED if str(error).strip() else f"{type(error).__name__} without a word"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}".replace("\n", " ")[:160]
    mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if mb > MOST_MB and outcome in (ANSWER, REFUSED):
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
