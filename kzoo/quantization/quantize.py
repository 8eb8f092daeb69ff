"""`quantize`: from a float model to one that computes what its int8 file will."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import keras
import numpy as np

from kzoo.quantization import ranges as ranges_
from kzoo.quantization.calibration import (
    batched,
    calibration_remarks,
    check_calibration,
    first,
    holds_bytes,
)
from kzoo.quantization.correct import correct_biases
from kzoo.quantization.emit import emit
from kzoo.quantization.equalize import equalize
from kzoo.quantization.graph import Graph
from kzoo.quantization.lower import HARD_SWISH, lower
from kzoo.quantization.output_ranges import CHOOSING, JUDGING, refine
from kzoo.quantization.read import Kept, read
from kzoo.quantization.simulate import observe

RANKED = 16  # images whose ranges tell which activations make noise, before equalization
EQUALIZED = 64  # images that channels are compared on
CORRECTED = 32  # images that biases are corrected on: of a V2 they hold .4 GB


def quantize(
    model: keras.Model, *, calibration: Any = None, hard_swish: Literal["split", "op"] = "split",
    keep_float: Kept = (), ranges: ranges_.Method = "output",
    equalization: bool | Literal["all"] = True,
    bias_correction: bool = True,
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
    ranges: "output" begins with the ranges of least squared error ("mse") and narrows those of the
        activations that make most noise, as long as the model's outputs on 6 images come nearer to
        float; if they do not on 8 others, it stays with "mse".
        "minmax" for none cut off, or the share of values to cut off at each end of an activation's
        range.
    equalization: scale the channels of an activation to one range where the layer after takes that
        back for nothing. In front of a hard-swish it costs one small convolution, placed only where
        that activation makes a twentieth of the noise (at four places of a V3-Small). "all" places
        it at every such activation, where a V3-Small gains in accuracy and takes 11 % more time.
    bias_correction: take off each bias what int8 shifts its channel by, on average.
    progress: called first with what `calibration` is short of (too few images, the same ones again,
        all alike), then with a line for each step of ranges="output": which activations it narrows.

    Raises ValueError for a layer that has no int8 form, with its name.
    """
    if hard_swish not in HARD_SWISH:
        allowed = ", ".join(map(repr, HARD_SWISH))
        raise ValueError(
            f"hard_swish must be one of {allowed}. Received: hard_swish={hard_swish!r}"
        )
    if equalization not in (True, False, "all"):
        raise ValueError(
            f'equalization must be True, False or "all". Received: equalization={equalization!r}'
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
    for remark in calibration_remarks(batched(calibration)):
        progress(remark)
    graph, plan = planned(model, calibration, hard_swish, keep_float, ranges, equalization)
    if ranges == "output":
        plan = refine(graph, plan, first(calibration, CHOOSING + JUDGING), progress)
    if bias_correction:
        graph = correct_biases(graph, plan, first(calibration, CORRECTED))
        plan = ranges_.with_limits(graph, plan)
    quantized = emit(graph, plan, name=model.name)
    # A model that is more than its graph, such as a Detector, says how it is built around another.
    like = getattr(model, "like", None)
    return like(quantized.input, quantized.output) if like else quantized


def planned(
    model: keras.Model, calibration: Any, hard_swish: str, keep_float: Kept,
    ranges: ranges_.Method, equalization: bool | Literal["all"],
) -> tuple[Graph, ranges_.Plan]:  # fmt: skip
    """The graph of the model in its int8 form, and what quantization adds to it."""
    graph = read(model, keep_float)
    graph = lower(graph, hard_swish=hard_swish, bytes_in=holds_bytes(batched(calibration)))
    if equalization:
        few = plan_of(graph, first(calibration, RANKED), ranges)
        images = first(calibration, EQUALIZED)
        graph = equalize(graph, few, images, everywhere=equalization == "all")
    return graph, plan_of(graph, calibration, ranges)


def plan_of(graph: Graph, calibration: Any, ranges: ranges_.Method) -> ranges_.Plan:
    placed = ranges_.place(graph)
    return ranges_.make_plan(graph, placed, observe(graph, *placed, batched(calibration)), ranges)


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
