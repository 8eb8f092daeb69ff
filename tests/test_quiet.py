"""No library remark reaches the terminal in any command: one tiny run, asked by ten of them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
TINY = ["--model", "mobilenet_v3_small", "--alpha", "0.35", "--size", "32", "--weights", "none",
        "--epochs", "1", "--qat-epochs", "1", "--batch-size", "8"]  # fmt: skip


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it: no variable that makes libraries quiet."""
    loud = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-m", "kzoo.recipes.cli", *map(str, words)],
        env=loud, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Images of two classes, of one colour each, with noise."""
    folder, random = tmp_path_factory.mktemp("quiet") / "images", np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for label, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                noise = random.integers(-30, 30, (32, 32, 3))
                image = Image.fromarray((np.array(colour) + noise).astype("uint8"))
                image.save(folder / split / label / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def run(images) -> Path:
    """A run's folder, made by a command that was quiet."""
    folder = images.parent / "run"
    done = command("classify", images, *TINY, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "RUN", "IMAGES/val/red/0.png"],
        ["predict", "RUN/model.keras", "IMAGES/val/red/0.png"],
        ["compare", "RUN"],
        ["sensitivity", "RUN"],
        ["convert", "RUN", "OUT/float.tflite", "--scheme", "float32"],
        ["audit", "RUN/model.tflite"],
        ["benchmark", "RUN/model.tflite"],
        ["android", "RUN", "--out", "OUT/android"],
        ["plan", "--rate", "9", "--model", "mobilenet_v3_small", "--size", "32"],
        ["list", "--size", "64", "--json"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_no_command_shows_a_library_s_remarks(words, run, images, tmp_path):
    places = {"RUN": str(run), "IMAGES": str(images), "OUT": str(tmp_path)}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    done = command(*words)
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout


def test_remarks_are_kept_and_shown_where_a_library_fails():
    code = (
        "import os, sys\nfrom kzoo.recipes.commands.quiet import own_terminal\n"
        "with own_terminal() as remarks:\n"
        "    os.write(2, b'from C++')\n    print('from kzoo', file=sys.stderr)\n"
        "    print('kept:', remarks())\n"
        "os.write(2, b'afterwards')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "kept: from C++\n"
    assert done.stderr == "from kzoo\nafterwards"


def test_a_process_that_c_ends_still_says_where(tmp_path):
    code = (
        "import os, signal\nfrom kzoo.recipes.commands.quiet import own_terminal\n"
        "with own_terminal():\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert "Segmentation fault" in done.stderr
