"""`kzoo serve` and those who want more of it than its page: other hosts, other files, no end."""

import http.client
import json
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from campaign.cases import ANSWER, REFUSED, Budget, Case
from kzoo.recipes.programs import serve_page
from kzoo.tflite.runtime.trial import resident_mb

CLIENTS, MINUTE, FLAT_MB = 200, 60, 20
SECRET = b"not for the page"
METHODS = ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "GARBAGE")
HOSTS = (
    "evil.example",
    "127.0.0.1.evil.example",
    "0.0.0.0",
    "[::1]",
    "",
    "localhost.evil",
    "169.254",
)
STEPS = (
    "..",
    "%2e%2e",
    "..%2f",
    "....//",
    "\\..",
    "/",
    "%00",
    "a" * 300,
    "node_modules",
    "@litertjs",
)


def running(folder: Path) -> tuple[serve_page.Server, int]:
    """A server of made-up files: what is asked of it here is not whether the model runs."""
    packages = folder / "cache" / "node_modules"
    (packages / "@litertjs").mkdir(parents=True)
    (packages / "@litertjs" / "core.js").write_bytes(b"x" * 200_000)
    (folder / "cache" / "secret.txt").write_bytes(SECRET)
    (folder / "secret.txt").write_bytes(SECRET)
    routes = {"/": (b"<html>", ".html"), "/about.json": (b"{}", ".json"),
              "/model.tflite": (bytes(500_000), ".tflite")}  # fmt: skip
    server = serve_page.Server(("127.0.0.1", 0), serve_page.handler(routes, packages))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, server.server_port


def asked(port: int, text: bytes, *, read: bool = True) -> bytes:
    """What comes back for raw bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(text)
        if not read:
            return b""
        client.settimeout(10)
        found = b""
        try:
            while more := client.recv(1 << 16):
                found += more
        except ConnectionError:  # it refuses before all has come
            pass
        return found


def judged(port: int, request: bytes, *, to_be_refused: bool = True) -> str:
    """Return the outcome of a request."""
    found = asked(port, request)
    if SECRET in found:
        return "a file from outside"
    status = found[9:12]
    if to_be_refused:
        good = status[:1] in (b"4", b"5") or not found or found[:1] == b"<"
        return REFUSED if good else f"answered {found[:40]!r}"
    return ANSWER if status == b"200" else f"answered {found[:40]!r}"


def request(rng: Random, load: str, port: int) -> bytes:
    host = f"127.0.0.1:{port}"
    if load == "wrong Host":
        host = rng.choice(HOSTS)
        return f"GET /about.json HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    if load == "path traversal":
        steps = "/".join(rng.choice(STEPS) for _ in range(rng.randrange(1, 7)))
        return f"GET /npm/{steps}/secret.txt HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    if load == "other methods":
        head = f"{rng.choice(METHODS)} / HTTP/1.1\r\nHost: {host}\r\n"
        return f"{head}Content-Length: 9999999999\r\n\r\n".encode()
    content = bytearray(f"GET / HTTP/1.1\r\nHost: {host}\r\nX: y\r\n\r\n".encode())
    for at in rng.sample(range(3), rng.randrange(1, 4)):  # its method is damaged
        content[at] ^= rng.randrange(1, 256)
    return bytes(content)


def cases(budget: Budget) -> Iterator[Case]:
    """Yield what came of requests, by load; then slow clients, an upload and many at once."""
    with tempfile.TemporaryDirectory() as name:
        server, port = running(Path(name))
        try:
            loads = ("wrong Host", "path traversal", "other methods", "damaged requests")
            for load in loads:
                for i in budget.numbers():
                    if i >= max(1, budget.count // 5):
                        break
                    start = time.monotonic()
                    outcome = judged(port, request(budget.random(load, i), load, port))
                    yield Case(load, f"case {i}", outcome, time.monotonic() - start, resident_mb())
            yield upload(port)
            yield slow(port)
            yield from many(port, budget)
            yield loopback(server)
        finally:
            server.shutdown()
            server.server_close()


def plain(port: int) -> str:
    return judged(
        port, f"GET /about.json HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode(),
        to_be_refused=False,
    )  # fmt: skip


def upload(port: int) -> Case:
    """100 MB that nobody asked for."""
    before, start = resident_mb(), time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        try:
            client.sendall(f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                           f"Content-Length: {100 << 20}\r\n\r\n".encode())  # fmt: skip
            for _ in range(100):
                client.sendall(bytes(1 << 20))
        except OSError:
            pass
    grown = resident_mb() - before
    outcome = REFUSED if grown < 20 and plain(port) == ANSWER else f"grew by {grown:.0f} MB"
    return Case("huge upload", "100 MB", outcome, time.monotonic() - start, resident_mb())


def slow(port: int) -> Case:
    """Clients who never end their request, and who never take the answer."""
    start, idle = time.monotonic(), []
    for i in range(50):
        client = socket.create_connection(("127.0.0.1", port), timeout=10)
        whole = f"GET /model.tflite HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        client.sendall(b"GET /mod" if i % 2 else whole)
        idle.append(client)
    outcome = plain(port)
    for client in idle:
        client.close()
    return Case("slow clients", "50", outcome, time.monotonic() - start, resident_mb())


def many(port: int, budget: Budget) -> Iterator[Case]:
    """Clients at once, for a minute; a few rounds of them where there are few cases."""
    most = MINUTE if budget.count >= CLIENTS else budget.count // 20

    def client(i: int) -> str:
        path = ("/about.json", "/model.tflite", "/npm/@litertjs/core.js")[i % 3]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            whole = len(answer.read()) == int(answer.headers["Content-Length"])
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()
        return ANSWER if answer.status == 200 and whole else f"status {answer.status}"

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))  # starts the threads
        before, end = resident_mb(), time.monotonic() + most
        while time.monotonic() < end:
            start = time.monotonic()
            for i, outcome in enumerate(pool.map(client, range(CLIENTS))):
                yield Case(f"{CLIENTS} at once", f"client {i}", outcome)
            grown = resident_mb() - before
            outcome = ANSWER if grown < FLAT_MB else f"grew by {grown:.0f} MB"
            yield Case(f"{CLIENTS} at once, memory", f"{most} s", outcome,
                       time.monotonic() - start, resident_mb())  # fmt: skip


def loopback(server: serve_page.Server) -> Case:
    """Whether it listens on this machine alone, and its page asks for nothing elsewhere."""
    page = serve_page.PAGE.read_text(encoding="utf-8")
    alone = server.server_address[0] == "127.0.0.1" and "//cdn" not in page
    alone = alone and json.dumps(serve_page.POLICY).find("http") < 0
    return Case("loopback only", "address", ANSWER if alone else f"{server.server_address}")
