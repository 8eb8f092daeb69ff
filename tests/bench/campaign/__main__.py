"""The reliability campaign: what kzoo does with damaged files, full disks, kills and strangers.

    python tests/bench/campaign                       every part
    python tests/bench/campaign files serve           some
    python tests/bench/campaign kill --seconds 600 --count 60 --seed 1

Each part is a file in this folder and prints its faults with what repeats them. With --write rows
go into tests/bench/results/campaign.csv, where those of parts that were not run stay as they are,
and from there into docs/reliability.md (tests/docs_pages.py).
"""

# ruff: noqa: E402  (the folders of the benches and tests are entered first)
import argparse
import csv
import importlib
import inspect
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(BENCH), str(BENCH.parent)]

from record import RESULTS, commit, machine

from campaign.cases import Budget, tallied

PARTS = {  # part: how many cases, where neither --count nor the time says less
    "files": 5000, "data": 6000, "kill": 60, "disk": 40, "memory": 12, "together": 12,
    "places": 40, "serve": 400, "soak": 500, "numeric": 12, "supply": 10,
}  # fmt: skip
COMPUTES = {"kill", "disk", "together", "places", "soak", "numeric"}  # parts that train, convert
FILE = RESULTS / "campaign.csv"
COLUMNS = ("part", "load", "tried", "answered", "refused", "failed", "slowest_s", "peak_mb",
           "first_failure", "seed", "commit", "machine", "command")  # fmt: skip


def write(rows: list[dict[str, object]], part: str, only: list[str], *, add: bool = False) -> None:
    """Put rows in the place of those that the part, or `only` these of its commands, had.

    add: to those of the same commit instead.
    """
    kept = []
    if FILE.is_file():
        with FILE.open(encoding="utf-8", newline="") as file:
            before = list(csv.DictReader(file))
        own = [row for row in before if row["part"] == part
               and (not only or row["load"].split(",")[0] in only)]  # fmt: skip
        kept = [row for row in before if row not in own]
        if add:
            own = [row for row in own if row["commit"] == rows[0]["commit"]]
            rows = summed([*own, *rows])
    everything: list[Mapping[str, object]] = [*kept, *rows]
    order = list(PARTS)
    everything.sort(key=lambda row: order.index(str(row["part"])))
    with FILE.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(everything)


def summed(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return a row for each load of the rows."""
    found: dict[object, dict[str, object]] = {}
    for row in rows:
        first = found.setdefault(row["load"], {})
        if not first:
            first |= row
            continue
        for key in ("tried", "answered", "refused", "failed"):
            first[key] = int(str(first[key])) + int(str(row[key]))
        for key in ("slowest_s", "peak_mb"):
            first[key] = max(float(str(first[key])), float(str(row[key])))
        for key, sign in (("seed", " "), ("command", "; ")):
            if str(row[key]) not in str(first[key]):
                first[key] = f"{first[key]}{sign}{row[key]}"
        first["first_failure"] = first["first_failure"] or row["first_failure"]
    return list(found.values())


def why_not_only(part: str, only: Sequence[str]) -> str | None:
    """Return why `--only` cannot be given for a part, or None."""
    cases = importlib.import_module(f"campaign.{part}").cases
    loads = inspect.signature(cases).parameters.get("loads")
    if loads is None:
        return f"--only chooses commands, and {part} has none to choose from: leave it out"
    unknown = [name for name in only if loads.default and name not in loads.default]
    if unknown:
        return f"{part} does not try {unknown[0]!r}: --only takes {', '.join(loads.default)}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "parts",
        nargs="*",
        choices=[[], *PARTS],
        default=[],
        metavar="PART",
        help=f"{', '.join(PARTS)} (default: all)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument(
        "--seconds", type=float, default=600, help="for each part, about (default: 600)"
    )
    parser.add_argument("--count", type=int, help="cases of each part, at the most")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="COMMAND",
        help="of kill, disk, memory and together: the commands to try; the rows of the others stay",
    )
    parser.add_argument("--write", action="store_true", help="replace the part's rows in the table")
    parser.add_argument(
        "--add",
        action="store_true",
        help="write, adding to what the same commit has of other seeds",
    )
    parser.add_argument("--samples", type=Path, help="folder of model files to change, for `files`")
    given = parser.parse_args()
    parts = given.parts or list(PARTS)
    if COMPUTES.isdisjoint(parts):  # Keras on NumPy is there in a third of the time
        os.environ.setdefault("KERAS_BACKEND", "numpy")
    for part in parts if given.only else ():
        if reason := why_not_only(part, given.only):
            parser.error(reason)
    failed = False
    for part in parts:
        start = time.monotonic()
        budget = Budget(given.seed, given.seconds, given.count or PARTS[part])
        options: dict[str, object] = {}
        if part == "files" and given.samples:
            options |= {"own": given.samples, "tflite": False}
        if given.only:
            options["loads"] = tuple(given.only)
        cases = list(importlib.import_module(f"campaign.{part}").cases(budget, **options))
        for case in cases:
            if not case.passed:
                print(f"{part}, {case.load}, {case.told}: {case.outcome}", flush=True)
        words = f"{part} --seed {given.seed} --seconds {given.seconds:g}"
        words += f" --count {given.count}" if given.count else ""
        words += f" --only {' '.join(given.only)}" if given.only else ""
        about = {
            "seed": given.seed, "commit": commit(), "machine": machine(),
            "command": f"python tests/bench/campaign {words}",
        }  # fmt: skip
        found = tallied(part, cases)
        failed |= any(row["failed"] for row in found)
        for row in found:
            print("  ".join(f"{key} {value}" for key, value in row.items() if value != ""))
        print(f"{part}: {time.monotonic() - start:.0f} s", flush=True)
        if given.write or given.add:
            write([row | about for row in found], part, given.only, add=given.add)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
