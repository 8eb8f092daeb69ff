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
