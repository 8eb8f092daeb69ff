"""Size, CPU time and agreement of float32 and int8 files of V2 and V3.

    python tests/bench/speed.py [--size 224] [--alpha 1.0]

Takes about five minutes. Weights are random, with settled batch statistics: fit for speed, size;
SQNR is of such nets, on noise, and says little about trained ones. "usual" is what TensorFlow's
converter makes of the float model, "quantize" what it makes of the model from kzoo.quantize.
"""

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np

import kzoo
from kzoo.tflite import audit, benchmark, compare, convert

MODELS = (kzoo.MobileNetV2, kzoo.MobileNetV3Large, kzoo.MobileNetV3Small)


def settled(model: keras.Model, images: np.ndarray) -> keras.Model:
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images.astype("float32"), training=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--alpha", type=float, default=1.0)
    arguments = parser.parse_args()
    shape = (arguments.size, arguments.size, 3)
    images = np.random.default_rng(0).integers(0, 256, (32, *shape), np.uint8)
    for builder in MODELS:
        keras.utils.set_random_seed(0)
        model = settled(builder(arguments.alpha, input_shape=shape), images)
        with tempfile.TemporaryDirectory() as folder:
            float32, usual, own = (
                Path(folder, f"{model.name}_{kind}.tflite")
                for kind in ("float32", "usual", "quantize")
            )
            convert(model, float32, scheme="float32")
            convert(model, usual, calibration=images, calibrator="tensorflow")
            convert(kzoo.quantize(model, calibration=images), own)
            print(benchmark([float32, usual, own]))
            for file in (usual, own):
                found = compare(model, file, images)
                outside = len(audit(file).outside)
                print(
                    f"{file.name}: SQNR {found.sqnr_db:.1f} dB, {outside} operators outside XNNPACK"
                )
        print(flush=True)


if __name__ == "__main__":
    main()
