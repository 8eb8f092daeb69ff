"""CPU time and stderr of commands that need no model: help, the list, wrong words.

    uv run python tests/bench/command_line.py                          (seconds)
    uv run python tests/bench/command_line.py --before OLD_CHECKOUT    (a minute more)

User and system time of the whole process, the median of some; the caches are warm. No variable
makes TensorFlow quiet, and Keras runs on the backend that it takes by itself.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from record import record

HERE = Path(__file__).parents[2]
COMMANDS = ("--help", "list", "clasify x", "classify /none", "classify --help", "--version")


def cost(tree: Path, words: str) -> tuple[float, int, int]:
    """Return (CPU seconds, lines on stderr, exit code) of a command of a checkout."""
    quiet = ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND")
    environment = {key: value for key, value in os.environ.items() if key not in quiet}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "kzoo.recipes.cli", *words.split()],
        env=environment | {"PYTHONPATH": str(tree)}, cwd="/", capture_output=True, text=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, len(done.stderr.splitlines()), done.returncode


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, help="checkout of an older commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rounds-before", type=int, default=1)
    given = parser.parse_args()
    trees = [("now", HERE, given.rounds)]
    if given.before:
        trees.append(("before", given.before.absolute(), given.rounds_before))
    rows = []
    for words in COMMANDS:
        for name, tree, rounds in trees:
            if name == "before" and words == "--version":
                continue  # there was none
            cost(tree, words)  # fills the caches
            found = [cost(tree, words) for _ in range(rounds)]
            seconds = [one[0] for one in found]
            rows.append({
                "code": name, "words": f"kzoo {words}", "cpu_s": statistics.median(seconds),
                "least_cpu_s": min(seconds), "most_cpu_s": max(seconds), "n": rounds,
                "stderr_lines": found[0][1], "exit_code": found[0][2],
            })  # fmt: skip
    record("command_line", rows)


if __name__ == "__main__":
    main()
