"""`quantize`: return a fake-quantized copy of a float model, faithful to TFLite's int8 kernels."""

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
from kzoo.quantization.correct import correct, images_for
from kzoo.quantization.emit import emit
from kzoo.quantization.equalize import equalize
from kzoo.quantization.graph import Graph
from kzoo.quantization.layers import FakeQuant
from kzoo.quantization.lower import HARD_SWISH, lower
from kzoo.quantization.output_ranges import CHOOSING, JUDGING, refine
from kzoo.quantization.read import Kept, functional, read
from kzoo.quantization.simulate import observe

RANKED = 16  # images that choose the activations to equalize, by their quantization noise
EQUALIZED = 64  # images that the ranges of single channels are measured on


def quantize(
    model: keras.Model, *, calibration: Any = None, hard_swish: Literal["split", "op"] = "split",
    keep_float: Kept = (), ranges: ranges_.Method = "output",
    equalization: bool | Literal["all"] = True,
    bias_correction: bool = True,
    progress: Callable[[str], None] = lambda step: None,
) -> keras.Model:  # fmt: skip
    """Return a copy of `model` that rounds weights and activations as the int8 TFLite file does.

    The copy can be converted (post-training quantization) or trained (quantization-aware training:
    with `kzoo.distill` and `model` as the teacher, or with compile and fit like any model, at a
    tenth of the usual learning rate). Batch normalization is folded into the convolutions. `model`
    does not change.

        int8 = kzoo.quantize(model, calibration=images[:200])
        kzoo.tflite.convert(int8, "model.tflite")

    calibration: 100 or more representative images, which give the ranges of the activations: an
        array (N, H, W, C) in the model's own input range, or an iterable of batches (a
        tf.data.Dataset, a keras.utils.PyDataset, a list), whose labels are ignored.
    hard_swish: "split" computes it as x * relu6(x + 3), which XNNPACK runs in int8, with the 1/6 in
        the weights of the next layer; "op" keeps one operation, for accelerators that have it.
    keep_float: layers to leave in float: names as in model.summary(), layer classes, or compiled
        regular expressions that match whole names. They are float in the file too, between a
        DEQUANTIZE and a QUANTIZE, and as slow as in a float file.
    ranges: how to choose the range of each activation. "mse" minimizes the tensor's squared
        quantization error; "minmax" clips nothing; a number in (0, 0.5) is the share of values to
        clip at each end. "output" starts from "mse" and narrows the ranges of the noisiest
        activations while the model's outputs on 6 images come nearer to float; if the outputs
        on 8 other images do not, the "mse" ranges stay.
    equalization: cross-layer equalization: scale the channels of an activation to a common range
        and divide the weights of the next layer by the same factors. In front of a hard-swish this
        needs an additional 1x1 depthwise convolution, which True adds only where the activation
        causes at least a twentieth of the noise (at four places of a V3-Small) and "all" adds
        everywhere: a V3-Small becomes more accurate and 11 % slower.
    bias_correction: subtract from each bias the mean error of its int8 output channel, and refit
        the weights of 1x1 convolutions and dense layers to their int8 inputs where that reduces
        the error on held-out images. The file is as large and as fast.
    progress: called first with problems of `calibration` (too few images, duplicates, all alike),
        then with a line for each step of ranges="output", naming the activations it narrows.

    Raises ValueError for a layer without an int8 form (the message names it), a model of several
    inputs, a model that is quantized already, and unusable calibration images.
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
    check_inputs(model)
    if calibration is None:
        raise ValueError(
            "quantize() takes the ranges of activations from images: pass about 100 of those the "
            "model was trained on, calibration=images (N, H, W, C)."
        )
    if any(isinstance(layer, FakeQuant) for layer in model._flatten_layers()):
        raise ValueError(
            f"{model.name!r} has int8 ranges already. Convert it with kzoo.tflite.convert, or give "
            "quantize() the float model that it was made from."
        )
    if isinstance(calibration, Iterator):
        calibration = list(batched(calibration))  # an iterator could be read only once
    check_model(model)
    check_calibration(model, batched(calibration))
    for remark in calibration_remarks(batched(calibration)):
        progress(remark)
    graph, plan = planned(model, calibration, hard_swish, keep_float, ranges, equalization)
    if ranges == "output":
        plan = refine(graph, plan, first(calibration, CHOOSING + JUDGING), progress)
    if bias_correction:
        graph = correct(graph, plan, first(calibration, images_for(graph)))
        plan = ranges_.with_limits(graph, plan)
    names = functional(model).output_names
    quantized = emit(graph, plan, name=model.name, output_names=names)
    # A subclass such as Detector has a method `like` that wraps another graph.
    like = getattr(model, "like", None)
    return like(quantized.input, quantized.output) if like else quantized


def planned(
    model: keras.Model, calibration: Any, hard_swish: str, keep_float: Kept,
    ranges: ranges_.Method, equalization: bool | Literal["all"],
) -> tuple[Graph, ranges_.Plan]:  # fmt: skip
    """Return (the model's rewritten and equalized graph, its quantization plan)."""
    graph = read(model, keep_float)
    graph = lower(graph, hard_swish=hard_swish, bytes_in=holds_bytes(batched(calibration)))
    if equalization:
        few = plan_of(graph, first(calibration, RANKED), ranges)
        images = first(calibration, EQUALIZED)
        graph = equalize(graph, few, images, everywhere=equalization == "all")
    return graph, plan_of(graph, calibration, ranges)


def plan_of(graph: Graph, calibration: Any, ranges: ranges_.Method) -> ranges_.Plan:
    """Return where and over which ranges the graph is quantized, from calibration images."""
    placed = ranges_.place_fake_quants(graph)
    return ranges_.make_plan(graph, placed, observe(graph, *placed, batched(calibration)), ranges)


def check_inputs(model: keras.Model) -> None:
    """Raise ValueError for a model of several inputs."""
    names = [tensor.name for tensor in getattr(model, "inputs", None) or ()]
    if len(names) > 1:
        raise ValueError(
            f"quantize() takes models of one input; {model.name!r} has {len(names)} "
            f"({', '.join(names)}). Quantize and convert what stands behind each input by itself, "
            "keras.Model(model.inputs[0], features), and join their outputs in the app; "
            "or train the model on one input that holds both as channels."
        )


def check_model(model: keras.Model) -> None:
    """Raise ValueError for weights that are not finite or were quantized by Keras' quantize()."""
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
