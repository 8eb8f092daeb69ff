"""Every example and every notebook runs, on small data."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from notebooks import FOLDER, rendered
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
ARGUMENTS = {
    "fine_tune_keras.py": ["photos", "--size", "32", "--epochs", "1"],
    "fine_tune_jax.py": ["--size", "32", "--steps", "3"],
    "fine_tune_torch.py": ["--size", "32", "--steps", "3"],
    "qat_by_hand.py": ["--size", "32", "--epochs", "2", "--images", "160"],
    "custom_net.py": [],
    "custom_head.py": ["--size", "64"],
}
NEEDS = {"fine_tune_jax.py": "jax", "fine_tune_torch.py": "torch"}

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="examples choose their backend themselves"
)


def test_every_example_is_run_and_listed():
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == set(ARGUMENTS)
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in listed for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARGUMENTS)
def test_it_runs(name, tmp_path):
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    rng = np.random.default_rng(0)
    for label, colour in (("blue", (20, 40, 200)), ("red", (200, 30, 30))):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for i in range(20):
            noise = rng.normal(colour, 20, (32, 32, 3)).clip(0, 255).astype("uint8")
            Image.fromarray(noise).save(folder / f"{i}.png")
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *ARGUMENTS[name]],
        cwd=tmp_path, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_that_of_its_script(name):
    stored = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert stored == rendered(FOLDER / f"{name}.py"), "run `python tests/notebooks.py`"
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert f"`notebooks/{name}.ipynb`" in listed


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_cells_of_a_notebook_run(name, tmp_path):
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(one["source"]) for one in cells if one["cell_type"] == "code")
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
