"""Files and folders that appear whole or not at all."""

import json
from pathlib import Path

import pytest

from kzoo.files import UniqueNames, replacing, replacing_folder, write_json


class StoppedError(Exception):
    pass


def stop(_):
    raise StoppedError


def test_a_file_that_was_not_finished_leaves_what_was_there(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("before")
    with pytest.raises(StoppedError), replacing(file) as part:
        stop(part.write_text("half"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert file.read_text() == "before"


def test_a_folder_has_its_name_when_all_is_in_it(tmp_path):
    folder = tmp_path / "deep" / "kept"
    with pytest.raises(StoppedError), replacing_folder(folder) as part:
        stop((part / "half").touch())
    assert list(folder.parent.iterdir()) == []
    (folder.parent / ".part-kept").mkdir()  # of a process that was killed
    (folder.parent / ".part-kept" / "half").touch()
    with replacing_folder(folder) as part:
        (part / "whole").touch()
        assert not folder.exists()
    assert [p.name for p in folder.parent.iterdir()] == ["kept"]
    assert [p.name for p in folder.iterdir()] == ["whole"]


def test_json_of_paths_and_letters(tmp_path):
    write_json(tmp_path / "a.json", {"folder": Path("runs/ä")})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "ä" in text
    assert json.loads(text) == {"folder": "runs/ä"}


def test_names_of_files_of_one_stem_are_told_apart():
    names = UniqueNames()
    files = [Path("x/a.jpg"), Path("y/a.png"), Path("x/a.jpg"), Path("z/b.jpg")]
    assert [names(file) for file in files] == ["a", "a-2", "a", "b"]
