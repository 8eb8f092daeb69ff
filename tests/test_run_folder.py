"""A run's folder: of which settings and images it is, who works in it, what is damaged."""

import json

import numpy as np
import pytest

from kzoo.recipes.classify import Config
from kzoo.recipes.data.box_dataset import Example
from kzoo.recipes.data.masks.coding import Coding
from kzoo.recipes.data.masks.drawn import DrawnMask, Region
from kzoo.recipes.data.masks.files import MaskFile
from kzoo.recipes.data.masks.pairs import Pair
from kzoo.recipes.inputs import read_config
from kzoo.recipes.task import get_task
from kzoo.recipes.training.run_folder import (
    annotations_digest,
    open_run,
    read_labels,
    working_on,
)


def test_a_run_is_of_the_images_that_it_was_begun_on(tmp_path):
    """Features are kept by the image's place: with another one there, they would be another's."""
    files = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")]
    for file in files:
        file.write_bytes(b"image")
    config = Config(str(tmp_path), out=str(tmp_path / "run"))
    for _ in range(2):
        open_run(config, ("x", "y"), files[:2], files[2:])
    for changed in ((files[:1], files[1:]), (files[1::-1], files[2:])):
        with pytest.raises(ValueError, match=r"other images.*another --out"):
            open_run(config, ("x", "y"), *changed)
    files[0].write_bytes(b"another one")
    with pytest.raises(ValueError, match="were added, removed or changed"):
        open_run(config, ("x", "y"), files[:2], files[2:])
    files[0].write_bytes(b"image")
    open_run(config, ("x", "y"), files[:2], files[2:])


def test_a_run_is_of_the_annotations_that_it_was_begun_on(tmp_path):
    """A corrected label would else be learnt from the middle of the run on, or not at all."""
    config = Config(str(tmp_path), out=str(tmp_path / "run"))
    first, second = [[b"0", b"1"], [b"1"]], [[b"0", b"0"], [b"1"]]
    open_run(config, ("x", "y"), targets=first)
    open_run(config, ("x", "y"), targets=first)
    with pytest.raises(ValueError, match=r"on other annotations.*another --out"):
        open_run(config, ("x", "y"), targets=second)
    file = tmp_path / "run" / "config.json"  # of a run that an older version began
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in settings.items() if k != "annotations"}))
    open_run(config, ("x", "y"), targets=second)


@pytest.mark.parametrize("name", ["detect", "segment"])
def test_annotations_that_differ_are_told_apart(tmp_path, name):
    """A box that is moved by a pixel of 100, a region of another class, a mask file edited."""
    task = get_task(name)
    if name == "detect":
        boxes = np.float32([[0.1, 0.1, 0.5, 0.5]]), np.float32([[0.1, 0.1, 0.5, 0.51]])
        splits = [[Example(tmp_path, box, np.array([0]), (9, 9))] for box in boxes]
    else:
        masks = [DrawnMask(tmp_path, (9, 9), (Region(i, 1.0, ([0, 0, 5, 0, 5, 5],)),))
                 for i in (0, 1)]  # fmt: skip
        for i in (0, 1):
            (tmp_path / str(i)).mkdir()
            (tmp_path / str(i) / "a.png").write_bytes(bytes(8 + i))
            masks.append(MaskFile(tmp_path / str(i) / "a.png", Coding()))
        splits = [[Pair(tmp_path, mask)] for mask in masks]
    digests = {annotations_digest([task.targets(split)]) for split in splits}
    assert len(digests) == len(splits)


def test_a_run_may_be_moved_and_named_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    open_run(Config(str(data), out=str(run)), ("x", "y"))
    for other in ("data", "data/", "./data"):
        open_run(Config(other, out="run/"), ("x", "y"))
    run.rename(tmp_path / "moved")
    open_run(Config(str(data), out="moved"), ("x", "y"))
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ValueError, match="with other settings"):
        open_run(Config("elsewhere", out="moved"), ("x", "y"))


def test_a_run_goes_on_where_its_images_were_moved_to(tmp_path):
    """And with no others: they are told by names and sizes."""
    (tmp_path / "data" / "x").mkdir(parents=True)
    (tmp_path / "data" / "x" / "a.jpg").write_bytes(b"image")
    run = str(tmp_path / "run")
    open_run(Config(str(tmp_path / "data"), out=run), ("x", "y"), [tmp_path / "data/x/a.jpg"])
    (tmp_path / "data").rename(tmp_path / "there")
    config = Config(str(tmp_path / "there"), out=run)
    open_run(config, ("x", "y"), [tmp_path / "there/x/a.jpg"])
    assert json.loads((tmp_path / "run/config.json").read_text())["data"].endswith("there")
    (tmp_path / "there").rename(tmp_path / "again")
    (tmp_path / "again/x/a.jpg").write_bytes(b"another image")
    config = Config(str(tmp_path / "again"), out=run)
    with pytest.raises(ValueError, match="a run on other images"):
        open_run(config, ("x", "y"), [tmp_path / "again/x/a.jpg"])


def test_two_runs_in_one_folder(tmp_path):
    config = Config(str(tmp_path), out=str(tmp_path / "run"))
    folder = open_run(config, ("x", "y"))
    (folder / ".part-1-model.keras").touch()
    with working_on(folder):
        assert not list(folder.glob(".part-*"))
        with pytest.raises(ValueError, match=r"Another process is at work in .*another --out"):
            working_on(folder).__enter__()
    with working_on(folder):
        pass
    assert {p.name for p in folder.iterdir()} == {"config.json", "labels.txt"}


@pytest.mark.parametrize("label", ["a\nb", "a\u2028b", "a\x85b", " "])
def test_a_class_that_labels_txt_cannot_hold_is_refused_before_the_training(label, tmp_path):
    config = Config(str(tmp_path), out=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"cannot be a line of labels\.txt: rename it"):
        open_run(config, ("x", label))
    assert not (tmp_path / "run").exists()


def test_labels_of_an_editor_that_marks_its_files(tmp_path):
    (tmp_path / "labels.txt").write_bytes("\ufeffcat\r\ndog\r\n".encode())
    assert read_labels(tmp_path / "labels.txt") == ["cat", "dog"]
    (tmp_path / "labels.txt").write_bytes("Löwe\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels\.txt is not in UTF-8"):
        read_labels(tmp_path / "labels.txt")


def test_labels_with_empty_lines(tmp_path):
    (tmp_path / "labels.txt").write_bytes(b"cat\r\ndog\r\n \r\n")
    assert read_labels(tmp_path / "labels.txt") == ["cat", "dog"]
    (tmp_path / "labels.txt").write_bytes(b"cat\n\ndog\n")
    with pytest.raises(ValueError, match=r"labels.txt, line 2 is empty: each line names a class"):
        read_labels(tmp_path / "labels.txt")


@pytest.mark.parametrize(("text", "reason"), [("{", "is damaged"), ("[]", "not written by kzoo")])
def test_a_config_that_is_damaged_or_another_s(text, reason, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_config(tmp_path)
