"""Files and folders that appear whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kzoo.files import (
    UniqueNames,
    fcntl,
    finite,
    locked,
    remove_parts,
    replacing,
    replacing_folder,
    write_json,
)


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


def test_numbers_that_json_has_not_are_null(tmp_path):
    found = {"a": [np.nan, 1.5], "b": {"c": (np.float32(0.5), np.inf)}, "d": Path("x")}
    write_json(tmp_path / "a.json", finite(found))

    def refuse(word):
        raise AssertionError(word)

    kept = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert kept == {"a": [None, 1.5], "b": {"c": [0.5, None]}, "d": "x"}


def test_names_of_files_of_one_stem_are_told_apart():
    names = UniqueNames()
    files = [Path("x/a.jpg"), Path("y/a.png"), Path("x/a.jpg"), Path("z/b.jpg")]
    assert [names(file) for file in files] == ["a", "a-2", "a", "b"]


@pytest.mark.parametrize("name", ["a" * 255, "ö" * 127, "a" * 248 + ".keras"])
def test_the_longest_names_that_a_disk_takes(name, tmp_path):
    with replacing(tmp_path / name) as part:
        assert part.suffix == Path(name).suffix  # Keras and matplotlib go by it
        part.write_text("x")
    with replacing_folder(tmp_path / "in" / name) as folder:
        (folder / "a").touch()
    assert [p.name for p in (tmp_path / "in").iterdir()] == [name]


def test_a_name_that_is_no_utf_8_is_written_and_read_back(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")  # of a disk written in Latin-1
    write_json(tmp_path / "a.json", {"path": name})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"path": name}


@pytest.mark.skipif(fcntl is None, reason="this system has no locks of this kind")
def test_one_process_at_a_time(tmp_path):
    lock = tmp_path / ".lock"
    code = (
        "import sys; from pathlib import Path; from kzoo.files import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    start = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="somebody is"), locked(lock, busy="somebody is"):
            pass
        other.kill()  # -9: it has no time to give the lock back
        other.wait()
        assert lock.exists()
        with locked(lock, busy="somebody is"):
            pass
    assert not lock.exists()


def test_what_killed_processes_left_is_cleared_away(tmp_path):
    (tmp_path / ".part-17-model.keras").touch()
    (tmp_path / ".part-whole-0001").mkdir()
    (tmp_path / ".part-whole-0001" / "model.keras").touch()
    (tmp_path / "model.keras").touch()
    remove_parts(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.keras"]


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    none = tmp_path / "none"
    with pytest.raises(FileNotFoundError, match=r"no folder '.*none' to write a.json into"):
        write_json(none / "a.json", {})
    with pytest.raises(IsADirectoryError, match=r"name a file in it"), replacing(tmp_path):
        raise AssertionError("nothing is made that cannot be put there")
    assert not list(tmp_path.parent.glob(".part-*"))
