"""Published weight files from servers on loopback: good ones, and all kinds of trouble."""

import dataclasses
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_weights import save_safetensors

from kzoo.weights import download
from kzoo.weights.download import fetch, find
from kzoo.weights.published import PUBLISHED, PublishedWeights

BODY = np.random.default_rng(0).bytes(1_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; what else it does is in `cuts`, `failures`, `moves`, `delay_s`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.moves: dict[str, tuple[str, str]] = {}  # path: where to, the SHA-256 told
        self.failures: list[int] = []  # status of the next answers
        self.cuts: list[int] = []  # how many bytes of the next answers come
        self.delay_s = 0.0  # before every 100 kB
        self.asked: list[tuple[str, str]] = []  # path, Range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        if self.server.failures:
            return self.answer(self.server.failures.pop(0))
        if self.path in self.server.moves:
            where, told = self.server.moves[self.path]
            return self.answer(302, {"Location": where, "X-Linked-Etag": f'"{told}"'})
        body = self.server.files.get(self.path.removeprefix("http://weights.invalid"))
        if body is None:
            return self.answer(404)
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if start >= len(body):
            return self.answer(416)
        status = 206 if "Range" in self.headers else 200
        return self.answer(status, {"ETag": '"1"'}, body[start:])

    def answer(self, status: int, headers: dict | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        body = body[: self.server.cuts.pop(0)] if body and self.server.cuts else body
        try:
            for start in range(0, len(body), 100_000):
                time.sleep(self.server.delay_s)
                self.wfile.write(body[start : start + 100_000])
        except BrokenPipeError:  # who asked has waited long enough
            pass

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(monkeypatch, tmp_path) -> Iterator[Server]:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("KZOO_WEIGHTS", raising=False)
    monkeypatch.setattr(download, "WAITS_S", (0.0, 0.0))
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        server.files["/net.bin"] = BODY
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def row(server) -> PublishedWeights:
    """A file whose SHA-256 is known."""
    return dataclasses.replace(
        PUBLISHED[0], url=f"{server.url}/net.bin", file="net.bin", digest=f"sha256:{SHA256[:8]}"
    )


@pytest.fixture
def unknown(server, row, tmp_path) -> PublishedWeights:
    """A readable file whose SHA-256 is not known."""
    arrays = {"conv_stem.weight": np.zeros((8, 3, 3, 3), "float32")}
    parts = ("weight", "bias", "running_mean", "running_var")
    arrays |= {f"bn1.{part}": np.ones(8, "float32") for part in parts}
    save_safetensors(arrays, tmp_path / "net.safetensors")
    server.files["/net.safetensors"] = (tmp_path / "net.safetensors").read_bytes()
    url = f"{server.url}/net.safetensors"
    return dataclasses.replace(row, url=url, file="net.safetensors", digest=None)


def in_cache() -> list[str]:
    folder = download.cache_folder()
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_file_is_fetched_once(server, row):
    assert find(row) is None
    path = fetch(row)
    assert path == find(row) == download.cache_folder() / "net.bin"
    assert path.read_bytes() == BODY
    assert fetch(row) == path
    assert len(server.asked) == 1
    assert in_cache() == ["net.bin"]


def test_a_damaged_file_is_fetched_again(server, row):
    fetch(row).write_bytes(b"half")
    assert find(row) is None
    assert fetch(row).read_bytes() == BODY


def test_a_broken_connection_is_taken_up_again(server, row):
    server.cuts = [300_000, 200_000]
    assert fetch(row).read_bytes() == BODY
    assert [given for _, given in server.asked] == ["", "bytes=300000-", "bytes=500000-"]


def test_what_a_killed_program_left_is_gone_on_with(server, row):
    server.cuts = [1000, 1000, 1000]
    with pytest.raises(ConnectionError, match="ended early, after 3 tries"):
        fetch(row)
    assert in_cache() == ["net.bin.part"]
    assert fetch(row).read_bytes() == BODY
    assert server.asked[-1][1] == "bytes=3000-"


def test_a_part_of_another_file_is_not_gone_on_with_for_ever(server, row):
    folder = download.cache_folder()
    folder.mkdir(parents=True)
    for size in (500, 2_000_000):  # as long as a part, and longer than the file
        (folder / "net.bin.part").write_bytes(bytes(size))
        assert fetch(row).read_bytes() == BODY
        (folder / "net.bin").unlink()


def test_another_file(server, row):
    server.files["/net.bin"] = BODY[:-4] + b"damn"
    with pytest.raises(
        ValueError, match=rf"what came is not the file: its sha256 is .*{SHA256[:8]}"
    ):
        fetch(row)
    assert in_cache() == []


def test_trouble_of_the_server_that_passes(server, row):
    server.failures = [503, 500]
    assert fetch(row).read_bytes() == BODY


@pytest.mark.parametrize("status", [403, 404])
def test_what_cannot_be_had_says_what_to_do(server, row, status):
    server.failures = [status]
    with pytest.raises(ConnectionError) as caught:
        fetch(row)
    message = str(caught.value)
    for part in (
        f"HTTP {status}", f"Download {row.url} by other means",
        f"put the file into {download.cache_folder()}", "KZOO_WEIGHTS", "weights=None",
        "--weights none",
    ):  # fmt: skip
        assert part in message
    assert message.count("http://") == 1
    assert len(server.asked) == 1  # asking again would not help
    assert in_cache() == []


def test_a_redirect_loop(server, row):
    server.moves["/net.bin"] = (row.url, "")
    with pytest.raises(ConnectionError, match=r"HTTP 302.*infinite loop"):
        fetch(row)


def test_a_slow_server_and_one_that_stalls(server, row, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.3)
    server.delay_s = 0.05
    assert fetch(row).read_bytes() == BODY
    find(row).unlink()
    server.delay_s = 0.6
    with pytest.raises(ConnectionError, match="timed out, after 3 tries"):
        fetch(row)


def test_nobody_answers(server, row, monkeypatch):
    row = dataclasses.replace(row, url="http://127.0.0.1:9/net.bin")
    with pytest.raises(ConnectionError, match="refused"):
        fetch(row)


def test_no_network_is_told_at_once(row, monkeypatch):
    """Without a name server no further try helps: a person without network does not wait."""
    monkeypatch.setattr(download, "WAITS_S", (60.0,))
    row = dataclasses.replace(row, url="http://weights.invalid/net.bin")
    with pytest.raises(ConnectionError, match=r"\(no address of weights.invalid: .*\)"):
        fetch(row)


def test_the_proxy_of_the_environment(server, row, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    row = dataclasses.replace(row, url="http://weights.invalid/net.bin")
    assert fetch(row).read_bytes() == BODY
    assert server.asked == [("http://weights.invalid/net.bin", "")]


# KZOO_WEIGHTS


def test_a_folder_of_files_is_looked_at_first(server, row, tmp_path, monkeypatch):
    monkeypatch.setenv("KZOO_WEIGHTS", str(tmp_path / "mirror"))
    (tmp_path / "mirror").mkdir()
    assert fetch(row).parent == download.cache_folder()  # not in the folder: from the network
    copy = tmp_path / "mirror" / "net.bin"
    copy.write_bytes(BODY)
    assert fetch(row) == copy
    copy.write_bytes(b"damaged")
    assert fetch(row).parent == download.cache_folder()


def test_a_folder_that_is_not_there_is_told(server, row, tmp_path, monkeypatch):
    monkeypatch.setenv("KZOO_WEIGHTS", str(tmp_path / "mirorr"))
    with pytest.raises(ValueError, match=r"KZOO_WEIGHTS must name a folder or .*mirorr'.*Create"):
        fetch(row)
    assert server.asked == []


def test_a_mirror_on_the_network(server, row, monkeypatch):
    monkeypatch.setenv("KZOO_WEIGHTS", f"{server.url}/mirror/")
    server.files = {"/mirror/net.bin": BODY}
    assert fetch(row).read_bytes() == BODY
    assert server.asked == [("/mirror/net.bin", "")]


def test_all_that_was_tried_is_told(server, row, tmp_path, monkeypatch):
    server.failures = [404]
    monkeypatch.setenv("KZOO_WEIGHTS", str(tmp_path))
    (tmp_path / "net.bin").write_bytes(b"damaged")
    with pytest.raises(ConnectionError, match=r"net.bin: its sha256 is .*KZOO_WEIGHTS.*; HTTP 404"):
        fetch(row)


def test_another_folder_is_filled(server, row, tmp_path):
    assert fetch(row, tmp_path / "mirror") == tmp_path / "mirror" / "net.bin"
    assert in_cache() == []
    fetch(row)
    server.files.clear()
    copy = fetch(row, tmp_path / "other")  # of the cache's
    assert copy.parent == tmp_path / "other"
    assert copy.read_bytes() == BODY


# Files of which no hash is known


def test_a_file_is_pinned_at_first_use(server, unknown):
    path = fetch(unknown)
    assert in_cache() == ["net.safetensors", "net.safetensors.sha256"]
    path.unlink()
    assert fetch(unknown) == path  # the same again
    path.unlink()
    server.files["/net.safetensors"] = server.files["/net.safetensors"][:-4] + b"\0\0\0@"
    with pytest.raises(ValueError, match="as it was pinned at first use"):
        fetch(unknown)
    assert in_cache() == ["net.safetensors.sha256"]


def test_a_file_that_cannot_be_read(server, unknown):
    server.files["/net.safetensors"] = server.files["/net.safetensors"][:500]
    with pytest.raises(ValueError, match="what came is not the file"):
        fetch(unknown)
    assert in_cache() == []


@pytest.mark.parametrize("right", [True, False])
def test_the_hub_tells_the_hash(server, unknown, right):
    body = server.files["/net.safetensors"]
    told = hashlib.sha256(body if right else BODY).hexdigest()
    server.moves["/hub"] = (f"{server.url}/net.safetensors", told)
    row = dataclasses.replace(unknown, url=f"{server.url}/hub")
    if right:
        assert fetch(row).read_bytes() == body
        return
    with pytest.raises(ValueError, match=f"its sha256 is .*, not {told}"):
        fetch(row)


# This machine


def test_two_at_once_fetch_once(server, row):
    server.delay_s = 0.03
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(fetch(row))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4
    assert len(server.asked) == 1
    assert in_cache() == ["net.bin"]


@pytest.mark.slow
def test_two_processes_at_once_fetch_once(server, row, tmp_path):
    code = (
        "import dataclasses, kzoo.weights.download as d; from kzoo.weights.published import *;"
        f"row = dataclasses.replace(PUBLISHED[0], url={row.url!r}, file='net.bin', "
        f"digest={row.digest!r});"
        "import pathlib, time, os;"
        f"pathlib.Path({str(tmp_path)!r}, f'ready{{os.getpid()}}').touch();"
        f"wait = lambda: len(list(pathlib.Path({str(tmp_path)!r}).glob('ready*'))) < 2\n"
        "while wait(): time.sleep(0.01)\n"
        "print(d.fetch(row))"
    )
    server.delay_s = 0.05
    start = [sys.executable, "-c", code]
    running = [subprocess.Popen(start, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0].strip() for process in running]
    assert outputs == [str(download.cache_folder() / "net.bin")] * 2
    assert len(server.asked) == 1


def test_a_cache_that_cannot_be_written(server, row, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot be written.*Set KERAS_HOME to.*KZOO_WEIGHTS"):
        fetch(row)


def test_a_read_only_cache_is_read(server, row):
    path = fetch(row)
    path.parent.chmod(0o555)
    try:
        assert fetch(row) == path
    finally:
        path.parent.chmod(0o755)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(server, row):
    folder = download.cache_folder()
    folder.mkdir(parents=True)
    (folder / "net.bin.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot be written: .*No space left"):
        fetch(row)
    assert in_cache() == []


def test_progress_is_told(server, row):
    seen = []
    fetch(row, progress=lambda *given: seen.append(given))
    assert seen[-1] == ("net.bin", 1_000_000, 1_000_000)
