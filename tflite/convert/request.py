"""The arguments of a conversion, checked by themselves and against the model."""

import dataclasses
from pathlib import Path
from typing import Literal

import keras
import numpy as np

from kzoo.files import require_suffix
from kzoo.quantization.ranges import CHANNELS, pixel_range
from kzoo.tflite.convert.forms import form
from kzoo.tflite.convert.postprocess import PostProcess
from kzoo.tflite.convert.translation import SCHEMES
from kzoo.tflite.metadata.reading import Metadata


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of `convert`, checked as far as possible without the model."""

    out: Path
    scheme: str
    io: str | None
    labels: tuple[str, ...] | None
    image_size: tuple[int, int] | None
    calibrator: str = "kzoo"
    metadata: Metadata | None = None
    batch_size: int = 1
    postprocess: PostProcess | None = None
    hard_swish: Literal["split", "op"] = "split"
    outputs: str = "float32"
    target: str | None = None
    keep_float: tuple[str, ...] = ()  # layers that `kzoo.quantize` leaves in float
    float_first: bool = False  # as in `Form`

    def __post_init__(self) -> None:
        require_suffix(self.out, ".tflite")
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise ValueError(
                f"batch_size must be a whole number >= 1. Received: {self.batch_size!r}"
            )
        if self.calibrator not in ("kzoo", "tensorflow"):
            raise ValueError(
                f'calibrator must be "kzoo" or "tensorflow". Received: {self.calibrator!r}'
            )
        if self.scheme not in SCHEMES:
            raise ValueError(
                f"scheme must be one of {', '.join(SCHEMES)}. Received: {self.scheme!r}"
            )
        if self.keep_float and (self.scheme != "int8" or self.calibrator != "kzoo"):
            raise ValueError(
                'keep_float is for scheme="int8" with calibrator="kzoo". Received: '
                f"scheme={self.scheme!r}, calibrator={self.calibrator!r}"
            )
        inputs = SCHEMES[self.scheme].inputs
        if self.io is None:
            object.__setattr__(self, "io", inputs[0])
        if self.io not in inputs:
            raise ValueError(
                f'io must be one of {", ".join(inputs)} for scheme="{self.scheme}". '
                f"Received: {self.io!r}"
            )
        for label in self.labels or ():
            if not isinstance(label, str) or len(label.splitlines()) != 1:
                raise ValueError(f"A label must be one line of text. Received: {label!r}")


def requested(
    out: Path, target: str, *, scheme: str | None = None, io: str | None = None,
    labels: tuple[str, ...] | None = None, image_size: tuple[int, int] | None = None,
    calibrator: str = "kzoo", metadata: Metadata | None = None, batch_size: int = 1,
    postprocess: PostProcess | None = None, keep_float: tuple[str, ...] = (),
) -> Request:  # fmt: skip
    """Return a request with missing settings taken from the target's form.

    Given `scheme` and `io` take precedence; another scheme than the target's has its own default
    input and float32 outputs.
    """
    chosen = form(target)
    own = scheme in (None, chosen.scheme)
    return Request(
        out, scheme or chosen.scheme, io or (chosen.io if own else None), labels, image_size,
        calibrator, metadata, batch_size, postprocess, chosen.hard_swish,
        chosen.outputs if own else "float32", target, keep_float, chosen.float_first,
    )  # fmt: skip


def image_shape(model: keras.Model, image_size: tuple[int, int] | None) -> tuple[int, int, int]:
    """Return (H, W, C) of the model's input; raise ValueError if it is not one of images."""
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        found = ", ".join(str(tuple(x.shape)) for x in inputs) or "none that is known"
        raise ValueError(
            "convert takes a functional or sequential model with one input (N, H, W, C). "
            f"Received: {type(model).__name__} {model.name!r} with inputs {found}. Of several "
            "inputs, convert what stands behind each by itself, keras.Model(model.inputs[0], ...)."
        )
    for layer in model._flatten_layers():
        if getattr(layer, "data_format", None) == "channels_first":
            raise ValueError(
                f'Layer {layer.name!r} is "channels_first"; TFLite computes on (N, H, W, C). Build '
                'the model under keras.config.set_image_data_format("channels_last") and load the '
                "same weights."
            )
    _, height, width, channels = inputs[0].shape
    given = tuple(image_size) if image_size else (height, width)
    if None in given:
        raise ValueError(
            f"The model's input is {tuple(inputs[0].shape)}: pass the size of the file, "
            "for example image_size=(224, 224)."
        )
    for own, asked in zip((height, width), given, strict=True):
        if own not in (None, asked):
            raise ValueError(
                f"image_size={given} does not fit the model's input {tuple(inputs[0].shape)}. "
                "Leave it out, or rebuild the model for that size."
            )
    return (*given, channels)


def output_names(model: keras.Model, labels: tuple[str, ...] | None) -> list[str]:
    """Return one name for each output, in the order in which TensorFlow flattens them."""
    outputs = model.output if isinstance(model.output, dict) else None
    names = sorted(outputs) if outputs else list(model.output_names)
    names = [name.removesuffix("_quant") for name in names]  # the names in the float model
    names = [name if names.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(names)]
    first = model.outputs[0].shape
    classes = first[-1] if len(model.outputs) == 1 and len(first) in (2, 4) else None
    if labels is not None and classes not in (None, 1, len(labels)):
        raise ValueError(
            f"The model has {classes} classes, but there are {len(labels)} labels: give one for "
            "each class, in the model's order."
        )
    return names


def calibration_set(
    calibration: np.ndarray | None, shape: tuple[int, int, int], request: Request
) -> np.ndarray:
    if calibration is None:
        raise ValueError(
            f'scheme="{request.scheme}" needs calibration=images, (N, H, W, C), some 100 to 500 '
            "that are like those the model will see; or a model that kzoo.quantize gave its ranges."
        )
    images = np.asarray(calibration)
    if images.dtype == object:
        raise ValueError(
            f"calibration must be an array (N, H, W, C). Received: {type(calibration).__name__}. "
            "Of batches make one, np.concatenate([images for images, labels in dataset]), or give "
            "them to kzoo.quantize and convert the model that it returns."
        )
    if images.shape[1:] != shape or not len(images) or images.dtype.kind not in "uif":
        raise ValueError(
            f"calibration must be numbers of shape (N, {', '.join(map(str, shape))}). "
            f"Received: {images.dtype} {images.shape}"
        )
    low, high = float(images.min()), float(images.max())
    if request.io in ("uint8", "int8") and shape[-1] in CHANNELS and not pixel_range(low, high):
        raise ValueError(
            f"The {request.io} input takes pixels as they are, for nets that are fed with them in "
            f"[0, 255], [0, 1] or [-1, 1]. Received: calibration with values in [{low:g}, "
            f"{high:g}]. Make that scaling the model's first layer (Rescaling, Normalization) and "
            'calibrate with plain pixels, or convert with io="float32".'
        )
    return images
