"""kill -9 at random moments; the same call then ends in the same bytes, and leaves nothing half."""

import dataclasses
import hashlib
import http.server
import resource
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import keras
import numpy as np

from campaign import runs
from campaign.cases import ANSWER, Budget, Case
from kzoo.files import part_of
from kzoo.recipes.data.packing import pack
from kzoo.tflite import convert
from kzoo.weights import download
from kzoo.weights.published import PUBLISHED

# command: share of the cases. Trainings take the longest and have the most to lose.
SHARES = {"pack": 13 / 60, "download": 15 / 60, "convert": 10 / 60, "classify": 10 / 60,
          "segment": 4 / 60, "detect": 6 / 60, "multilabel": 2 / 60}  # fmt: skip
WAITS = ("download",)  # what waits more than it computes: its moments are of the clock's time
Act = Callable[[Path], Any]  # does it, in a folder


def cases(budget: Budget, loads: Sequence[str] = tuple(SHARES)) -> Iterator[Case]:
    """Yield what became of killed commands, by command and by what it was doing."""
    with tempfile.TemporaryDirectory() as name:
        left = sum(SHARES[load] for load in loads)
        for load in loads:
            share = SHARES[load]
            folder = Path(name, load)
            folder.mkdir()
            act, results = ACTS[load](folder)
            log, whole = folder / "log", folder / "whole"
            if load not in runs.RECIPES:  # so quick that what is read first decides
                runs.ended(runs.started(lambda: act(folder / "first"), log=log))  # noqa: B023
            start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            code = runs.ended(runs.started(lambda: act(whole), log=log))  # noqa: B023
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = time.monotonic() - start
            if load not in WAITS:
                seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            wanted = runs.digests(whole, results)
            if code or not wanted:
                yield Case(load, "not killed", runs.told(log, code) if code else "no result")
                continue
            count = max(1, round(share * budget.count))
            for i in budget.numbers(share / left):
                if i >= count:
                    break
                # The moments are spread over the whole command, one in each of `count` parts.
                rng = budget.random(load, i)
                moment = (i + rng.uniform(0.02, 1.0)) / count
                outcome, phase, took = killed(
                    act, results, wanted, folder, seconds, moment, rng, load not in WAITS
                )
                yield Case(f"{load}, {phase}", f"case {i} at {moment:.0%}", outcome, took)
            left -= share


def killed(
    act: Act, results: tuple[str, ...], wanted: dict, folder: Path, seconds: float, moment: float,
    rng: Random, of_cpu: bool,
) -> tuple[str, str, float]:  # fmt: skip
    """Kill a command once or twice, let it end, and return what is wrong with what it leaves.

    Returns (outcome, what it was doing when it was killed first, seconds).
    """
    out, log, start = folder / "out", folder / "log", time.monotonic()

    def run(after_s: float | None = None) -> int:
        return runs.ended(runs.started(lambda: act(out), log=log), after_s=after_s, of_cpu=of_cpu)

    def judged() -> tuple[str, str, float]:
        return fault(code, log, results, wanted, out), phase, time.monotonic() - start

    code, after_s = 0, moment * seconds
    while code == 0:  # it was quicker than the whole one: again, and killed earlier
        shutil.rmtree(out, ignore_errors=True)
        code = run(after_s)
        after_s *= 0.8
    phase = phase_of(out)
    if judged()[0] == ANSWER and rng.random() < 1 / 3:
        code = run(rng.uniform(0.02, 1.0) * seconds)
    if judged()[0] == ANSWER and code != 0:
        code = run()
    return judged()


def fault(code: int, log: Path, results: tuple[str, ...], wanted: dict, out: Path) -> str:
    """Return what is wrong with a command that was killed (-9) or has ended, or ANSWER."""
    if code not in (0, -signal.SIGKILL):
        return runs.told(log, code)
    found = runs.digests(out, results)
    others = sorted(name for name in found if found[name] != wanted[name])
    if others:
        return f"other bytes in {', '.join(others)}"
    if code != 0:
        return ANSWER  # it was killed, and what is there is whole
    if found != wanted:
        return f"no {', '.join(sorted(set(wanted) - set(found)))}"
    left = runs.unfinished(out)
    return f"left {left[:3]}" if left else ANSWER


PHASES = {  # the last file of a run that is there: what it does next
    "model.tflite": "report", "checkpoint/*-qat.keras": "conversion",
    "checkpoint/qat-*": "int8 training", "model.keras": "int8 calibration or training",
    "checkpoint/whole-*": "training", "config.json": "training, first epoch",
}  # fmt: skip


def phase_of(out: Path) -> str:
    """Return what a killed command was doing, by the files that it left."""
    if not (out / "checkpoint").is_dir():
        begun = part_of(out).exists() or (out.exists() and any(out.iterdir()))
        return "begun" if begun else "nothing written"
    return next((phase for file, phase in PHASES.items() if any(out.glob(file))), "begun")


def of_recipe(name: str) -> Callable[[Path], tuple[Act, tuple[str, ...]]]:
    return lambda folder: resumed(name, runs.DATA[name](folder / "data"))


def resumed(name: str, data: Path) -> tuple[Act, tuple[str, ...]]:
    """Return a recipe's smallest run on that data, which begins or goes on, and its results."""
    more = {"save_every": 1e-4, "qat_epochs": 1}  # within an epoch too, and in the int8 stage
    results = ("model.tflite", "predictions.csv", "labels.txt")
    return lambda out: runs.RECIPES[name](data, out=str(out), **more), results


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
    "multilabel": of_recipe("multilabel"), "segment": of_recipe("segment"),
    "pack": of_pack, "convert": of_convert, "download": of_download,
}  # fmt: skip
