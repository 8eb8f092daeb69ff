"""`kzoo serve RUN`: a local page that runs the run's .tflite on images and the camera.

What the phone will show, before any Android work: the browser runs the file with LiteRT.js, which
npm puts into a cache folder on first use. The page loads nothing from anywhere else.
"""

import contextlib
import http.server
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kzoo.files import replacing_folder, write_json
from kzoo.recipes.inputs import FILE, require_ended
from kzoo.recipes.training.run_folder import labels_of
from kzoo.tflite import Audit, BoxOutputs, DetectionOutputs, audit

VERSION = "2.5.3"
# Of what `npm install @litertjs/core@2.5.3` brings; npm refuses anything else.
INTEGRITY = {
    "@litertjs/core": (
        "sha512-PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ=="
    ),
    "@litertjs/wasm-utils": (
        "sha512-4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ=="
    ),
}
PAGE = Path(__file__).with_name("serve.html")
CLIENT_TIMEOUT_S = 20  # for a client that neither asks nor takes
THRESHOLD = 0.4  # of a detection that is shown
KINDS = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".wasm": "application/wasm"}
# The page's own script and what LiteRT.js makes at run time, from nowhere but here.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; media-src 'self' blob:"
)


def serve(
    model: str | Path, images: Sequence[str | Path] = (), *, port: int = 8000,
    cache: str | Path | None = None,
) -> http.server.ThreadingHTTPServer:  # fmt: skip
    """Return a server on 127.0.0.1 whose page runs a model; `serve_forever()` starts it.

    model: a run folder or .tflite file.
    images: files to show when the page opens.
    port: 0 selects a free one.
    cache: folder for LiteRT.js; default: ~/.cache/kzoo.

    Raises ValueError if there is no model, the port is not available, or LiteRT.js cannot be
    downloaded.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be in 0 to 65535, 0 for a free one. Received: {port}")
    file = Path(model)
    if file.is_dir():
        require_ended(file, FILE)
        file = file / FILE
    for path in (file, *map(Path, images)):
        if not path.is_file():
            raise ValueError(f"There is no {path}. Name a run folder or a .tflite file, images.")
    routes = {
        "/": (PAGE.read_bytes(), ".html"),
        "/about.json": (json.dumps(about(audit(file), images)).encode(), ".json"),
        "/model.tflite": (file.read_bytes(), ".tflite"),
    }
    for i, path in enumerate(map(Path, images)):
        routes[f"/image/{i}"] = (path.read_bytes(), path.suffix)
    packages = litert_js(Path(cache) if cache else default_cache())
    try:
        return Server(("127.0.0.1", port), handler(routes, packages))
    except OSError as error:
        raise ValueError(
            f"Port {port} is not available ({error.strerror}): use --port 0."
        ) from error


class Server(http.server.ThreadingHTTPServer):
    """A threading server that does not report connections that are aborted or time out."""

    request_queue_size = 128  # connections that wait to be taken

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def handler(routes: dict[str, tuple[bytes, str]], packages: Path) -> type:
    """Return the request handler: it serves `routes` and LiteRT.js, to this machine only."""

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = CLIENT_TIMEOUT_S

        def refuse(self) -> None:
            self.send_error(405, "Nothing can be sent here")  # what comes is not read

        do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = refuse

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            host = self.headers.get("Host", "").partition(":")[0]  # without a port where that is 80
            if host not in ("127.0.0.1", "localhost"):  # a name that was made to point here
                self.send_error(403)
                return
            found = routes.get(path) or package_file(packages, path)
            if found is None:
                self.send_error(404)
                return
            content, kind = found
            self.send_response(200)
            self.send_header("Content-Type", KINDS.get(kind, "application/octet-stream"))
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            with contextlib.suppress(OSError):  # it has gone, or takes nothing
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Log nothing: the page shows errors."""

    return Handler


def package_file(packages: Path, path: str) -> tuple[bytes, str] | None:
    """Return a file of LiteRT.js by its path /npm/..., if there is one."""
    if not path.startswith("/npm/"):
        return None
    try:
        file = (packages / path.removeprefix("/npm/")).resolve()
        if not file.is_file() or packages.resolve() not in file.parents:
            return None
        return file.read_bytes(), file.suffix
    except (OSError, ValueError):  # no name that a file could have
        return None


def about(found: Audit, images: Sequence[str | Path]) -> dict[str, Any]:
    """Return what the page needs to know about the file."""
    metadata = found.metadata
    labels = labels_of(found.path) or []
    kinds = {2: "ImageClassifier", 3: "ImageSegmenter", 4: "ImageSegmenter"}  # 3: a mask
    task = metadata.outputs.task if metadata and metadata.outputs else ""
    task = task or kinds.get(len(found.outputs[0].shape), "") if len(found.outputs) == 1 else task
    if not task:
        raise ValueError(
            f"{found.path} does not say what its outputs are. Convert it with "
            "metadata=Metadata(outputs=...)."
        )
    more: dict[str, Any] = {}
    if metadata and isinstance(metadata.outputs, BoxOutputs):
        more = {"anchors": metadata.outputs.anchors.tolist(), "sigmoid": metadata.outputs.sigmoid,
                "scales": metadata.outputs.scales}  # fmt: skip
    if metadata and isinstance(metadata.outputs, DetectionOutputs):
        more = {"order": metadata.outputs.order}
    folder = found.path.resolve().parent
    ports = {
        port.name: {"shape": port.shape, "scale": port.scale, "zero_point": port.zero_point}
        for port in found.outputs
    }
    return {
        "title": metadata.title if metadata and metadata.title not in ("", task) else folder.name,
        "file": found.path.name,
        "bytes": sum(found.bytes.values()),
        "task": task,
        "labels": labels,
        "input": {"shape": found.inputs[0].shape, "dtype": found.inputs[0].dtype},
        "normalization": metadata.normalization if metadata else (0, 1),
        "outputs": ports,
        "threshold": THRESHOLD,
        "thresholds": metadata.thresholds if metadata else (),
        "images": [Path(path).name for path in images],
    } | more


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kzoo"


def litert_js(cache: Path) -> Path:
    """Return the folder of npm packages with LiteRT.js; npm downloads it if it is missing."""
    folder = cache / f"litertjs-{VERSION}"
    packages = folder / "node_modules"
    if (packages / "@litertjs" / "core" / "package.json").is_file():
        return packages
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(
            "LiteRT.js is downloaded with npm, which is not installed: install Node.js."
        )
    print(f"LiteRT.js {VERSION} (Apache-2.0, 40 MB) is fetched by npm, once, into {folder}")
    root = {"name": "kzoo-serve", "version": "1.0.0", "dependencies": {"@litertjs/core": VERSION}}
    locked: dict[str, Any] = {
        f"node_modules/{name}": {"version": VERSION, "integrity": hash_}
        for name, hash_ in INTEGRITY.items()
    }
    locked["node_modules/@litertjs/core"]["dependencies"] = {"@litertjs/wasm-utils": f"^{VERSION}"}
    lock = {"name": root["name"], "version": "1.0.0", "lockfileVersion": 3, "requires": True,
            "packages": {"": root, **locked}}  # fmt: skip
    with replacing_folder(folder) as part:
        write_json(part / "package.json", root)
        write_json(part / "package-lock.json", lock)
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=part, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ValueError(f"npm could not download LiteRT.js: {last}")
    return packages
