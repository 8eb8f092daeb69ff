"""`trial`: open and run a .tflite file once, in a separate process.

A bad file can abort the process that opens it, so `trial` starts this module as a program:
`python -P tflite/runtime/trial.py FILE` prints the XNNPACK partitions as JSON. It has to start
fast, so it imports nothing of kzoo, and LiteRT only where it is used.
"""

import contextlib
import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

TRIAL_SECONDS = 120  # timeout; a MobileNet takes less than one second
MOST_BYTES = 6 << 30  # memory limit: a damaged file can request any amount


def open_interpreter(path: str | os.PathLike[str], threads: int = 1) -> Any:
    """Return a LiteRT interpreter with allocated tensors; raise ValueError if it cannot open."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"LiteRT cannot open {str(path)!r}: {error}") from error
    return interpreter


@dataclasses.dataclass(frozen=True)
class Trial:
    """Measurements of a file that was opened and invoked once, on one thread with XNNPACK."""

    partitions: int  # number of XNNPACK partitions
    outside: tuple[int, ...]  # indices of the operators that XNNPACK does not run
    load_ms: float
    memory_mb: float  # growth of the process; nan if the system does not report it


def trial(path: str | os.PathLike[str]) -> Trial:
    """Open and invoke a file in a separate process; raise ValueError if that process fails."""
    command = [sys.executable, "-P", __file__, str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TRIAL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{path} did not end within {TRIAL_SECONDS} s.") from None
    if done.returncode != 0:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(
            f"{path} cannot be run: the process that tried it ended with {how}: {last}"
        )
    values = json.loads(done.stdout.splitlines()[-1])
    return Trial(values.pop("partitions"), tuple(values.pop("outside")), **values)


def try_here(path: str) -> dict[str, Any]:
    """Open and invoke a file in this process; return the fields of `Trial`."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: F401, before memory is measured

    before, start = resident_mb(), time.perf_counter()
    interpreter = open_interpreter(path)
    load_ms = 1e3 * (time.perf_counter() - start)
    for detail in interpreter.get_input_details():
        # Mid-gray: many activations are zero for a black image.
        value = {"uint8": 128, "int8": 0}.get(np.dtype(detail["dtype"]).name, 0)
        interpreter.set_tensor(
            detail["index"], np.full(detail["shape"], value, dtype=detail["dtype"])
        )
    interpreter.invoke()
    partitions, outside = delegated(interpreter._get_ops_details())
    grown = resident_mb() - before
    return {"partitions": partitions, "outside": outside, "load_ms": load_ms, "memory_mb": grown}


def limit_memory() -> None:
    """Limit the growth of this process's address space to `MOST_BYTES`, if the system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows, macOS, a lower limit
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + MOST_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def resident_mb() -> float:
    """Return the memory of this process in MB: resident, or else its peak, or else nan."""
    with contextlib.suppress(OSError):
        return (
            int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        )
    if sys.platform not in PEAK_UNIT:
        return math.nan  # Windows has no `resource`
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT[sys.platform] / 1e6


PEAK_UNIT = {"linux": 1024, "darwin": 1}  # unit of ru_maxrss in bytes: getrusage(2)


def delegated(operators: list[dict[str, Any]]) -> tuple[int, list[int]]:
    """Return (number of partitions, operators outside them) from LiteRT's list of operators.

    The list has the file's own operators and one DELEGATE for each partition. LiteRT does not say
    what a DELEGATE replaced: it is all between its inputs and its outputs.
    """
    own = [op for op in operators if op["op_name"] != "DELEGATE"]
    producer = {int(t): op for op in own for t in op["outputs"]}
    partitions = [op for op in operators if op["op_name"] == "DELEGATE"]
    inside = set()
    for partition in partitions:
        stop = {int(t) for t in partition["inputs"]}
        todo = [int(t) for t in partition["outputs"]]
        while todo:
            tensor = todo.pop()
            op = producer.get(tensor)
            if tensor in stop or op is None or op["index"] in inside:
                continue
            inside.add(op["index"])
            todo += [int(t) for t in op["inputs"]]
    return len(partitions), [op["index"] for op in own if op["index"] not in inside]


if __name__ == "__main__":
    limit_memory()
    print(json.dumps(try_here(sys.argv[1])))
