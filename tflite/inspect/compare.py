"""`compare`: differences between the outputs of a .tflite file and of its model on images."""

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

# Operators that may lie between the last quantized tensor and an output.
PASSED = {"DEQUANTIZE", "QUANTIZE", "SOFTMAX", "LOGISTIC", "RESHAPE"}
LEAST_PROBABILITY = 1e-12  # smaller ones are raised to it before the logarithm
THRESHOLD = 0.5  # of a label's sigmoid score
LAYERS_SHOWN = 5
# Sound int8 files of trained nets reached an agreement of .88 to 1.0, broken ones .10 to .5; the
# boxes of detectors that lost no mAP had 18 dB or more.
USABLE, GOOD, USABLE_DB, GOOD_DB = 0.8, 0.95, 6.0, 15.0
# An image counts as out of range if the model's values spread over more than FAR times the file's
# last range. Ranges of least squared error clip the largest values of a few images; a share above
# OFTEN means images unlike those of the calibration.
FAR, OFTEN = 1.5, 0.05
GRADES = (
    "the file is much worse than the model. Next: kzoo sensitivity names the layers that lose "
    "most; more varied calibration images or training it quantized (--qat always) help.",
    "it is usable, and some answers change. Next: kzoo sensitivity names the layers that lose "
    "most; training it quantized (--qat always) may help, if it was only calibrated.",
    "the file is as good as the model. Next: kzoo benchmark, kzoo android.",
)
ORDER = (
    "Signal to noise behind each layer of the file, the layers that add most noise first. kzoo\n"
    "sensitivity orders them otherwise, by what each alone costs the outputs: noise in one layer\n"
    "can be evened out by the next, or matter to every class."
)


@dataclasses.dataclass(frozen=True)
class Output:
    """The comparison of one output. Arrays have any number of axes; classes are on the last."""

    name: str
    # What was compared: "outputs", "log-probabilities" if the model ends in a softmax, "logits" if
    # it ends in a sigmoid.
    values: str
    # Share of predictions in [0, 1] that are equal: the argmax; the value of integer outputs; for
    # sigmoid scores, whether a label reaches its threshold. nan for outputs without classes, such
    # as a regressor's.
    agreement: float
    # Number of different predictions by (model, file), since agreement is 1 between constants.
    # (0, 0) without classes.
    distinct: tuple[int, int]
    sqnr_db: float  # signal-to-quantization-noise ratio: 10 log10(power / power of the difference)
    quantum: float  # scale of the last quantized tensor before this output in the file, or 0
    quanta: tuple[float, float]  # (mean, largest) difference in quanta; nan without
    accuracy: tuple[float, float] | None  # of (model, file), if labels were given
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
                "  different answers: model {}, file {}".format(*self.distinct),
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
    """The result of `compare`. `str` of it is a verdict and a table."""

    images: int  # number of images
    outputs: tuple[Output, ...]
    layers: tuple[LayerNoise, ...] = ()  # the noisiest first; empty unless requested

    @property
    def agreement(self) -> float:
        """The lowest agreement of the outputs with classes, in [0, 1]; nan if none has."""
        return min((x.agreement for x in self.outputs if x.has_classes), default=math.nan)

    @property
    def sqnr_db(self) -> float:
        """The lowest SQNR of the outputs, in dB."""
        return min(output.sqnr_db for output in self.outputs)

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Accuracy of (model, file) for the first output; None without labels."""
        return self.outputs[0].accuracy

    @property
    def verdict(self) -> str:
        """A sentence that says how good the file is and what to do next."""
        if all(output.distinct[0] == 1 for output in self.outputs):
            return "This says little: the model itself names one class on all of these images."
        if len(self.outputs) > 1 or not self.outputs[0].has_classes:  # boxes, or a regressor's
            words, good = f"The outputs keep {self.sqnr_db:.1f} dB of signal to noise", GOOD_DB
            grade = sum(self.sqnr_db >= bound for bound in (USABLE_DB, good))
        else:
            words = f"File and model agree on {self.agreement:.1%} of the answers"
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
        """The figures of the outputs and the layers, as text."""
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
    """Return how the outputs of the .tflite file `path` differ from the model's on `images`.

        print(kzoo.tflite.compare(model, "model.tflite", images, labels))

    model: a Keras or tf-keras model, or the path of a .keras or another .tflite file.
    images: (N, H, W, C), uint8 or float, in the model's input range.
    labels: class numbers (N, ...) for the first output, for accuracy; of a multi-label model
        (N, labels) of 0 and 1.
    batch_size: of the model.
    layers: number of images, about 8, on which the output of each layer of a functional Keras model
        is compared too, to show where the error arises.
    thresholds: (labels,), of a multi-label model's scores, by default .5.

    Softmax probabilities are compared as logarithms minus their mean over classes, which are the
    logits minus their mean: this shows differences that softmax flattens. Sigmoid scores are
    compared as logits. Raises ValueError if names or shapes of the outputs differ, and for labels
    of another shape.
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
    """Return the comparison of one output, `a` of the model and `b` of the file.

    a, b: (N, ..., classes), or class ids (N, ...).
    quantum, scores: as returned by `last_step`.
    """
    sets = scores == "LOGISTIC" and a.ndim == 2
    # The last axis of a mask is the image's width; its values are class ids.
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
    for one, other in zip(a, b, strict=True):  # image by image, to save memory
        one, other = one.astype(np.float64), other.astype(np.float64)  # uint8 would wrap around
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
    """Return log-probabilities minus their mean over classes (..., classes)."""
    logs = np.log(np.maximum(probabilities, LEAST_PROBABILITY))
    return logs - logs.mean(-1, keepdims=True)


