"""The README says what is true: its example runs, its commands exist."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import kzoo
from kzoo.recipes.cli import COMMANDS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def example(word: str) -> str:
    """The one that says `word`."""
    (code,) = (x for x in re.findall(r"```python\n(.*?)```", README, re.S) if word in x)
    return code


@pytest.mark.slow
def test_the_example_trains():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 128, 128, 3)).astype("float32")
    names = {"images": images, "labels": rng.integers(0, 3, 8)}
    exec(example("model.fit("), names)
    trained = names["model"].history.history["loss"]
    assert np.isfinite(trained).all()
    frozen = names["backbone"].get_layer("row0_conv_bn").moving_mean
    assert not np.any(frozen)  # a frozen backbone keeps its statistics


@pytest.mark.slow
def test_the_heads_train():
    rng = np.random.default_rng(0)
    names = {
        "kzoo": kzoo,
        "images": rng.integers(0, 256, (2, 320, 320, 3)).astype("float32"),
        "boxes": np.float32([[[0.1, 0.2, 0.5, 0.6]], [[0, 0, 0, 0]]]),
        "labels": np.int32([[3], [-1]]),
    }
    exec(example("kzoo.SSDLite("), names)
    assert np.isfinite(names["detector"].history.history["loss"]).all()
    assert names["segmenter"].output_shape == (None, 256, 256, 2)


@pytest.mark.slow
def test_a_model_becomes_int8_and_is_taught(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("float32")
    model = kzoo.MobileNetV2(0.35, input_shape=(32, 32, 3), classes=3)
    names = {"keras": keras, "kzoo": kzoo, "model": model, "images": images}
    exec(example("kzoo.quantize("), names)
    assert (tmp_path / "model.tflite").exists()
    assert np.isfinite(names["taught"].history.history["loss"]).all()


def test_the_table_lists_every_command():
    rows = "\n".join(line for line in README.splitlines() if line.startswith("| `kzoo"))
    assert set(re.findall(r"`kzoo (\w+)", rows)) == set(COMMANDS)
