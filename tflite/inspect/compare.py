"""How far a .tflite file is from the model it was made of, on images."""

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo.detection.detector import Detector
from kzoo.quantization.layers import LEVELS
from kzoo.tflite.inspect.layer_noise import LayerNoise, noise_by_layer
from kzoo.tflite.ports import by_name, names
from kzoo.tflite.runtime.runner import Runner
from kzoo.weights.readers.flatbuffer import TfliteModel, TfliteOperator, read_tflite
from kzoo.weights.saved_model import load_model

PASSED = {"DEQUANTIZE", "QUANTIZE", "SOFTMAX", "LOGISTIC", "RESHAPE"}  # from there to the output
LEAST_PROBABILITY = 1e-12  # its logarithm stands for all that is smaller
THRESHOLD = 0.5  # of a label that a sigmoid gives a score to
LAYERS_SHOWN = 5
# Sound int8 files of trained nets reached an agreement of .88 to 1.0, broken ones .10 to .5; of
# detectors that lost no mAP the boxes had 18 dB and more.
USABLE, GOOD, USABLE_DB, GOOD_DB = 0.8, 0.95, 6.0, 15.0
# Ranges of least squared error cut off the largest values of a few images; of images unlike those
# that were calibrated on, values spread further than the file's last range on many.
FAR, OFTEN = 1.5, 0.05
GRADES = (
    "it is no good file. Next: kzoo sensitivity names the layers that lose most; more varied "
    "calibration images or training it quantized (--qat-epochs) help.",
    "it is usable and loses something. Next: kzoo sensitivity names the layers that lose most; "
    "training it quantized (--qat-epochs) may win it back.",
    "it is a good file. Next: kzoo benchmark, kzoo android.",
)
ORDER = (
    "Signal to noise behind each layer of the file, the layers that add most noise first. kzoo\n"
    "sensitivity orders them otherwise, by what each alone costs the outputs: noise in one layer\n"
    "can be evened out by the next, or matter to every class."
)


