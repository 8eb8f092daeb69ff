"""Test images that lie elsewhere, and any model file measured on any labelled images."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from data_sets import LAYOUTS, SCENE, image, text
from PIL import Image

from kzoo.recipes.cli import main
from kzoo.recipes.configs.image_labels import ClassifyConfig
from kzoo.recipes.configs.segment import SegmentConfig
from kzoo.recipes.data import read_boxes, read_dataset, read_masks
from kzoo.recipes.programs.evaluate import evaluate_on
from kzoo.recipes.task import get_task

COLOURS = {"blue": (20, 20, 230), "green": (20, 230, 20), "red": (230, 20, 20)}


def photos(folder: Path, counts: dict[str, int], start: int = 0) -> Path:
    for kind, count in counts.items():
        for i in range(start, start + count):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            colour = tuple(min(255, value + i) for value in COLOURS.get(kind, (9, 9, 9)))
            Image.new("RGB", (16, 16), colour).save(folder / kind / f"{i}.png")
    return folder


@pytest.fixture
def model(tmp_path) -> Path:
    """A net that says which of an image's channels is the brightest."""
    pixels = keras.Input((16, 16, 3))
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pixels))
    dense = keras.layers.Dense(3, activation="softmax", name="predictions")
    net = keras.Model(pixels, dense(mean))
    dense.set_weights([np.eye(3)[::-1], np.zeros(3)])  # red is the last of the labels
    net.save(tmp_path / "net.keras")
    text(tmp_path / "labels.txt", "blue\ngreen\nred\n")
    return tmp_path / "net.keras"


def test_a_file_is_measured_on_labelled_images(model, tmp_path, capsys):
    """Of five images one is labelled wrong, and those of another class do not count."""
    data = photos(tmp_path / "data", {"red": 2, "green": 1, "grey": 2})
    photos(tmp_path / "other", {"red": 1}, start=5)
    (tmp_path / "data" / "blue").mkdir()
    (tmp_path / "other" / "red" / "5.png").rename(tmp_path / "data" / "blue" / "5.png")
    found = evaluate_on(model, data)
    assert found.images == 4
    (score,) = found.scores.values()
    np.testing.assert_array_equal(score.confusion, [[0, 0, 1], [0, 1, 0], [0, 0, 2]])
    assert "class 'grey' is none of the model's: left out" in str(found)
    assert "net.keras: accuracy 75.0%" in str(found)
    assert main(["evaluate", str(model), str(data), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["task"], told["images"]) == ("classify", 4)
    assert told["figures"]["net.keras"]["accuracy"] == 0.75


def test_images_that_a_run_was_trained_on_are_counted(model, tmp_path):
    """A figure on them says nothing of new images, and `kzoo evaluate RUN ITS_DATA` is easy."""
    data = photos(tmp_path / "data", {"red": 5, "green": 5, "blue": 5})
    config = {"task": "classify", "data": str(data), "val_fraction": 0.2, "seed": 0}
    text(tmp_path / "config.json", json.dumps(config))
    found = evaluate_on(model, data)
    assert (found.images, found.trained_on) == (15, 12)
    assert "The run was trained on 12 of these images" in str(found)
    other = photos(tmp_path / "other", {"red": 1})
    assert evaluate_on(model, other).trained_on == 0
    photos(data / "test", {"red": 1, "green": 1, "blue": 1}, start=9)
    for kind in ("red", "green", "blue"):
        (data / "train").mkdir(exist_ok=True)
        (data / kind).rename(data / "train" / kind)
    assert evaluate_on(model, data).trained_on == 0


def test_where_a_test_split_is_given_it_alone_is_measured(model, tmp_path):
    photos(tmp_path / "data" / "train", {"red": 4, "blue": 4})
    photos(tmp_path / "data" / "test", {"red": 1, "blue": 2}, start=8)
    assert evaluate_on(model, tmp_path / "data").images == 3


def test_a_model_without_names_and_data_without_its_classes(model, tmp_path):
    data = photos(tmp_path / "data", {"grey": 2, "black": 2})
    with pytest.raises(ValueError, match="holds no image of blue, green, red to test on"):
        evaluate_on(model, data)
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(ValueError, match=r"net\.keras names no classes: write them into .*labels"):
        evaluate_on(model, data)
    with pytest.raises(ValueError, match="There is no model"):
        evaluate_on(tmp_path / "none.keras", data)


def test_test_images_of_elsewhere_in_every_task(tmp_path):
    """They are measured alone, and none of them is trained on."""
    photos(tmp_path / "photos", {"red": 6, "blue": 6})
    test = photos(tmp_path / "later", {"red": 2}, start=9)
    dataset = read_dataset(tmp_path / "photos", test=test)
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [10, 2, 2]
    assert dataset.test.targets.tolist() == [1, 1]
    with pytest.raises(ValueError, match="test holds all training"):
        read_dataset(tmp_path / "photos", test=tmp_path / "photos")

    scene = {"x/p": SCENE["train/a"], "x/q": [("emu", (1, 1, 9, 9)), ("cat", (1, 1, 20, 20))]}
    boxes = read_boxes(
        LAYOUTS["yolo"](tmp_path / "yolo"), test=LAYOUTS["coco"](tmp_path / "coco", scene)
    )
    assert {e.path.stem: e.labels.tolist() for e in boxes.test} == {"p": [0, 1], "q": [0]}
    assert "objects of unknown class 'emu': left out" in "\n".join(map(str, boxes.issues))

    for folder, count in (("masks", 6), ("more", 2)):
        for i in range(count):
            image(tmp_path / folder / "images" / f"{i}.png")
            (tmp_path / folder / "masks").mkdir(exist_ok=True)
            ids = np.zeros((48, 64), "uint8")
            ids[: 9 + i] = 255
            Image.fromarray(ids).save(tmp_path / folder / "masks" / f"{i}.png")
    masks = read_masks(tmp_path / "masks", test=tmp_path / "more")
    assert [len(masks.train), len(masks.val), len(masks.test)] == [5, 1, 2]
    text(tmp_path / "more" / "labels.txt", "ground\nthing\n")
    with pytest.raises(ValueError, match="names the classes ground, thing, and the model's are"):
        read_masks(tmp_path / "masks", test=tmp_path / "more")


def test_the_commands_hand_them_on(tmp_path):
    photos(tmp_path / "photos", {"red": 6, "blue": 6})
    test = photos(tmp_path / "later", {"red": 2}, start=9)
    config = ClassifyConfig(str(tmp_path / "photos"), test=str(test))
    assert len(get_task("classify").read_dataset(config.data, vars(config)).test) == 2
    assert get_task("segment").read_settings == ("val_fraction", "seed", "damaged", "test", "void")
    assert SegmentConfig("x", void=0).void == 0
