"""`fetch`: get a published weight file from a mirror, the cache or the network, and check it.

A file gets its final name only when it is complete and correct. Interrupted downloads resume.
"""

import contextlib
import hashlib
import http.client
import os
import pathlib
import shutil
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from kzoo import files
from kzoo.weights.places import MIRROR, cache_folder, mirror_folder, mirror_url, places
from kzoo.weights.published import PublishedWeights
from kzoo.weights.reading import read_checkpoint

TIMEOUT_S = 30.0  # without receiving data
WAITS_S = (1.0, 4.0)  # before each retry
AGAIN = (408, 429, 500, 502, 503, 504)  # HTTP status codes to retry
CHUNK = 1 << 18
WRONG = "what came is not the file"

Progress = Callable[[str, int, int | None], None]  # (file name, bytes so far, total bytes)


def find(row: PublishedWeights, folder: pathlib.Path | None = None) -> pathlib.Path | None:
    """Return the path of a correct local file, in KZOO_WEIGHTS or the cache; else None."""
    here = places(row, folder)
    return next((file for file in here if file.is_file() and fault(file, row) is None), None)


def fetch(
    row: PublishedWeights, folder: pathlib.Path | None = None, progress: Progress | None = None
) -> pathlib.Path:
    """Return the path of a published file; download it if it is not on this machine.

    Sources, in this order: the folder or URL in KZOO_WEIGHTS, the cache, the row's URL.

    folder: where to store the file, by default the cache; a file in the folder KZOO_WEIGHTS is
        used in place.
    progress: called with (file name, bytes so far, total bytes or None).

    Raises ConnectionError if the download fails, ValueError if the received file is wrong, OSError
    if `folder` cannot be written; each says what to do.
    """
    there = find(row, folder) or find(row)
    if there is not None and folder in (None, there.parent):
        return there
    folder = folder or cache_folder()
    kept = folder / row.file
    tried = [missing_message(place / row.file, row) for place in [mirror_folder()] if place]
    urls = [*(f"{url}/{row.file}" for url in [mirror_url()] if url), row.url]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with fetching(kept) as part:
            if kept.is_file() and fault(kept, row) is None:
                return kept  # fetched by another process meanwhile
            if there is not None:
                shutil.copyfile(there, part)
                return named(part, kept, row)
            for url in urls:
                reason = try_download(url, part, kept, row, progress or show)
                if reason is None:
                    return kept
                tried.append(reason if url == row.url else f"{url}: {reason}")
    except OSError as error:
        if folder.is_dir():
            kept.with_name(f"{row.file}.part").unlink(missing_ok=True)
        raise OSError(
            f"{folder} cannot be written: {error}. Set KERAS_HOME to a folder that can, or put "
            f"{row.file} (from {row.url}) into a folder that {MIRROR} names."
        ) from error
    wrong = any(WRONG in line for line in tried)
    raise (ValueError if wrong else ConnectionError)(failure_message(row, tried, folder))


def try_download(
    url: str, part: pathlib.Path, kept: pathlib.Path, row: PublishedWeights, progress: Progress
) -> str | None:
    """Download a file, check it and rename it; return why that failed, or None."""
    began = part.is_file()  # left by an earlier run, possibly of another file
    for last in (not began, True):
        try:
            sha256 = download(url, part, row, progress)
        except ConnectionError as error:
            return str(error)
        reason = fault(part, row, pin_of(kept), sha256)
        if reason is None:
            named(part, kept, row)
            return None
        part.unlink()
        if last:
            return f"{WRONG}: {reason}"
    raise AssertionError


def failure_message(row: PublishedWeights, tried: list[str], folder: pathlib.Path) -> str:
    """Return the error message for a file that could not be downloaded."""
    return (
        f"The weights {row} could not be downloaded ({'; '.join(tried)}). Download {row.url} by "
        f"other means and put the file into {folder}, or into a folder that the environment "
        f"variable {MIRROR} names; or pass its path as weights= (--weights FILE). Random weights: "
        "weights=None (--weights none)."
    )


def missing_message(file: pathlib.Path, row: PublishedWeights) -> str:
    return f"{file}: {fault(file, row) if file.is_file() else 'no such file'} ({MIRROR})"


# Checks


