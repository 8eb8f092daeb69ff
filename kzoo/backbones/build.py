"""`build` turns a table of rows into a `keras.Model`; `Options` are the shared arguments."""

import dataclasses
import functools
import inspect
import itertools
import math
import operator
import os
import re
from collections.abc import Callable
from typing import Any, Literal, TypedDict, get_type_hints

import keras
from keras import layers

from kzoo.arguments import check_call, is_number, is_whole, one_of, require
from kzoo.backbones.rows import Head, Net, Row, change
from kzoo.preprocessing import PREPROCESSING, Tensor, channel_axis, preprocess
from kzoo.weights import loading as checkpoints


class Options(TypedDict, total=False):
    """The arguments that every backbone shares. Names and meanings are keras.applications' own.

    input_shape: (H, W, C), or (C, H, W) under "channels_first"; H and W at least 32, or None.
    include_top: with the classifier, or only the features (N, H / 32, W / 32, C).
    weights: None (random; the network is never touched), "imagenet" or another name (of those that
        `kzoo.list_weights` returns), or the path of a .weights.h5, .h5, .keras, .pth, .safetensors
        or .tflite file or of a model.json of TensorFlow.js. Before training on, see
        `kzoo.freeze_batch_norm` and `kzoo.recalibrate_batch_norm`.
    input_tensor: a Keras tensor to build upon, in place of `input_shape`.
    pooling: without top, "avg" or "max" gives features (N, C).
    classes: number of classes.
    classifier_activation: any Keras activation; None gives logits.
    dropout_rate: in [0, 1), before the classifier.
    preprocessing: "tf" takes pixels in [0, 255] and maps them to [-1, 1] inside the model; "torch"
        takes pixels in [0, 255] and applies ImageNet's mean and standard deviation; None takes the
        tensor as it is. With `weights` trained another way, theirs replaces "tf" or "torch"; a
        .weights.h5 file does not tell how.
    padding: "same" (Keras) or "symmetric" (PyTorch). With `weights`, theirs is used.
    output_stride: 32, 16 or 8: the last stages keep the resolution and are dilated instead.
    norm_momentum: of batch normalization. .99 suits short runs; keras.applications has .999.
    name: of the model.
    """

    input_shape: tuple[int | None, int | None, int]
    include_top: bool
    weights: str | os.PathLike[str] | None
    input_tensor: Any
    pooling: Literal["avg", "max"] | None
    classes: int
    classifier_activation: Any
    dropout_rate: float
    preprocessing: Literal["tf", "torch"] | None
    padding: Literal["same", "symmetric"]
    output_stride: Literal[32, 16, 8]
    norm_momentum: float
    name: str | None


POOLING = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}


def strides(rows: tuple[Row, ...]) -> tuple[int, ...]:
    """Return the total stride after each row."""
    return tuple(itertools.accumulate((getattr(r, "stride", 1) for r in rows), operator.mul))


def dilate(
    rows: tuple[Row, ...], output_stride: int, padding: Literal["same", "symmetric"]
) -> tuple[Row, ...]:
    """Return the rows with strides beyond `output_stride` replaced by dilation.

    A row that loses its own stride is not dilated by it in TensorFlow's nets ("same" padding),
    since its input still has the resolution it was trained on; torchvision's nets ("symmetric")
    dilate it already. Weights of either kind need their own variant.
    """
    dilated = []
    for row, total in zip(rows, strides(rows), strict=True):
        if total > output_stride:
            lost = total // output_stride
            if padding == "same":
                lost //= getattr(row, "stride", 1)
            row = change(row, stride=1, dilation=lost * getattr(row, "dilation", 1))
        dilated.append(row)
    return tuple(dilated)


SHAPE = (224, 224, 3)


