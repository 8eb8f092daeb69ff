"""CPU time of segmenters, float32 and int8, at 256 and 512 px, and what resizing and argmax take.

    python tests/bench/segment_speed.py [--models ...] [--sizes 256 512] [--classes 21]

Takes about six minutes. Weights are random, with settled batch statistics: fit for speed. "small"
ends with logits at the head's own resolution, "logits" with them enlarged to the image's, "mask"
with class ids. What "mask" takes over "small" is the share of resize and argmax.
"""

import argparse
import shutil
import tempfile
from functools import partial
from pathlib import Path

import keras
import numpy as np

import kzoo
from kzoo.tflite import audit, benchmark, convert
from kzoo.tflite.convert.mask_output import end_in_mask

MODELS = {
    "lraspp_v3_large": (kzoo.LRASPP, kzoo.MobileNetV3Large),
    "lraspp_v3_small": (kzoo.LRASPP, kzoo.MobileNetV3Small),
    "deeplabv3_v2": (kzoo.DeepLabV3, kzoo.MobileNetV2),
    "deeplabv3+_v3_small": (
        partial(kzoo.DeepLabV3, decoder=True, filters=128),
        kzoo.MobileNetV3Small,
    ),
}


def settled(model: keras.Model, images: np.ndarray) -> keras.Model:
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images.astype("float32"), training=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--classes", type=int, default=21)
    arguments = parser.parse_args()
    for size in arguments.sizes:
        images = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)
        for name in arguments.models:
            head, builder = MODELS[name]
            keras.utils.set_random_seed(0)
            backbone = builder(include_top=False, input_shape=(size, size, 3), output_stride=16)
            model = settled(head(backbone, arguments.classes), images)
            small = head(backbone, arguments.classes, full_resolution=False)
            for layer in small.layers:
                if layer.weights:
                    old = {"logits": "classify"}.get(layer.name, layer.name)
                    layer.set_weights(model.get_layer(old).get_weights())
            with tempfile.TemporaryDirectory() as folder:
                files = [
                    Path(folder, f"{name}_{size}_{kind}.tflite")
                    for kind in ("float32", "int8_logits", "int8_small", "int8_mask")
                ]
                convert(model, files[0], scheme="float32")
                convert(kzoo.quantize(model, calibration=images), files[1])
                convert(kzoo.quantize(small, calibration=images), files[2])
                shutil.copy(files[1], files[3])
                end_in_mask(files[3])
                times = benchmark(files)
                print(times)
                outside = ", ".join(audit(files[3]).outside)
            share = 1 - times[2].cpu_ms / times[3].cpu_ms
            print(f"resize and argmax: {share:.0%} of mask; outside XNNPACK: {outside}", flush=True)


if __name__ == "__main__":
    main()
