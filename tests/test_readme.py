"""The README says what is true: its example runs, its commands exist."""

import re
from pathlib import Path

import numpy as np
import pytest

from kzoo.recipes.cli import COMMANDS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_trains():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (8, 128, 128, 3)).astype("float32")
    names = {"pictures": pictures, "labels": rng.integers(0, 3, 8)}
    (example,) = (
        code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "fit" in code
    )
    exec(example, names)
    trained = names["model"].history.history["loss"]
    assert np.isfinite(trained).all()
    frozen = names["backbone"].get_layer("row0_conv_bn").moving_mean
    assert not np.any(frozen)  # a frozen backbone keeps its statistics


def test_the_table_lists_every_command():
    assert set(re.findall(r"^\| `kzoo (\w+)", README, re.M)) == set(COMMANDS)
