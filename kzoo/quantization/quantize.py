"""`quantize`: from a float model to one that computes what its int8 file will."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import keras
import numpy as np

from kzoo.quantization import ranges as ranges_
from kzoo.quantization.correct import correct_biases
from kzoo.quantization.emit import emit
from kzoo.quantization.equalize import equalize
from kzoo.quantization.graph import Graph
from kzoo.quantization.lower import HARD_SWISH, lower
from kzoo.quantization.output_ranges import refine
from kzoo.quantization.read import Kept, read
from kzoo.quantization.rounding import round_weights
from kzoo.quantization.simulate import observe

BATCH = 16
EQUALIZED = 64  # images that channels are compared on
REFINED = 16  # images that ranges are refined on
ROUNDED = 64  # images that weights are rounded on
CORRECTED = 32  # images that biases are corrected on: of a V2 they hold .4 GB


def quantize(
    model: keras.Model, *, calibration: Any = None, hard_swish: Literal["split", "op"] = "split",
    keep_float: Kept = (), ranges: ranges_.Method = "mse", equalization: bool = True,
    bias_correction: bool = True, rounding: Literal["nearest", "learned"] = "nearest",
    progress: Callable[[str], None] = lambda step: None,
) -> keras.Model:  # fmt: skip
    """A copy of `model` that rounds weights and activations as the int8 TFLite file does.

    It is ready for conversion (post-training quantization) and for training (quantization-aware
    training: by `kzoo.distill`, with `model` as its teacher, or compile and fit it as any model, at
    a tenth of the usual learning rate). Batch normalization is folded into the convolutions, its
    statistics with it. `model` stays as it was.

    calibration: images such as the model is for, from which the ranges of activations are taken;
        100 or more. An array (N, H, W, C) in the model's own input range, or an iterable of batches
        (a tf.data.Dataset, a keras.utils.PyDataset, a list), of which labels are ignored.
    hard_swish: "split" computes it as x * relu6(x + 3), which XNNPACK runs in int8, the 1/6 in the
        weights of the layer after; "op" keeps one operation, for accelerators that have it.
    keep_float: layers to leave in float: names as model.summary() prints them, layer classes, or
        compiled regular expressions that whole names match. They are float in the file too, behind
        a DEQUANTIZE and before a QUANTIZE, and as slow as in a float file.
    ranges: "mse" for the least squared error, "minmax" for none cut off, or the share of values to
        cut off at each end of an activation's range. "output" begins with "mse" and tries other
        ranges for the activations that make most noise, by the model's outputs on 16 images: two
        to three times the time of the rest.
    equalization: scale the channels of an activation to one range where the layer after takes that
        back for nothing. In front of a hard-swish it costs one small convolution, placed only where
        it brings a twentieth of the noise (at two to four places of a V3-Small).
    rounding: of weights. "nearest", or "learned": layer after layer, each so that it gives what the
        float layer gives, on 64 images without labels; bias correction is part of it. It takes two
        to three times as long, and the file is as fast.
    progress: called with a line for each layer where ranges="output" or rounding="learned".
    bias_correction: take off each bias what int8 shifts its channel by, on average.

    Signal to noise of the logits on photos (tests/bench/ptq_choices.py): V3-Small 19.1 dB, without
    equalization 12.2, without bias correction 13.6, without both 10.7; with ranges of 1e-4 16.7,
    with "minmax" 16.0. V2 29.1 dB, with ranges of 1e-4 25.1.

    Raises ValueError for a layer that has no int8 form, with its name.
    """
    if hard_swish not in HARD_SWISH:
        allowed = ", ".join(map(repr, HARD_SWISH))
        raise ValueError(
            f"hard_swish must be one of {allowed}. Received: hard_swish={hard_swish!r}"
        )
    if rounding not in ("nearest", "learned"):
        raise ValueError(
            f'rounding must be "nearest" or "learned". Received: rounding={rounding!r}'
        )
    share = isinstance(ranges, float) and 0 < ranges < 0.5
    if not share and ranges not in ("mse", "minmax", "output"):
        raise ValueError(
            'ranges must be "mse", "minmax", "output" or a share in (0, 0.5). Received: '
            f"ranges={ranges!r}"
        )
    if calibration is None:
        raise ValueError(
            "quantize() takes the ranges of activations from images: pass about 100 of those the "
            "model was trained on, calibration=images (N, H, W, C)."
        )
    if isinstance(calibration, Iterator):
        calibration = list(batched(calibration))  # it is read more than once
    check_model(model)
    check_calibration(model, batched(calibration))
    graph, plan = planned(model, calibration, hard_swish, keep_float, ranges, equalization)
    if ranges == "output":
        plan = refine(graph, plan, first(calibration, REFINED), progress)
    if rounding == "learned":
        graph, plan = round_weights(graph, plan, first(calibration, ROUNDED), progress)
    elif bias_correction:
        graph = correct_biases(graph, plan, first(calibration, CORRECTED))
        plan = ranges_.with_limits(graph, plan)
    quantized = emit(graph, plan, name=model.name)
    # A model that is more than its graph, such as a Detector, says how it is built around another.
    like = getattr(model, "like", None)
    return like(quantized.input, quantized.output) if like else quantized


def planned(
    model: keras.Model, calibration: Any, hard_swish: str, keep_float: Kept,
    ranges: ranges_.Method, equalization: bool,
) -> tuple[Graph, ranges_.Plan]:  # fmt: skip
    """The graph of the model in its int8 form, and what quantization adds to it."""
    graph = read(model, keep_float)
    graph = lower(graph, hard_swish=hard_swish, bytes_in=holds_bytes(batched(calibration)))
    placed = ranges_.place(graph)
    histograms = observe(graph, *placed, batched(calibration))
    plan = ranges_.make_plan(graph, placed, histograms, ranges)
    if equalization:
        graph, changed = equalize(graph, plan, first(calibration, EQUALIZED))
        if changed:
            placed = grids, rounded = ranges_.place(graph)
            # Those that share a range are observed together.
            keys = {grids[name] for name in changed & rounded}
            names = {name for name in rounded if grids[name] in keys}
            histograms |= observe(graph, grids, names, batched(calibration))
            plan = ranges_.make_plan(graph, placed, histograms, ranges)
    return graph, plan


DARKEST, BRIGHTEST = 0.05, 20.0  # of images behind a Rescaling: the least span, the largest value


def check_model(model: keras.Model) -> None:
    """Raise ValueError for weights that are not finite, or that Keras' own quantize has rounded."""
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if getattr(layer, "quantization_mode", None):
            raise ValueError(
                f"Layer {layer.name!r} was quantized by Keras' own quantize(), whose int8 is not "
                "TFLite's. Give the float model that it was made from."
            )
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(weight)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(
                f"The weight {weight.path!r} of {model.name!r} holds values that are not finite: "
                "its training diverged. Train again with a lower learning rate."
            )


