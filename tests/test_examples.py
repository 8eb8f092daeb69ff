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
    "from_model_maker.py": ["photos", "--size", "32", "--epochs", "1"],
    "file_to_android.py": ["model.tflite", "app"],
}
WITH_FILE = {"fine_tune_keras.py", "file_to_android.py"}  # one writes what the other reads
NEEDS = {"fine_tune_jax.py": "jax", "fine_tune_torch.py": "torch"}

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="examples choose their backend themselves"
)


def test_every_example_is_run_and_listed():
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == set(ARGUMENTS)
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in listed for name in names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with photos of two classes, of one colour each."""
    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(0)
    for label, colour in (("blue", (20, 40, 200)), ("red", (200, 30, 30))):
        (folder / "photos" / label).mkdir(parents=True)
        for i in range(20):
            noise = rng.normal(colour, 20, (32, 32, 3)).clip(0, 255).astype("uint8")
            Image.fromarray(noise).save(folder / "photos" / label / f"{i}.png")
    return folder


def run(folder: Path, *words: str | Path) -> str:
    """What Python says of a program in a folder, on the backend that it chooses itself."""
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def fine_tuned(folder) -> Path:
    """What fine_tune_keras.py writes."""
    run(folder, EXAMPLES / "fine_tune_keras.py", *ARGUMENTS["fine_tune_keras.py"])
    return folder / "model.tflite"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ARGUMENTS if name not in WITH_FILE])
def test_it_runs(name, folder):
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    run(folder, EXAMPLES / name, *ARGUMENTS[name])


@pytest.mark.slow
def test_a_fine_tuned_file_goes_into_an_app(fine_tuned):
    name = "file_to_android.py"
    out = run(fine_tuned.parent, EXAMPLES / name, *ARGUMENTS[name])
    assert "model.tflite has the classes blue, red." in out
    assert (fine_tuned.parent / "app/src/main/assets/model.tflite").read_bytes() == (
        fine_tuned.read_bytes()
    )


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
    run(tmp_path, "-c", "\n".join("".join(x["source"]) for x in cells if x["cell_type"] == "code"))
