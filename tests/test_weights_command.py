"""`kzoo weights`: published files listed, fetched, checked and found."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from kzoo.recipes.cli import main
from kzoo.recipes.commands.about import weights
from kzoo.weights import download
from kzoo.weights.published import PUBLISHED, PublishedWeights

BODY = b"the weights"


@pytest.fixture
def row(monkeypatch, tmp_path) -> PublishedWeights:
    """The only published file; it lies in the folder in KZOO_WEIGHTS, and there is no network."""
    digest = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
    row = dataclasses.replace(PUBLISHED[0], file="net.bin", digest=digest)
    monkeypatch.setattr(weights, "PUBLISHED", (row,))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("KZOO_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(download, "WAITS_S", ())
    (tmp_path / "net.bin").write_bytes(BODY)
    return row


def test_list(capsys):
    assert main(["weights"]) == 0
    table = capsys.readouterr().out
    assert table.count("\n") > len(PUBLISHED)
    assert "imagenet:timm-e2400_r224" in table
    assert main(["weights", "list", "--task", "detect", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["head"], found["license"]) == ("coco", "ssdlite", "BSD-3-Clause")
    assert found["url"].endswith("ssdlite320_mobilenet_v3_large_coco-a79551df.pth")


def test_get_fills_a_folder(row, tmp_path, capsys):
    assert main(["weights", "get", "all", "--to", str(tmp_path / "stick")]) == 0
    assert "net.bin  (here)" in capsys.readouterr().out
    assert (tmp_path / "stick" / "net.bin").read_bytes() == BODY


def test_path_and_verify(row, tmp_path, capsys):
    assert main(["weights", "path", "net.bin"]) == 0
    assert Path(capsys.readouterr().out.strip()) == tmp_path / "net.bin"
    assert main(["weights", "verify"]) == 0
    (tmp_path / "net.bin").write_bytes(b"damaged")
    assert main(["weights", "verify", "--json"]) == 1
    assert "net.bin: its sha256 is" in capsys.readouterr().err
    (tmp_path / "net.bin").unlink()
    assert main(["weights", "path", "net.bin"]) == 1
    missing = "Not on this machine: net.bin. Fetch: kzoo weights get net.bin"
    assert missing in capsys.readouterr().err
    assert main(["weights", "verify"]) == 0
    assert "None of them is on this machine" in capsys.readouterr().out
    assert main(["weights", "--task", "segment"]) == 0
    assert "There are none." in capsys.readouterr().out


def test_get_offline(row, tmp_path, capsys):
    (tmp_path / "net.bin").unlink()
    assert main(["weights", "get", "mobilenet_v1"]) == 1
    error = capsys.readouterr().err
    assert f"kzoo: The weights {row} could not be downloaded (" in error
    assert "--weights none" in error


def test_get_goes_on_after_a_file_that_cannot_be_had(row, tmp_path, monkeypatch, capsys):
    other = dataclasses.replace(row, file="other.bin", url="https://weights.invalid/other.bin")
    monkeypatch.setattr(weights, "PUBLISHED", (other, row))
    assert main(["weights", "get", "all", "--to", str(tmp_path / "stick")]) == 1
    assert "1 of 2 files could not be downloaded: other.bin. " in capsys.readouterr().err
    assert (tmp_path / "stick" / "net.bin").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fetch"], "kzoo weights has no 'fetch': it has list, get, verify, path"),
        (
            ["get", "mobilenet_v3_larg"],
            "Did you mean 'mobilenet_v3_large'? kzoo weights lists them.",
        ),
        (["get"], "Say what to download"),
        (["--task", "pose"], "task must be one of classify, detect, segment"),
    ],
)
def test_wrong_usage(words, message, capsys):
    assert main(["weights", *words]) == 1
    assert message in capsys.readouterr().err
