"""Runs of `kzoo classify` that were killed, and what commit 9b6b9e9 made of them.

    PYTHONPATH=.:tests python tests/golden/killed_run.py OUT

A run is killed (SIGKILL) as soon as a checkpoint of a stage is there: "run" within the training of
the whole net, "run-qat" within that of the quantized one; RUN-end has what it ended with. Of a run
only what is read to resume it is kept, and its config.json names its data "images": to resume it,
stand in a folder where `tiny.draw` has drawn them. At that commit the modules had other names.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from golden import tiny

SETTINGS = {
    "model": "tiny", "size": 32, "weights": "none", "epochs": 6, "qat_epochs": 4, "batch_size": 8,
    "learning_rate": 0.02, "flip": False,
}  # fmt: skip
STOPS = {"run": "whole-0002", "run-qat": "qat-0001"}


def go(folder: Path) -> None:
    """Begin or resume folder/run on folder/images, in this process."""
    import kzoo.recipes
    from kzoo.registry import MODELS

    MODELS["tiny"] = tiny.classifier
    os.chdir(folder)
    print(kzoo.recipes.classify("images", **SETTINGS, out="run"))


def begin_and_kill(folder: Path, checkpoint: str) -> None:
    process = subprocess.Popen([sys.executable, __file__, "go", folder])
    while not (folder / "run" / "checkpoint" / checkpoint).exists():
        assert process.poll() is None, process.returncode
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def make_small(run: Path, checkpoint: str) -> None:
    """Leave what is read to resume the run, deflated."""
    for path in (run / "checkpoint").iterdir():  # half written, half deleted, of a finished stage
        if path.is_dir() and path.name != checkpoint:
            shutil.rmtree(path)
    (run / "model.keras").unlink(missing_ok=True)  # written again
    for file in (*run.rglob("*.keras"), *run.rglob("*.npz")):
        tiny.squeeze(file)
    config = run / "config.json"
    settings = json.loads(config.read_text()) | {"data": "images"}
    config.write_text(json.dumps(settings, indent=1) + "\n")


def make(out: Path) -> None:
    for name, checkpoint in STOPS.items():
        with tempfile.TemporaryDirectory() as there:
            folder = Path(there)
            tiny.draw(folder / "images")
            begin_and_kill(folder, checkpoint)
            shutil.copytree(folder / "run", out / name)
            make_small(out / name, checkpoint)
            # Resumed from what is kept, not from what was there: it is what a test will have.
            shutil.rmtree(folder / "run")
            shutil.copytree(out / name, folder / "run")
            subprocess.run([sys.executable, __file__, "go", folder], check=True)
            (out / f"{name}-end").mkdir()
            for kept in ("results.json", "history.json"):
                shutil.copy(folder / "run" / kept, out / f"{name}-end")


if __name__ == "__main__":
    if sys.argv[1] == "go":
        go(Path(sys.argv[2]).absolute())
    else:
        make(Path(sys.argv[1]).absolute())
