"""kill -9 at random moments; the same call then ends in the same bytes, and leaves nothing half."""

import dataclasses
import hashlib
import http.server
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import keras
import numpy as np

from campaign import runs
from campaign.cases import ANSWER, Budget, Case
from kzoo.recipes.data.packing import pack
from kzoo.tflite import convert
from kzoo.weights import download
from kzoo.weights.published import PUBLISHED

# load: share of the cases
SHARES = {"classify": 0.4, "detect": 0.1, "segment": 0.1, "pack": 0.15, "convert": 0.1,
          "download": 0.15}  # fmt: skip
Act = Callable[[Path], Any]  # does it, in a folder


def cases(budget: Budget, loads: dict[str, float] = SHARES) -> Iterator[Case]:
    """Yield what became of killed commands, by command."""
    with tempfile.TemporaryDirectory() as name:
        left = sum(loads.values())
        for load, share in loads.items():
            folder = Path(name, load)
            folder.mkdir()
            act, results = ACTS[load](folder)
            start = time.monotonic()
            log = folder / "log"
            whole = folder / "whole"
            code = runs.ended(runs.started(lambda: act(whole), log=log))  # noqa: B023
            seconds = time.monotonic() - start
            wanted = runs.digests(whole, results)
            if code or not wanted:
                yield Case(load, "not killed", runs.told(log, code) if code else "no result")
                continue
            for i in budget.numbers(share / left):
                if i >= max(1, round(share * budget.count)):
                    break
                outcome, took = killed(
                    act, results, wanted, folder, seconds, budget.random(load, i)
                )
                yield Case(load, f"case {i}", outcome, took)
            left -= share


def killed(
    act: Act, results: tuple[str, ...], wanted: dict, folder: Path, seconds: float, rng: Random
) -> tuple[str, float]:
    """Kill once or twice, let it end, and return what is wrong with what it leaves."""
    out, log, start = folder / "out", folder / "log", time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    kills = rng.choice((1, 1, 2))
    for _ in range(kills):
        moment = rng.uniform(0.02, 1.0) * seconds
        code = runs.ended(runs.started(lambda: act(out), log=log), after_s=moment)
        if code == 0:  # it was quicker than the whole one
            break
        if code != -9:
            return f"before it was killed: {runs.told(log, code)}", time.monotonic() - start
        half = runs.digests(out, results)
        if any(half[name] != wanted[name] for name in half):
            return f"half-written or other results beside a killed run: {sorted(half)}", 0.0
    if code != 0:
        code = runs.ended(runs.started(lambda: act(out), log=log))
    took = time.monotonic() - start
    if code != 0:
        return f"not resumed: {runs.told(log, code)}", took
    found = runs.digests(out, results)
    if found != wanted:
        others = sorted(name for name in wanted if found.get(name) != wanted[name])
        return f"other bytes in {', '.join(others)}", took
    left = runs.unfinished(out)
    return (f"left {left[:3]}" if left else ANSWER), took


def of_recipe(name: str) -> Callable[[Path], tuple[Act, tuple[str, ...]]]:
    def prepare(folder: Path) -> tuple[Act, tuple[str, ...]]:
        data = runs.DATA[name](folder / "data")
        # Within an epoch too, and in the int8 stage.
        more = {"save_every": 1e-4, "qat_epochs": 1} if name == "classify" else {}
        results = ("model.tflite", "predictions.csv", "labels.txt")
        return lambda out: runs.RECIPES[name](data, out=str(out), **more), results

    return prepare


def of_pack(folder: Path) -> tuple[Act, tuple[str, ...]]:
    data = runs.colours(folder / "data", each=60)

    def act(out: Path) -> None:
        if not (out / "packed.json").is_file():
            pack(data, out, side=32, shard_mb=0.02)

    return act, ("packed.json", "train.npz")


def of_convert(folder: Path) -> tuple[Act, tuple[str, ...]]:
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype="uint8")

    def act(out: Path) -> None:
        out.mkdir(exist_ok=True)
        keras.utils.set_random_seed(0)  # here: a process that has run TensorFlow cannot fork
        model = runs.campaign_net(0.35, input_shape=(32, 32, 3), classes=3)
        convert(model, out / "a.tflite", calibration=images, labels=list("abc"))

    return act, ("a.tflite", "labels.txt")


def of_download(folder: Path) -> tuple[Act, tuple[str, ...]]:
    body = np.random.default_rng(0).bytes(3_000_000)

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            for at in range(start, len(body), 100_000):
                time.sleep(0.01)
                self.wfile.write(body[at : at + 100_000])

        def log_message(self, *_: Any) -> None:
            pass

        def handle_error(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    row = dataclasses.replace(
        PUBLISHED[0], url=f"http://127.0.0.1:{server.server_port}/net.bin", file="net.bin",
        digest=f"sha256:{hashlib.sha256(body).hexdigest()}",
    )  # fmt: skip
    return lambda out: download.fetch(row, out), ("net.bin",)


ACTS = {
    "classify": of_recipe("classify"), "detect": of_recipe("detect"),
    "segment": of_recipe("segment"), "pack": of_pack, "convert": of_convert,
    "download": of_download,
}  # fmt: skip