def build(
    model_name: str,
    rows: tuple[Row, ...],
    head: Head,
    alpha: float = 1.0,
    *,
    input_shape: tuple[int | None, int | None, int] = SHAPE,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    input_tensor: Tensor | None = None,
    pooling: Literal["avg", "max"] | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    dropout_rate: float = 0.2,
    preprocessing: Literal["tf", "torch"] | None = "tf",
    padding: Literal["same", "symmetric"] = "same",
    output_stride: Literal[32, 16, 8] = 32,
    norm_momentum: float = 0.99,
    name: str | None = None,
) -> keras.Model:
    """Return a model of `rows` followed by `head`; layers of row i are called `row{i}_...`.

    rows, head: the architecture, objects of `kzoo.backbones.rows`; alpha scales their widths.
    The other arguments are those of `Options`. Raises ValueError for values out of range.
    """
    require("alpha", alpha, is_number(alpha) and 0 < alpha < math.inf, "a number > 0")
    require("classes", classes, is_whole(classes) and classes >= 1, "a whole number >= 1")
    for argument, rate in (("dropout_rate", dropout_rate), ("norm_momentum", norm_momentum)):
        require(argument, rate, is_number(rate) and 0 <= rate < 1, "a number in [0, 1)")
    one_of("preprocessing", preprocessing, (*PREPROCESSING, None))
    one_of("padding", padding, ("same", "symmetric"))
    one_of("output_stride", output_stride, (32, 16, 8))
    one_of("pooling", pooling, (*POOLING, None))

    if input_tensor is None:
        image = keras.Input(check_shape("input_shape", input_shape), name="image")
    else:
        tensor = isinstance(input_tensor, keras.KerasTensor)
        require("input_tensor", input_tensor, tensor, "a Keras tensor, such as keras.Input gives")
        shape = check_shape("input_tensor", input_tensor.shape[1:])
        same = tuple(input_shape) in (SHAPE, shape)
        require("input_shape", input_shape, same, f"left out, or input_tensor's, {shape}")
        image = input_tensor
    if include_top and head.flatten:
        fixed = None not in image.shape[1:]
        require("input_shape", image.shape[1:], fixed, "fixed, since this head flattens the map")
    checkpoint = None
    net = Net(float(alpha), padding, norm_momentum)
    if weights is not None:
        sides = image.shape[2:] if channel_axis() == 1 else image.shape[1:-1]
        checkpoint = checkpoints.open_checkpoint(
            weights, model_name, alpha, include_top=include_top, sides=sides
        )
        net = dataclasses.replace(
            net,
            padding=checkpoint.padding or padding,
            norm_epsilon=checkpoint.norm_epsilon or net.norm_epsilon,
        )
        preprocessing = preprocessing and checkpoints.preprocessing_of(checkpoint, preprocessing)

    x = preprocess(image, preprocessing) if preprocessing else image
    for i, row in enumerate(dilate(rows, output_stride, net.padding)):
        x = row(x, net, f"row{i}")
    if include_top:
        x = head(
            x, net, classes=classes, dropout_rate=dropout_rate, activation=classifier_activation
        )
    elif pooling:
        x = POOLING[pooling](name="features_pool")(x)

    sources = keras.utils.get_source_inputs(image)
    model = keras.Model(sources if len(sources) > 1 else sources[0], x, name=name or model_name)
    model.pyramid_outputs = pyramid(model)  # as keras-hub wants it
    model.pyramid_level_inputs = {  # as keras-cv wants it
        level: features._keras_history.operation.name
        for level, features in model.pyramid_outputs.items()
    }
    if checkpoint:
        model.loaded_weights = checkpoints.assign(model, checkpoint)
    return model


def pyramid(model: keras.Model) -> dict[str, Tensor]:
    """Return the last row's output at each stride: {"P1": (N, H / 2, W / 2, C), ..., "P5": ...}.

    The values are Keras tensors to build on. Works on any functional model that contains the
    layers of a kzoo backbone, also one loaded from a file. With `output_stride=16` the levels end
    at P4. Raises ValueError for other models.
    """
    return {f"P{stride.bit_length() - 1}": features for stride, features in row_outputs(model)}


# Strided convolutions on side branches, whose stride the main branch has too.
ASIDE = ("shortcut", "key_down", "value_down")


def row_outputs(model: keras.Model) -> list[tuple[int, Tensor]]:
    """Return (total stride, output) of each row, in order. Raises ValueError as `pyramid` does."""
    found, stride = [], 1
    for layer in model.layers:
        row = re.fullmatch(r"row\d+_(\w+)", layer.name)
        if not row:
            continue
        if hasattr(layer, "strides") and row[1] not in ASIDE:
            stride *= layer.strides[0]
        if row[1] == "out":
            found.append((stride, layer.output))
    if not found:
        raise ValueError(
            f"{model.name!r} has no layers called row0_out, row1_out, ...: pyramid() reads kzoo's "
            "backbones. Pass the backbone itself, not a model that holds it as one layer."
        )
    return found


def check_shape(argument: str, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Return the shape of one image as a tuple; raise ValueError if it is not one."""
    first = channel_axis() == 1
    wanted = "(C, H, W)" if first else "(H, W, C)"
    wanted += " with H and W at least 32 or None, and C at least 1"
    shape = tuple(input_shape) if isinstance(input_shape, tuple | list) else ()
    require(argument, input_shape, len(shape) == 3, wanted)
    *sides, n = (shape[1], shape[2], shape[0]) if first else shape
    fits = all(side is None or (is_whole(side) and side >= 32) for side in sides)
    require(argument, input_shape, fits and is_whole(n) and n >= 1, wanted)
    return shape


def documented(builder: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
    """Return `builder` with the arguments of `Options` in its signature and its docstring."""
    shared = inspect.signature(build).parameters
    own = inspect.signature(builder).parameters
    parameters = [own["alpha"], *(shared[key] for key in get_type_hints(Options))]
    parameters += [p for key, p in own.items() if key not in ("alpha", "options")]

    @functools.wraps(builder)
    def public(*args: Any, **kwargs: Any) -> keras.Model:
        check_call(builder.__name__, signature, args, kwargs)
        return builder(*args, **kwargs)

    signature = inspect.Signature(parameters, return_annotation=keras.Model)
    public.__signature__ = signature  # type: ignore[attr-defined]
    public.__doc__ = f"{inspect.getdoc(builder)}\n\n{inspect.getdoc(Options)}"
    return public
