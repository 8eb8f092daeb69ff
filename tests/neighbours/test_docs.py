"""The examples of docs/neighbours.md run, at 64 px."""

import importlib.util
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from qat_nets import images, randomized

import kzoo

PAGE = (Path(__file__).parents[2] / "docs" / "neighbours.md").read_text(encoding="utf-8")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


def example(word: str) -> str:
    """The one that imports `word`, with smaller images."""
    (code,) = (x for x in re.findall(r"```python\n(.*?)```", PAGE, re.S) if f"import {word}\n" in x)
    return code.replace("512", "64")


def test_tfmots_example(tmp_path, monkeypatch):
    if importlib.util.find_spec("tensorflow_model_optimization") is None:
        pytest.skip("tfmot comes with its extra")  # not imported here: keras-cv comes after
    monkeypatch.chdir(tmp_path)
    net = randomized(kzoo.MobileNetV1(0.25, input_shape=(64, 64, 3), classes=5))
    before = keras.ops.convert_to_numpy(net.get_layer("head_logits").kernel)
    names = {"model": net, "images": images(16).astype("float32"), "labels": np.arange(16) % 5}
    exec(example("tf_keras"), names)
    assert (tmp_path / "model.tflite").is_file()
    assert not np.array_equal(net.get_layer("head_logits").kernel, before)


@pytest.mark.parametrize("neighbour", ["keras_cv", "keras_hub"])
def test_the_detectors_examples(neighbour, tmp_path, monkeypatch):
    pytest.importorskip(neighbour, reason=f"{neighbour} comes with its extra")
    monkeypatch.chdir(tmp_path)
    names = {
        "kzoo": kzoo,
        "net": kzoo.MobileNetV3Small(0.35, input_shape=(64, 64, 3), include_top=False),
        "images": images(2).astype("float32"),
        "boxes": np.float32([[[0.1, 0.2, 0.5, 0.6]], [[0, 0, 0, 0]]]),
        "labels": np.int32([[2], [-1]]),
    }
    exec(example(neighbour), names)
    assert np.isfinite(names["model"].history.history["loss"]).all()
