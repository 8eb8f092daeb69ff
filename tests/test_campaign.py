"""The short form of each part of the reliability campaign (tests/bench/campaign)."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

BENCH = Path(__file__).parent / "bench"
pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="the campaign makes files by TensorFlow"
    ),
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


def tallied(part: str, count: int, backend: str = "tensorflow", **options: object) -> list[dict]:
    """Run a part in a process of its own, which forks; return its rows."""
    import json

    paths = json.dumps([str(BENCH), str(BENCH.parent)])
    command = [sys.executable, "-c", SHORT, paths, part, str(count), json.dumps(options)]
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])["rows"]


@pytest.mark.parametrize(
    ("part", "count", "backend", "options"),
    [
        # NumPy is imported in a tenth of the time; nothing here computes.
        ("files", 60, "numpy", {"tflite": False}),
        ("data", 80, "numpy", {}),
        ("serve", 40, "numpy", {}),
        ("places", 2, "numpy", {"train": False}),
        ("supply", 1, "numpy", {"checks": ["no eval, exec or shell", "no pickle of strangers",
                                           "no network at import"]}),
    ],
)  # fmt: skip
def test_short(part, count, backend, options):
    rows = tallied(part, count, backend, **options)
    assert rows
    assert [row for row in rows if row["failed"]] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "count", "options"),
    [
        ("kill", 3, {"loads": {"classify": 0.5, "download": 0.5}}),
        ("disk", 4, {"loads": ["download", "pack"]}),
        ("together", 2, {"loads": ["download", "pack"]}),
        ("numeric", 12, {"loads": ["nan loss", "one class"]}),
    ],
)
def test_short_with_runs(part, count, options):
    rows = tallied(part, count, **options)
    assert rows
    assert [row for row in rows if row["failed"]] == []
