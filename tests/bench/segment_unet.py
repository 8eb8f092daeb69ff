"""A plain U-Net on images with masks, for orientation beside `kzoo segment`.

    python tests/bench/segment_unet.py DATA [--width 12] [--epochs 12] [--size 256] [--seed 0]

The same images, augmentation, loss, optimizer and choice of the best epoch as the recipe's; no
pretrained weights, since there are none for it. Prints what it reaches in float, and its size and
time in float32 and, after `kzoo.quantize` without training, in int8, by the interpreter.

Nuclei, 1,107,662 parameters and 1,976 M multiply-accumulates, --epochs 12, which take as long as 30
of V3-Small under DeepLabV3+ (1,009,826 and 182 M): mean IoU .865, nucleus .784, in int8 .785; 36 ms
of CPU an image in float32, 11 in int8.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import keras
import numpy as np
from keras import layers

import kzoo
from kzoo.recipes.data.images import Images
from kzoo.recipes.data.mask_dataset import full_mask, read_masks
from kzoo.recipes.evaluation.segment_files import predict_masks
from kzoo.recipes.segment import TASK, Config, Stages
from kzoo.recipes.task import Run
from kzoo.recipes.training.stages import fit
from kzoo.segmentation.masks import score_masks
from kzoo.tflite import benchmark, convert


def unet(size: int, classes: int, width: int) -> keras.Model:
    """https://arxiv.org/abs/1505.04597 with batch norm, "same" padding and bilinear upsampling."""

    def twice(x, filters):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
        return x

    image = keras.Input((size, size, 3))
    x, skips = layers.Rescaling(1 / 127.5, -1)(image), []
    for level in range(4):
        skips.append(twice(x, width * 2**level))
        x = layers.MaxPooling2D()(skips[-1])
    x = twice(x, width * 16)
    for level in reversed(range(4)):
        x = layers.UpSampling2D(interpolation="bilinear")(x)
        x = twice(layers.Concatenate()([x, skips[level]]), width * 2**level)
    return keras.Model(image, layers.Conv2D(classes, 1, name="logits")(x), name="unet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--width", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dataset = read_masks(options.data)
    keras.utils.set_random_seed(options.seed)
    model = unet(options.size, len(dataset.labels), options.width)
    config = Config(options.data, size=options.size, weights="none", seed=options.seed)
    with tempfile.TemporaryDirectory() as folder:
        stages = Stages(Run(TASK, vars(config), dataset, Path(folder), config))
        stage = stages.stage("unet", options.epochs, options.learning_rate)
        model, rows = stages.fit(model, stage, partial(fit, folder=Path(folder) / "checkpoint"))
        calibration = Images([pair.image for pair in dataset.train[:128]], options.size)[:]
        files = [Path(folder) / name for name in ("model.keras", "float.tflite", "int8.tflite")]
        model.save(files[0])
        convert(model, files[1], scheme="float32")
        convert(kzoo.quantize(model, calibration=calibration), files[2])
        truth = [full_mask(pair) for pair in dataset.val]
        seconds = sum(row["seconds"] for row in rows)
        print(f"{model.count_params():,} parameters, {seconds:.0f} s")
        for file in (files[0], files[2]):
            masks = predict_masks(file, dataset.val)
            scores = score_masks(zip(truth, masks, strict=True), len(dataset.labels))
            print(f"{file.name}: {scores}; IoU {np.round(scores.iou, 4)}")
        print(benchmark(files[1:]))


if __name__ == "__main__":
    main()