def fault(
    path: pathlib.Path, row: PublishedWeights, pinned: pathlib.Path | None = None, sha256: str = ""
) -> str | None:
    """Return why a file is not the published one, or None if it is.

    Checks the row's digest. Without one it checks the server's `sha256` and the SHA-256 pinned at
    first use, or, if there is neither, whether the file can be read.
    """
    pinned = pinned or pin_of(path)
    expected = [row.digest] if row.digest else []
    if not expected and sha256:
        expected = [f"sha256:{sha256}"]
    if not row.digest and pinned.is_file():
        expected.append(f"sha256:{pinned.read_text().strip()}")
    for digest in expected:
        method, _, wanted = digest.partition(":")
        found = digest_of(path, method)
        if not wanted or not found.startswith(wanted):
            since = "" if row.digest or sha256 else f", as it was pinned at first use in {pinned}"
            return f"its {method} is {found}, not {wanted}{since}"
    if not expected:
        try:
            read_checkpoint(path)
        except ValueError as error:
            return str(error)
    return None


def digest_of(path: pathlib.Path, method: str = "sha256") -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, method).hexdigest()


def pin_of(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.sha256")


def named(part: pathlib.Path, kept: pathlib.Path, row: PublishedWeights) -> pathlib.Path:
    """Rename a checked file; pin its SHA-256 if the row has no digest (trust on first use)."""
    part.replace(kept)
    if row.digest is None and not pin_of(kept).exists():
        # Atomically: with a truncated pin the file would never pass the check.
        files.write_text(pin_of(kept), f"{digest_of(kept)}\n")
    return kept


# The network


class Redirects(urllib.request.HTTPRedirectHandler):
    """Keeps the SHA-256 that huggingface.co sends with the redirect to its store."""

    sha256: str = ""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        etag = (headers.get("X-Linked-Etag") or "").strip('"')
        if len(etag) == 64:
            self.sha256 = etag
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, part: pathlib.Path, row: PublishedWeights, progress: Progress) -> str:
    """Download a URL into `part`, resuming it; return the SHA-256 that the server sends, or "".

    Proxies are those of the environment (https_proxy, no_proxy). Raises ConnectionError and leaves
    the partial file, which is resumed only if its digest is known or the server confirms by ETag
    that it is the same file.
    """
    if row.digest is None:
        part.unlink(missing_ok=True)
    validator = ""
    for wait in (*WAITS_S, None):
        redirects = Redirects()
        start = part.stat().st_size if part.is_file() else 0
        headers = {"User-Agent": "kzoo", "Accept-Encoding": "identity"}
        if start and (row.digest or validator):
            headers["Range"] = f"bytes={start}-"
            if validator:
                headers["If-Range"] = validator
        try:
            request = urllib.request.Request(url, headers=headers)
            opener = urllib.request.build_opener(redirects)
            with opener.open(request, timeout=TIMEOUT_S) as response:
                validator = response.headers.get("ETag") or ""
                if receive(response, part, start, row.file, progress):
                    return redirects.sha256
                reason = "the connection ended early"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # range not satisfiable: the part is complete or too long
                if start and row.digest and fault(part, row) is None:
                    return ""
                part.unlink(missing_ok=True)
            elif error.code not in AGAIN:
                raise ConnectionError(f"HTTP {error.code}, {error.reason}") from error
            reason = f"HTTP {error.code}, {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
            if isinstance(getattr(error, "reason", None), socket.gaierror):  # no network, or no DNS
                raise ConnectionError(
                    f"no address of {urllib.parse.urlsplit(url).hostname}: {reason}"
                ) from error
        except ConnectionError as error:
            reason = str(error)
        if wait is None:
            raise ConnectionError(f"{reason}, after {len(WAITS_S) + 1} tries")
        time.sleep(wait)
    raise AssertionError


def receive(response: Any, part: pathlib.Path, start: int, name: str, progress: Progress) -> bool:
    """Write a response to `part`, appending partial content; return whether it was complete."""
    goes_on = response.status == 206
    start = start if goes_on else 0
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    done = start
    with part.open("ab" if goes_on else "wb") as stream:
        while block := response.read(CHUNK):
            stream.write(block)
            done += len(block)
            progress(name, done, total)
    return total is None or done == total


@contextlib.contextmanager
def fetching(kept: pathlib.Path) -> Iterator[pathlib.Path]:
    """Hold the lock of a file while it is fetched; yield the path of its partial file."""
    mark = "" if files.fcntl else f".{os.getpid()}"  # without locks: one per process
    with files.locked(kept.with_name(f"{kept.name}.lock")):
        yield kept.with_name(f"{kept.name}{mark}.part")


def show(name: str, done: int, total: int | None) -> None:
    """Print a progress line if stderr is a terminal."""
    if sys.stderr.isatty():
        share = f"{done / total:4.0%} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
        sys.stderr.write(f"\r{name}: {share}{chr(10) if done == total else ''}")
        sys.stderr.flush()
