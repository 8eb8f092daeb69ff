"""`kzoo classify --qat-engine tfmot`: a run whose int8 file tfmot trains."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from kzoo.recipes.cli import main
from kzoo.recipes.programs import demo
from kzoo.tflite import audit

pytest.importorskip("tensorflow_model_optimization", reason="tfmot comes with its extra")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

QUICK = ["--model", "mobilenet_v1", "--alpha", "0.25", "--size", "48", "--weights", "none"]
QUICK += ["--epochs", "3", "--batch-size", "16", "--learning-rate", "0.003"]
QUICK += ["--qat-epochs", "3", "--qat-engine", "tfmot"]


def test_a_run_killed_in_tfmots_training_goes_on_and_ends_in_a_file(tmp_path):
    rng = np.random.default_rng(0)
    for shape in ("circle", "cross"):
        (tmp_path / "data" / shape).mkdir(parents=True)
        for i in range(30):
            demo.draw(shape, rng).save(tmp_path / "data" / shape / f"{i}.jpg")
    run = tmp_path / "run"
    arguments = ["classify", str(tmp_path / "data"), *QUICK, "--out", str(run)]
    words = [sys.executable, "-m", "kzoo.recipes.cli", *arguments]
    begun = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept = run / "checkpoint" / "tfmot" / "epoch.npz"
    end = time.monotonic() + 300
    while not kept.exists() and begun.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    os.kill(begun.pid, signal.SIGKILL)
    begun.wait()
    time.sleep(2)  # for the other process to notice
    assert kept.exists()
    with np.load(kept) as state:
        before = json.loads(str(state["history"]))
    assert 1 <= len(before) < 3, "it was killed too late to show anything"

    assert main(arguments) == 0
    history = json.loads((run / "history.json").read_text())
    stages = [row["stage"] for row in history]
    assert stages == ["whole"] * 3 + ["tfmot"] * 3
    assert history[3 : 3 + len(before)] == before
    found = audit(run / "model.tflite")
    assert found.float_ops == ()
    assert found.inputs[0].dtype == "uint8"
    assert found.run.partitions == 1
    results = json.loads((run / "results.json").read_text())
    assert results["agreement"] >= 0.9
    assert results["sqnr_db"] > 5
