"""--keep-float reaches kzoo.quantize, is refused where it means nothing, and resumes older runs."""

import argparse
import json
from pathlib import Path

import keras
import numpy as np
import pytest

import kzoo
from kzoo.recipes.configs.image_labels import ClassifyConfig
from kzoo.recipes.options import add_flags, from_flags
from kzoo.recipes.training.run_folder import open_run
from kzoo.tflite.convert.converter import lower
from kzoo.tflite.convert.request import Request, requested


class Reached(Exception):
    """Carries what quantize was called with."""


def test_convert_hands_the_names_to_quantize(monkeypatch):
    pytest.importorskip("tensorflow")

    def quantize(model, **options):
        raise Reached(options)

    monkeypatch.setattr(kzoo, "quantize", quantize)
    image = keras.Input((8, 8, 3))
    net = keras.Model(image, keras.layers.Conv2D(2, 1, name="stem")(image))
    request = requested(Path("a.tflite"), "cpu", keep_float=("stem",))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), "uint8")
    with pytest.raises(Reached) as caught:
        lower(net, request, pixels, lambda step: None)
    assert caught.value.args[0]["keep_float"] == ("stem",)


def test_where_it_means_nothing():
    with pytest.raises(ValueError, match=r'keep_float is for scheme="int8".*scheme=\'float32\''):
        Request(Path("a.tflite"), "float32", None, None, None, keep_float=("stem",))
    with pytest.raises(ValueError, match=r"keep_float works only with qat_engine='kzoo'"):
        ClassifyConfig(data="x", qat_engine="tfmot", keep_float=("stem",))


def test_a_run_of_before_goes_on(tmp_path):
    """config.json of runs that were begun without the option does not hold it."""
    config = ClassifyConfig(data=str(tmp_path), out=str(tmp_path / "run"))
    folder = open_run(config, ("a", "b"))
    settings = json.loads((folder / "config.json").read_text())
    assert settings.pop("keep_float") == []
    (folder / "config.json").write_text(json.dumps(settings))
    assert open_run(config, ("a", "b")) == folder
    (folder / "config.json").write_text(json.dumps(settings))
    other = ClassifyConfig(data=str(tmp_path), out=str(tmp_path / "run"), keep_float=("stem",))
    with pytest.raises(ValueError, match=r"keep_float=\[\], not \['stem'\]"):
        open_run(other, ("a", "b"))


def test_the_flag_takes_several_names():
    parser = argparse.ArgumentParser()
    add_flags(parser, ClassifyConfig)
    given = parser.parse_args(["photos", "--keep-float", "stem", "row1_depthwise", "--epochs", "3"])
    config = ClassifyConfig(**from_flags(ClassifyConfig, given))
    assert config.keep_float == ("stem", "row1_depthwise")
    assert (config.data, config.epochs, config.patience) == ("photos", 3, 10)