def logits(probabilities: np.ndarray) -> np.ndarray:
    """Return the logits of sigmoid scores."""
    clipped = np.clip(probabilities, LEAST_PROBABILITY, 1 - 1e-7)  # about the last float32 below 1
    return np.log(clipped / (1 - clipped))


LOGITS = {"SOFTMAX": centered_logarithm, "LOGISTIC": logits}
VALUES = {"SOFTMAX": "log-probabilities", "LOGISTIC": "logits", "": "outputs"}


def kinds(answers: np.ndarray, sets: bool) -> int:
    """Return the number of different predictions: classes or, for (N, labels), sets of labels."""
    return len(np.unique(answers, axis=0 if sets else None))


def opened(model: keras.Model | str | os.PathLike[str]) -> Any:
    """Return a model or a `Runner`; for a detector the model with scores, as in its file."""
    if isinstance(model, str | os.PathLike):
        if Path(model).suffix == ".tflite":
            return Runner(model)
        model = load_model(model)
    return model.scored() if isinstance(model, Detector) else model


def predict(
    model: Any, images: np.ndarray, wanted: list[str], batch_size: int
) -> dict[str, np.ndarray]:
    """Return the model's outputs by the file's names."""
    if isinstance(model, Runner):
        return by_name(model(images), wanted)
    return by_name(model.predict(images, batch_size=batch_size, verbose=0), wanted)


def last_step(file: TfliteModel, name: str) -> tuple[float, str]:
    """Return (scale of the last quantized tensor before this output, activation after it).

    The scale is 0 if there is no quantized tensor; the activation is "SOFTMAX", "LOGISTIC" or "".
    """
    graph, tensor = file.graphs[0], names(file)[1][name]
    producer: dict[int, TfliteOperator] = {t: op for op in graph.operators for t in op.outputs}
    scores = ""
    while True:
        found, op = graph.tensors[tensor], producer.get(tensor)
        if found.scales or op is None or op.name not in PASSED or not op.inputs:
            return (found.scales[0] if found.scales else 0.0), scores
        scores, tensor = op.name if op.name in LOGITS else scores, op.inputs[0]
