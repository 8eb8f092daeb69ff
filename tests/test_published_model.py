"""Published nets by name, predicted with and converted without a run."""

import dataclasses
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from golden import torchvision_ssdlite
from PIL import Image
from test_published import V2_NAME, golden_weights, nowhere, row_of_file  # noqa: F401
from test_weights import save_keras_2, settled

import kzoo
from kzoo.recipes.cli import main
from kzoo.recipes.commands.files import convert
from kzoo.recipes.programs import published_model as program
from kzoo.recipes.programs.published_model import cropped, image_reader, published_model
from kzoo.weights.published import PUBLISHED


@pytest.fixture
def here(nowhere, tmp_path, monkeypatch) -> Path:  # noqa: F811
    """A folder to run in, with a photo, and V2 0.35 at 96 px as published."""
    net = settled(keras.applications.MobileNetV2((96, 96, 3), 0.35, weights=None))
    save_keras_2(net, nowhere / V2_NAME)
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    return tmp_path


def test_predict_by_a_name(here, capsys):
    file = published_model("mobilenet_v2", alpha=0.35, size=96)
    assert file == Path("runs/mobilenet_v2_0.35_imagenet-keras_96/model.keras")
    (here / "mirror" / V2_NAME).unlink()  # what is made once needs no network
    assert published_model("mobilenet_v2", alpha=0.35, size=96) == file
    assert main(["predict", str(file), "photo.png"]) == 0
    line = capsys.readouterr().out.splitlines()[1].removeprefix("photo.png: ")
    assert any(line.startswith(f"{label} ") for label in kzoo.labels("imagenet"))


def test_a_name_that_cannot_be_had(here, capsys):
    assert main(["predict", "mobilenet_v3_small", "photo.png"]) == 1
    assert re.search(r"could not be downloaded \(.*--weights FILE", capsys.readouterr().err)
    assert not Path("runs").exists()
    assert main(["predict", "mobilenet_v9", "photo.png"]) == 1
    assert "There is no mobilenet_v9" in capsys.readouterr().err


def test_a_detector_by_its_name(nowhere, here, monkeypatch):  # noqa: F811
    known = tuple(f"class{i}" for i in range(torchvision_ssdlite.CLASSES))
    row_of_file("ssdlite", nowhere, monkeypatch, known)
    golden = Path(torchvision_ssdlite.__file__).with_suffix(".npz")
    golden_weights(golden, "", nowhere / "ssdlite320_mobilenet_v3_large_coco-a79551df.pth")
    file = published_model("ssdlite320", size=96)
    assert len(file.with_name("labels.txt").read_text().splitlines()) == 90
    model = keras.saving.load_model(file, compile=False)
    assert model.classes == 90
    assert json.loads(file.with_name("weights.json").read_text())["name"] == "coco"


def test_names_of_heads_are_those_of_the_command():
    assert tuple(program.HEADS) == convert.HEADS
    assert {(head, weights) for head, weights, _ in program.HEADS.values()} == {
        (row.head, row.name) for row in PUBLISHED if row.head
    }


def test_images_are_resized_as_the_weights_were_measured(tmp_path):
    """A white middle of 3/4 of the shorter side, which crop_pct = 3/4 leaves alone."""
    pixels = np.zeros((64, 96, 3), "uint8")
    pixels[8:56, 24:72] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    row = dataclasses.replace(PUBLISHED[-1], crop_pct=0.75, interpolation="bicubic")
    assert cropped(Image.fromarray(pixels), 48, row).min() == 255  # at its own size
    (tmp_path / "weights.json").write_text(json.dumps(dataclasses.asdict(row)))
    found = image_reader(tmp_path / "model.keras")(tmp_path / "photo.png", 24)[0]
    assert found.shape == (24, 24, 3)
    assert found[2:-2, 2:-2].min() == 255
    stretched = image_reader(tmp_path / "other" / "model.keras")(tmp_path / "photo.png", 24)[0]
    assert stretched.min() == 0


@pytest.mark.parametrize("crop_pct", [224 / 256, 224 / 232, 0.875, 0.95])
def test_the_crop_lies_within_the_image(crop_pct):
    row = dataclasses.replace(PUBLISHED[-1], crop_pct=crop_pct, interpolation="bilinear")
    white = Image.new("RGB", (301, 500), "white")
    found = cropped(white, 224, row)
    assert found.shape == (224, 224, 3)
    assert found.min() == 255  # Pillow fills what lies outside with black


@pytest.mark.slow
def test_convert_by_a_name(here, capsys):
    words = ["mobilenet_v2", "v2.tflite", "--alpha", "0.35", "--size", "96", "--calibration", "."]
    assert main(["convert", *words, "--agreement", "0"]) == 0
    assert Path("v2.tflite").exists()
