"""`convert_within`: try quantization settings in turn until the accuracy drop is small enough."""

import dataclasses
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kzoo
from kzoo.files import replacing
from kzoo.qat import sensitivity
from kzoo.tflite.convert.converter import convert, load
from kzoo.tflite.inspect.audit import audit
from kzoo.tflite.inspect.benchmark import benchmark
from kzoo.tflite.inspect.compare import compare

MEASURED = 32  # images for the sensitivity analysis
SHARES = (0.5, 0.75, 0.9)  # of the total noise, caused by the layers to keep in float
TRAINING_RATE, TRAINING_BATCH = 3e-5, 16  # of quantization-aware training, as in the recipes
TRAINED = 3000  # images over all epochs of that training
TRAINING = "trained in int8"
# Settings of `kzoo.quantize`, the cheapest first.
WAYS: dict[str, dict[str, Any]] = {
    "calibration": {},
    "equalized everywhere": {"equalization": "all"},
}


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One int8 file: how it was made, its accuracy and its cost."""

    name: str
    keep_float: tuple[str, ...]
    drop: float  # percentage points of accuracy, or of agreement without labels
    accuracy: float | None  # if there are labels
    agreement: float
    sqnr_db: float
    bytes: int
    cpu_ms: float
    seconds: float  # CPU time to make it
    conversions: tuple[int, int]  # QUANTIZE, DEQUANTIZE operators in it
    path: Path | None = None  # None if the file was not kept


@dataclasses.dataclass(frozen=True)
class Search:
    """The result of `convert_within`: all attempts in order. `str` of it is a table."""

    attempts: tuple[Attempt, ...]
    max_drop: float
    chosen: Attempt | None  # the first within max_drop; None if there is none

    @property
    def closest(self) -> Attempt:
        """The attempt with the smallest drop."""
        return min(self.attempts, key=lambda attempt: attempt.drop)

    @property
    def pareto(self) -> tuple[Attempt, ...]:
        """The Pareto-optimal attempts: no other one is better in drop and CPU time."""

        def beaten(one: Attempt) -> bool:
            return any(
                other.drop <= one.drop
                and other.cpu_ms <= one.cpu_ms
                and (other.drop < one.drop or other.cpu_ms < one.cpu_ms)
                for other in self.attempts
            )

        return tuple(one for one in self.attempts if not beaten(one))

    def __str__(self) -> str:
        if self.chosen:
            verdict = f"{self.chosen.name} holds: {self.chosen.drop:.2f} of {self.max_drop} points."
        else:
            trained = any(one.name == TRAINING for one in self.attempts)
            more = "on more images" if trained else "quantized (kzoo.distill)"
            verdict = (
                f"Nothing holds {self.max_drop} points. {self.closest.name} comes closest, with "
                f"{self.closest.drop:.2f}: allow that, calibrate on more images, or train {more}."
            )
        wide = max(len(one.name) for one in self.attempts)
        head = f"{'':{wide}}   drop accuracy agreement   SQNR      bytes CPU ms   Q/DQ made in"
        rows = (
            f"{one.name:{wide}} {one.drop:>6.2f} "
            f"{'' if one.accuracy is None else f'{one.accuracy:.4f}':>8} {one.agreement:>9.4f} "
            f"{one.sqnr_db:>6.1f} {one.bytes:>10,} {one.cpu_ms:>6.2f} "
            f"{'/'.join(map(str, one.conversions)):>6} {one.seconds:>5.0f} s"
            for one in self.attempts
        )
        return "\n".join([verdict, head, *rows])


def convert_within(
    model: keras.Model | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    max_drop: float,
    calibration: np.ndarray,
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    trained_files: Mapping[str, Path] | None = None,
    training_images: Callable[[], np.ndarray] | None = None,
    pareto_folder: str | os.PathLike[str] | None = None,
    convert_options: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Search:
    """Write the first int8 file that loses at most `max_drop` points to `out`; return the search.

    It tries in turn: calibration alone; equalization before every hard-swish; keeping the layers in
    float that cause half, three quarters and nine tenths of the noise (`kzoo.qat.sensitivity`);
    `trained_files`; and quantization-aware training. If no file is within `max_drop`, `chosen` of
    the result is None and nothing is written.

    model: a float classifier or segmenter of one output.
    max_drop: in percentage points: of accuracy on `labels`, or, without labels, the share of
        predictions that differ from the float model's.
    calibration: (N, H, W, C) in the model's input range, to calibrate on.
    images: (N, H, W, C) in the model's input range, to measure on.
    labels: class numbers (N, ...) of `images`.
    trained_files: int8 files from training, by name.
    training_images: a function that returns images (N, H, W, C) for training without labels, with
        the float model as teacher (`kzoo.distill`), for as many epochs as make some 3,000 images.
    pareto_folder: a folder for the files that are Pareto-optimal in drop and CPU time. If given,
        all settings are tried.
    convert_options: further arguments of `convert`: io, labels, metadata and the like.
    progress: called with the name of each attempt when it begins.

    Raises ValueError for a negative drop, and for models of several outputs or without classes.
    """
    if not max_drop >= 0:
        raise ValueError(f"max_drop must be points >= 0. Received: max_drop={max_drop!r}")
    net = load(model)
    if len(net.outputs) != 1:
        raise ValueError(
            f"{net.name!r} has {len(net.outputs)} outputs; a drop is measured on models of one, "
            "classifiers and segmenters. Convert it with kzoo.tflite.convert and measure it there."
        )
    attempts: list[Attempt] = []
    chosen = None
    with tempfile.TemporaryDirectory(prefix="kzoo_within_") as folder:
        for name, keep, make in ways(
            net, calibration, trained_files or {}, training_images, convert_options or {}, progress
        ):
            progress(name)
            path = Path(folder, f"{len(attempts)}.tflite")
            start = time.process_time()
            make(path)
            seconds = time.process_time() - start
            attempts.append(measured(net, path, images, labels, name, keep, seconds))
            if chosen is None and attempts[-1].drop <= max_drop:
                chosen = len(attempts) - 1
                if pareto_folder is None:
                    break
        timings = benchmark([attempt.path for attempt in attempts if attempt.path]).timings
        attempts = [
            dataclasses.replace(one, cpu_ms=timing.cpu_ms)
            for one, timing in zip(attempts, timings, strict=True)
        ]
        found = Search(tuple(attempts), max_drop, None if chosen is None else attempts[chosen])
        return kept(found, Path(out), None if pareto_folder is None else Path(pareto_folder))


Way = tuple[str, tuple[str, ...], Callable[[Path], Any]]


def ways(
    model: keras.Model, calibration: np.ndarray, trained_files: Mapping[str, Path],
    training_images: Callable[[], np.ndarray] | None, options: Mapping[str, Any],
    progress: Callable[[str], None],
) -> Iterator[Way]:  # fmt: skip
    """Yield (name, layers kept in float, function that writes the file) of each attempt in turn."""

    def quantized(keep: tuple[str, ...], how: Mapping[str, Any]) -> Callable[[Path], Any]:
        def write(path: Path) -> None:
            int8 = kzoo.quantize(
                model, calibration=calibration, keep_float=keep, progress=progress, **how
            )
            convert(int8, path, **options)

        return write

    def trained(read_images: Callable[[], np.ndarray]) -> Callable[[Path], Any]:
        def write(path: Path) -> None:
            int8 = kzoo.quantize(model, calibration=calibration, progress=progress)
            convert(distilled(int8, model, read_images()), path, **options)

        return write

    for name, how in WAYS.items():
        yield name, (), quantized((), how)
    table = sensitivity(
        without_softmax(model), calibration=calibration, images=calibration[:MEASURED]
    ).decibels
    noises = {name: 10 ** (-value / 10) for name, value in table.items()}
    inputs = {tensor._keras_history.operation.name for tensor in model.inputs}
    names = [name for name in noises if name not in inputs]
    known: set[tuple[str, ...]] = set()
    for share in SHARES:
        held = np.cumsum([noises[name] for name in names]) / sum(noises.values())
        keep = tuple(names[: int(np.searchsorted(held, share)) + 1])
        if keep not in known:
            known.add(keep)
            yield (
                f"{len(keep)} layers in float",
                keep,
                quantized(keep, WAYS["equalized everywhere"]),
            )
    for name, file in trained_files.items():
        yield name, (), functools.partial(shutil.copyfile, file)
    if training_images:
        yield TRAINING, (), trained(training_images)


def distilled(
    int8: keras.Model, model: keras.Model, images: np.ndarray, *, seed: int = 0
) -> keras.Model:
    """Train the int8 model towards the outputs of `model` on images (N, H, W, C); return it.

    `seed` determines the order of the images.
    """
    taught = kzoo.distill(int8, model)
    taught.compile(keras.optimizers.Adam(TRAINING_RATE))
    epochs = max(1, round(TRAINED / len(images)))
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(images))
        taught.fit(images[order], batch_size=TRAINING_BATCH, shuffle=False, verbose=0)
    return taught.student


def without_softmax(model: keras.Model) -> keras.Model:
    """Return the model without a final softmax layer."""
    last = model.layers[-1]
    softmax = getattr(last, "activation", None) is keras.activations.softmax
    alone = isinstance(last, keras.layers.Softmax | keras.layers.Activation)
    return keras.Model(model.input, last.input) if softmax and alone else model


def measured(
    model: keras.Model, path: Path, images: np.ndarray, labels: Any, name: str,
    keep: tuple[str, ...], seconds: float,
) -> Attempt:  # fmt: skip
    """Return the attempt of a file, with a CPU time of nan, which is measured later."""
    found = compare(model, path, images, labels)
    if not found.outputs[0].has_classes:
        raise ValueError(
            f"max_drop counts answers that int8 changes, and {model.name!r} gives a number, which "
            "is no class. Convert it without max_drop (--max-drop), and compare the two."
        )
    drop = 1 - found.agreement
    if found.accuracy:
        drop = found.accuracy[0] - found.accuracy[1]
    return Attempt(
        name, keep, 100 * drop, found.accuracy and found.accuracy[1], found.agreement,
        found.sqnr_db, path.stat().st_size, np.nan, seconds, audit(path, run=False).conversions,
        path,
    )  # fmt: skip


def kept(found: Search, out: Path, folder: Path | None) -> Search:
    """Copy the chosen and the Pareto-optimal files; return the search with their new paths."""
    paths: dict[str, Path] = {}
    for one in found.pareto if folder else ():
        assert folder is not None
        folder.mkdir(parents=True, exist_ok=True)
        paths[one.name] = folder / f"{one.name.replace(' ', '_')}.tflite"
        copy(one, paths[one.name])
    if found.chosen:
        paths[found.chosen.name] = out
        copy(found.chosen, out)
    attempts = tuple(dataclasses.replace(one, path=paths.get(one.name)) for one in found.attempts)
    chosen = next((x for x in attempts if found.chosen and x.name == found.chosen.name), None)
    return dataclasses.replace(found, attempts=attempts, chosen=chosen)


def copy(attempt: Attempt, path: Path) -> None:
    assert attempt.path is not None
    labels = attempt.path.with_name("labels.txt")  # written by `convert`
    for source, target in ((attempt.path, path), (labels, path.with_name(labels.name))):
        if source.is_file():
            with replacing(target) as part:
                shutil.copyfile(source, part)