def check_calibration(model: keras.Model, batches: Iterator[np.ndarray]) -> None:
    """Raise ValueError for calibration images of one value, or in another range than the model's.

    That range is told by a Rescaling at the model's front: one of 1/127.5 is for [0, 255].
    """
    low, high = np.inf, -np.inf
    for batch in batches:
        if batch.size:
            low, high = min(low, float(batch.min())), max(high, float(batch.max()))
    if low > high:
        return  # empty: told where it is read
    if low == high:
        raise ValueError(
            f"The calibration images hold nothing but the value {low:g}, which tells no range of "
            "activations. Pass about 100 images like those that the model will see."
        )
    first = next((x for x in model.layers if isinstance(x, keras.layers.Rescaling)), None)
    if first is None or first.input is not model.inputs[0]:
        return
    scale, offset = np.asarray(first.scale, np.float64), np.asarray(first.offset, np.float64)
    ends = np.stack(np.broadcast_arrays(low * scale + offset, high * scale + offset))
    span, most = np.abs(ends[1] - ends[0]).max(), np.abs(ends).max()
    if span < DARKEST or most > BRIGHTEST:
        raise ValueError(
            f"The calibration images are in [{low:g}, {high:g}], and the model begins with "
            f"Rescaling({np.ravel(scale)[0]:.6g}), which makes [{ends.min():.3g}, "
            f"{ends.max():.3g}] of that: they are in another range than the model's. Pass images "
            "as the model takes them, [0, 255] for Rescaling(1 / 127.5)."
        )


def batched(calibration: Any) -> Iterator[np.ndarray]:
    """The images of a calibration set, a batch at a time."""
    if isinstance(calibration, np.ndarray):
        for i in range(0, len(calibration), BATCH):
            yield calibration[i : i + BATCH].astype(np.float32)
        return
    if not isinstance(calibration, Iterable):
        raise ValueError(
            f"calibration must be an array (N, H, W, C) or an iterable of batches. Received: "
            f"{type(calibration).__name__}"
        )
    for batch in calibration:
        images = batch[0] if isinstance(batch, tuple | list) else batch
        yield keras.ops.convert_to_numpy(images).astype(np.float32)


def first(calibration: Any, n: int) -> np.ndarray:
    """The first `n` images, or as many as there are."""
    found: list[np.ndarray] = []
    for batch in batched(calibration):
        found.append(batch)
        if sum(map(len, found)) >= n:
            break
    return np.concatenate(found)[:n]


def holds_bytes(batches: Iterator[np.ndarray]) -> bool:
    """Whether images are bytes, 0 to 255, by their values."""
    low, high = np.inf, -np.inf
    for batch in batches:
        low, high = min(low, batch.min()), max(high, batch.max())
    return ranges_.pixel_range(low, high) == (0, 255)