@dataclasses.dataclass(frozen=True)
class Output:
    """One output of both. Arrays may have any number of axes; classes are along the last."""

    name: str
    values: (
        str  # what was compared: "outputs", "log-probabilities" where the model ends in softmax,
        # "logits" where it ends in a sigmoid
    )
    # How often the largest value is at the same place; of integers, is the same; of labels that
    # a sigmoid gives scores to, how often both or neither are at their threshold. nan of one number
    # per place, such as a regressor's: it has no classes.
    agreement: float
    # Places that it takes in the model and the file, such integers, or sets of labels: of a
    # constant, agreement is 1. (0, 0) without classes.
    distinct: tuple[int, int]
    sqnr_db: float  # 10 log10(power of the model's values / power of the difference)
    quantum: float  # step of the last quantized tensor before this output in the file, or 0
    quanta: tuple[float, float]  # mean and largest difference in it; nan without
    accuracy: tuple[float, float] | None  # of model and file, where labels were given
    # Share of the images on which the model's values spread over more than 1.5 times the width of
    # the last range in the file.
    beyond: float = 0.0

    @property
    def has_classes(self) -> bool:
        return self.distinct[0] > 0

    def __str__(self) -> str:
        sqnr = f"SQNR {self.sqnr_db:.1f} dB of {self.values}"
        lines = [f"{self.name}: {sqnr}"]
        if self.has_classes:
            lines = [
                f"{self.name}: agreement {self.agreement:.4f}, {sqnr}",
                "  classes seen: model {}, file {}".format(*self.distinct),
            ]
        if self.quantum:
            mean, largest = self.quanta
            unit = f"quanta of {self.quantum:.4g}"
            lines.append(f"  difference: mean {mean:.2f}, largest {largest:.1f} {unit}")
        if self.beyond > OFTEN:
            lines.append(
                f"  beyond the file's range: the model, on {self.beyond:.0%} of the images"
            )
        if self.accuracy:
            lines.append("  accuracy: model {:.4f}, file {:.4f}".format(*self.accuracy))
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Comparison:
    images: int
    outputs: tuple[Output, ...]
    layers: tuple[LayerNoise, ...] = ()  # those that add most noise first, where it was asked for

    @property
    def agreement(self) -> float:
        """The lowest of all outputs that have classes; nan where none has."""
        return min((x.agreement for x in self.outputs if x.has_classes), default=math.nan)

    @property
    def sqnr_db(self) -> float:
        """The lowest of all outputs."""
        return min(output.sqnr_db for output in self.outputs)

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Of model and file, for the first output."""
        return self.outputs[0].accuracy

    @property
    def verdict(self) -> str:
        """How good the file is, in a sentence, and what to do next."""
        if all(output.distinct[0] == 1 for output in self.outputs):
            return "This says little: the model itself names one class on all of these images."
        if len(self.outputs) > 1 or not self.outputs[0].has_classes:  # boxes, or a regressor's
            words, good = f"The outputs keep {self.sqnr_db:.1f} dB of signal to noise", GOOD_DB
            grade = sum(self.sqnr_db >= bound for bound in (USABLE_DB, good))
        else:
            words = f"File and model agree on {self.agreement:.1%} of what they name"
            grade = sum(self.agreement >= bound for bound in (USABLE, GOOD))
        if self.accuracy:
            words += ", and the accuracy is {1:.3f} in the file, {0:.3f} in the model".format(
                *self.accuracy
            )
        beyond = max(output.beyond for output in self.outputs)
        if grade < 2 and beyond > OFTEN:
            return (
                f"{words}: on {beyond:.0%} of these images the model's values go beyond the ranges "
                "of the file. Next: convert it again, calibrated on images like these."
            )
        return f"{words}: {GRADES[grade]}"

    def __str__(self) -> str:
        return f"{self.verdict}\n\n{self.table}"

    @property
    def table(self) -> str:
        """The figures, of the outputs and of the layers."""
        lines = [f"{self.images} images", *map(str, self.outputs)]
        if self.layers:
            shown = self.layers[:LAYERS_SHOWN]
            width = max(len("layer"), *(len(layer.name) for layer in shown))
            lines += ["", f"{'layer':{width}} {'own noise':>10} {'all noise':>10}"]
            lines += [
                f"{layer.name:{width}} {layer.own_db:>7.1f} dB {layer.sqnr_db:>7.1f} dB"
                for layer in shown
            ]
            lines.append(ORDER)
        return "\n".join(lines)


def compare(
    model: keras.Model | str | os.PathLike[str],
    path: str | os.PathLike[str],
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    *,
    batch_size: int = 32,
    layers: int = 0,
    thresholds: Sequence[float] | None = None,
) -> Comparison:
    """Run both on `images` (N, H, W, C), uint8 or float, in the model's input range.

    `model` is a Keras or tf-keras model, or the path of a .keras or another .tflite file. `labels`
    are class numbers (N, ...), for the first output. Float probabilities are compared as logarithms
    minus their mean over classes, which equal the logits minus their mean; this shows differences
    that softmax flattens. Scores (N, labels) of a sigmoid are compared by their logits and, label
    by label, by whether they reach `thresholds` (labels,), by default .5; `labels` are then (N,
    labels) of 0 and 1. `layers` is the number of images, about 8, on which the output of each layer
    of a functional Keras model is compared too, to show where the error arises.
    """
    images = np.asarray(images)
    runner = Runner(path)
    got = by_name(runner(images), [output.name for output in runner.outputs])
    model = opened(model)
    want = predict(model, images, list(got), batch_size)
    file = read_tflite(path)
    results = []
    for name, b in got.items():
        a = want[name]
        if a.shape != b.shape:
            raise ValueError(
                f"Output {name!r} is {a.shape} in the model and {b.shape} in {path}: the file was "
                "made from another model."
            )
        results.append(measure(name, a, b, *last_step(file, name), labels, thresholds))
        labels = None
    noises = noise_by_layer(model, path, images[:layers]) if layers else ()
    return Comparison(len(images), tuple(results), noises)


def measure(
    name: str, a: np.ndarray, b: np.ndarray, quantum: float, scores: str,
    labels: Sequence[int] | np.ndarray | None, thresholds: Sequence[float] | None = None,
) -> Output:  # fmt: skip
    """`a` of the model, `b` of the file, both (N, ..., classes), or class ids (N, ...).

    scores: SOFTMAX or LOGISTIC where one of these makes them, else "".
    """
    sets = scores == "LOGISTIC" and a.ndim == 2
    # A mask's last axis is an image's width; its values are the classes.
    ids = a.dtype.kind in "iub" or b.dtype.kind in "iub"
    if sets:
        least = np.asarray(THRESHOLD if thresholds is None else thresholds)
        top_a, top_b = a >= least, b >= least
    elif scores == "LOGISTIC" and a.shape[-1] == 1:  # the probability of class 1, by pixel
        top_a, top_b = a[..., 0] > THRESHOLD, b[..., 0] > THRESHOLD
    else:
        top_a, top_b = (a, b) if ids else (a.argmax(-1), b.argmax(-1))
    accuracy = None
    if labels is not None:
        truth = np.asarray(labels)
        if truth.shape != top_a.shape:
            raise ValueError(
                f"labels must be {'0 and 1' if sets else 'class numbers'} {top_a.shape}. "
                f"Received: shape {truth.shape}"
            )
        accuracy = (float((top_a == truth).mean()), float((top_b == truth).mean()))
    one_number = not (ids or scores) and a.shape[-1] == 1
    noise = signal = distance = furthest = far = 0.0
    for one, other in zip(a, b, strict=True):  # image by image: masks of many would fill memory
        one, other = one.astype(np.float64), other.astype(np.float64)  # bytes would wrap
        if scores:
            one, other = map(LOGITS[scores], (one, other))
        apart = np.abs(one - other)
        far += bool(quantum) and np.ptp(one) > FAR * LEVELS * quantum
        noise, signal = noise + np.square(apart).mean(), signal + np.square(one).mean()
        distance, furthest = distance + apart.mean(), max(furthest, apart.max())
    steps = np.array([distance / len(a), furthest]) / (quantum or np.nan)
    return Output(
        name=name,
        values=VALUES[scores],
        agreement=math.nan if one_number else float((top_a == top_b).mean()),
        distinct=(0, 0) if one_number else (kinds(top_a, sets), kinds(top_b, sets)),
        sqnr_db=float(10 * np.log10(signal / noise)) if noise else float("inf"),
        quantum=quantum,
        quanta=(float(steps[0]), float(steps[1])),
        accuracy=accuracy,
        beyond=float(far / len(a)),
    )


def centered_logarithm(probabilities: np.ndarray) -> np.ndarray:
    logs = np.log(np.maximum(probabilities, LEAST_PROBABILITY))
    return logs - logs.mean(-1, keepdims=True)


def logits(probabilities: np.ndarray) -> np.ndarray:
    """Return the logits of scores that a sigmoid gave."""
    clipped = np.clip(probabilities, LEAST_PROBABILITY, 1 - 1e-7)  # next below 1 in float32
    return np.log(clipped / (1 - clipped))


LOGITS = {"SOFTMAX": centered_logarithm, "LOGISTIC": logits}
VALUES = {"SOFTMAX": "log-probabilities", "LOGISTIC": "logits", "": "outputs"}


def kinds(answers: np.ndarray, sets: bool) -> int:
    """Return how many answers there are: classes or, of (N, labels), sets of labels."""
    return len(np.unique(answers, axis=0 if sets else None))


def opened(model: keras.Model | str | os.PathLike[str]) -> Any:
    """A model or `Runner`; of a detector the model that gives what its file gives."""
    if isinstance(model, str | os.PathLike):
        if Path(model).suffix == ".tflite":
            return Runner(model)
        model = load_model(model)
    return model.scored() if isinstance(model, Detector) else model


def predict(
    model: Any, images: np.ndarray, wanted: list[str], batch_size: int
) -> dict[str, np.ndarray]:
    """The model's outputs, by the file's names."""
    if isinstance(model, Runner):
        return by_name(model(images), wanted)
    return by_name(model.predict(images, batch_size=batch_size, verbose=0), wanted)


def last_step(file: TfliteModel, name: str) -> tuple[float, str]:
    """(Step of the last quantized tensor before this output or 0, SOFTMAX or LOGISTIC behind it).

    The second is "" where neither of them follows.
    """
    graph, tensor = file.graphs[0], names(file)[1][name]
    producer: dict[int, TfliteOperator] = {t: op for op in graph.operators for t in op.outputs}
    scores = ""
    while True:
        found, op = graph.tensors[tensor], producer.get(tensor)
        if found.scales or op is None or op.name not in PASSED or not op.inputs:
            return (found.scales[0] if found.scales else 0.0), scores
        scores, tensor = op.name if op.name in LOGITS else scores, op.inputs[0]
