"""Calls of TensorFlow's converter: from a Keras model to the bytes of a .tflite file.

The model is traced to a concrete function of fixed shape: variables become constants, the batch
size is static, and no SHAPE operator is left.
"""

import contextlib
import dataclasses
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from kzoo.tflite.convert.prepare import Grid
from kzoo.tflite.ports import layer_of


@dataclasses.dataclass(frozen=True)
class Scheme:
    """A quantization scheme: the number format of weights and activations in the file."""

    about: str
    inputs: tuple[str, ...]  # allowed dtypes of the input, the default first
    operators: str = "TFLITE_BUILTINS"  # name in tf.lite.OpsSet, if calibrated
    optimize: bool = True
    calibrated: bool = False  # whether it needs calibration images or a quantized model
    weights: str | None = None  # dtype of the weights, if the converter is to change it

    def __str__(self) -> str:
        return self.about


# Times relative to float32: MobileNetV2 to V3-Small 1.0 at 224 px, one thread of an x86 core with
# AVX512-VNNI (tests/bench/schemes.py).
SCHEMES = {
    "float32": Scheme("as trained", ("float32", "uint8"), optimize=False),
    "float16": Scheme(
        "weights in float16, computed in float32: half the bytes",
        ("float32", "uint8"),
        weights="float16",
    ),
    "dynamic": Scheme(
        "weights in int8, activations in float32: a quarter of the bytes, but 1.3 to 2.9x slower",
        ("float32", "uint8"),
    ),
    "int8": Scheme(
        "weights and activations in int8: a third of the bytes, .4 to .7 of the time",
        ("uint8", "float32", "int8"),
        operators="TFLITE_BUILTINS_INT8",
        calibrated=True,
    ),
    "int16x8": Scheme(
        "weights in int8, activations in int16: 36x slower (reference kernels), no HARD_SWISH",
        ("float32",),
        operators="EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8",
        calibrated=True,
    ),
}


def trace(model: keras.Model, shape: tuple[int, int, int, int], *, from_bytes: bool) -> Any:
    """Return a concrete function that runs the model on images (N, H, W, C), float32 or uint8."""
    import tensorflow as tf

    dtype = tf.uint8 if from_bytes else tf.float32

    @tf.function(input_signature=[tf.TensorSpec(shape, dtype, name="image")])
    def run(image: Any) -> Any:
        return model(tf.cast(image, tf.float32), training=False)

    return run.get_concrete_function()


def translate(
    graph: Any, scheme: Scheme, images: np.ndarray | None, grid: Grid | None,
    ends: Sequence[float] | None,
) -> bytes:  # fmt: skip
    """Return a concrete function as a .tflite file with float32 input and outputs.

    images: calibration images; None takes the ranges of the graph's fake-quants. In that case
        `supported_ops` must not be int8 only, since TensorFlow then demands calibration images.
    grid: the values that the images' pixels represent, if the input has absorbed a rescaling.
    ends: the input values of the bytes 0 and 255, which the input's range must cover even if the
        images do not reach them.
    """
    import tensorflow as tf

    batch = graph.inputs[0].shape[0]

    def samples() -> Iterator[list[np.ndarray]]:
        assert images is not None
        for i, image in enumerate(images):
            image = np.repeat(np.array(image[None], np.float32), batch, axis=0)
            image = grid.real(image) if grid else image
            if ends and i == 0:
                image[0, 0, :2] = np.reshape(ends, (2, 1))
            yield [image]

    # It warns of a missing trackable object; with one it would not fold the ranges.
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([graph])
    operators = scheme.operators if images is not None else "TFLITE_BUILTINS"
    converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, operators)]
    if scheme.optimize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme.weights:
        converter.target_spec.supported_types = [getattr(tf, scheme.weights)]
    if images is not None:
        converter.representative_dataset = samples
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # deprecation warnings of tf.lite
        try:
            return converter.convert()
        except Exception as error:
            raise explained(error) from None  # the original has tens of thousands of characters


def explained(error: Exception) -> ValueError:
    """Return a short form of the converter's error that names the unsupported layers."""
    missing, others = [], [str(error).partition("\n")[0][:300]]
    for detail in getattr(error, "errors", ()):
        place = next((call.name for call in detail.location.call if call.name), "")
        what = f"{detail.operator.name} in layer {layer_of(place)!r} ({place})"
        if detail.operator.name.startswith("tf."):
            missing.append(what.removeprefix("tf."))
        elif place:
            others.append(what)
    if missing:
        return ValueError(
            f"TFLite has no operator for {'; '.join(missing)}. Replace the layer, or end the model "
            "before it and compute the rest in the app."
        )
    return ValueError(f"TensorFlow's converter could not translate the model: {'; '.join(others)}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discard what the converter's C++ code prints to stderr, which its exception repeats."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
