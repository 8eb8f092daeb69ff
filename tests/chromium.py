"""Headless Chromium, told what to do over a pipe (its DevTools protocol) by nothing but Python.

with Page("http://127.0.0.1:8000/") as page:
    page.wait("document.body.dataset.state")
    page.screenshot(Path("page.png"))
"""

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
FLAGS = """
--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --use-fake-device-for-media-stream
--use-fake-ui-for-media-stream --window-size=1000,900 --remote-debugging-pipe
""".split()  # noqa: SIM905
SECONDS = 60


class Page:
    def __init__(self, url: str):
        assert PROGRAM, "Chromium is not installed"
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        read, self.out = os.pipe()
        self.into, write = os.pipe()

        def pipes() -> None:  # Chromium reads commands from 3 and answers on 4
            a, b = os.dup(read), os.dup(write)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.process = subprocess.Popen(
            [PROGRAM, *FLAGS, f"--user-data-dir={self.folder.name}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=pipes,
            close_fds=False,
        )
        os.close(read)
        os.close(write)
        self.ids, self.rest, self.session = itertools.count(1), b"", None
        try:
            target = self.ask("Target.createTarget", url=url)["targetId"]
            attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
            self.session = attached["sessionId"]
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.wait()
        for end in (self.into, self.out):
            with contextlib.suppress(OSError):
                os.close(end)
        self.folder.cleanup()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        message = {"id": next(self.ids), "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while True:
            line, found, rest = self.rest.partition(b"\0")
            if not found:
                if not select.select([self.into], [], [], max(0, end - time.monotonic()))[0]:
                    raise TimeoutError(f"Chromium did not answer {method} in {SECONDS} s")
                more = os.read(self.into, 1 << 20)
                if not more:
                    raise ConnectionError(f"Chromium ended while it was asked {method}")
                self.rest += more
                continue
            self.rest = rest
            answer = json.loads(line)
            if answer.get("id") == message["id"]:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives; a promise is waited for."""
        found = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, expression: str, seconds: float = SECONDS) -> Any:
        """The first value of an expression that is none of null, 0, "" and undefined."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(RuntimeError):  # the page is not there yet
                if found := self.value(expression):
                    return found
            time.sleep(0.05)
        raise TimeoutError(f"{expression} did not come true in {seconds} s")

    def screenshot(self, file: Path) -> None:
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))
