"""The short form of each part of the reliability campaign (tests/bench/campaign)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

BENCH = Path(__file__).parent / "bench"
pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="once is enough"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is a process of its own"),
]
SHORT = """
import importlib, json, sys
sys.path[:0] = json.loads(sys.argv[1])
from campaign.cases import Budget, tallied
part, count, options = sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
cases = list(importlib.import_module(f"campaign.{part}").cases(Budget(1, 30, count), **options))
print(json.dumps({"rows": tallied(part, cases)}))
"""


def tallied(part: str, count: int, **options: object) -> list[dict]:
    """Run a part in a process of its own, which forks; return its rows."""
    paths = json.dumps([str(BENCH), str(BENCH.parent)])
    command = [sys.executable, "-c", SHORT, paths, part, str(count), json.dumps(options)]
    environment = os.environ | {"KERAS_BACKEND": "numpy"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])["rows"]


# NumPy is imported in a third of TensorFlow's time, and nothing here trains.
@pytest.mark.parametrize(
    ("part", "count", "options"),
    [
        ("files", 60, {"tflite": False}),
        ("data", 80, {}),
        ("kill", 12, {"loads": ["download"]}),
        ("disk", 4, {"loads": ["download", "pack"]}),
        ("together", 6, {"loads": ["download", "pack"]}),
        ("serve", 40, {}),
        ("numeric", 12, {"loads": ["one class"]}),
        ("supply", 1, {"checks": ["no eval, exec or shell", "no pickle of strangers",
                                  "no network at import"]}),
    ],
)  # fmt: skip
def test_short(part, count, options):
    rows = tallied(part, count, **options)
    assert rows
    assert [row for row in rows if row["failed"]] == []


def test_a_process_goes_on_after_what_ends_it():
    """A signal, a hang, a fault and too much memory each cost the cases after them nothing."""
    program = """
import json, os, sys, time
sys.path[:0] = json.loads(sys.argv[1])
from campaign import cases
cases.HANG_S, cases.MOST_MB = 1.5, 100
kept = []

def function(i):
    if i == 1: raise ValueError("what is wrong")
    if i == 2: os.abort()
    if i == 3: time.sleep(9)
    if i == 4: return "a fault"
    if i == 5: raise OSError
    if i == 6: bytearray(150 << 20)
    kept.append(i)
    if i == 8 and len(kept) > 1: raise KeyError("of the case before")

print(json.dumps([found[0] for found in cases.isolated(function, range(10))]))
"""
    paths = json.dumps([str(BENCH), str(BENCH.parent)])
    done = subprocess.run([sys.executable, "-c", program, paths], capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found[:6] == [
        "answer", "refused", "ended by signal 6", "hang of 1.5 s", "a fault",
        "OSError without a word",
    ]  # fmt: skip
    assert found[6].startswith("took 1")
    assert found[7:] == ["answer", "KeyError: 'of the case before', after others only", "answer"]


def test_commands_that_a_part_does_not_have():
    """`places --only pack` was a TypeError of `cases`."""
    program = """
import json, sys
sys.path[:1] = json.loads(sys.argv[1])
from campaign.__main__ import why_not_only
for part, command in (("places", "pack"), ("kill", "pakc"), ("kill", "pack")):
    print(why_not_only(part, [command]))
"""
    command = [sys.executable, "-c", program, json.dumps([str(BENCH), str(BENCH.parent)])]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"KERAS_BACKEND": "numpy"}
    )
    first, second, third = done.stdout.splitlines()[-3:]
    assert first == "--only chooses commands, and places has none to choose from: leave it out"
    assert second.startswith("kill does not try 'pakc': --only takes ")
    assert third == "None"
