"""Train a segmenter on images with masks, and turn it into a verified int8 file for the phone.

    kzoo segment PHOTOS --model mobilenet_v3_small --weights imagenet --out runs/photos

PHOTOS has images/ and masks/, or train/ and val/ of those, or COCO json files. The run folder ends
with model.keras, model.tflite, labels.txt and report.html; killed, the same command goes on.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import keras
import numpy as np

import kzoo
from kzoo.files import replacing
from kzoo.recipes import distributed as distribute
from kzoo.recipes.configs import SegmentConfig as Config
from kzoo.recipes.data.augment import Augment
from kzoo.recipes.data.images import Images
from kzoo.recipes.data.mask_batches import MaskBatches
from kzoo.recipes.data.mask_dataset import MaskDataset, Pair, read_masks
from kzoo.recipes.evaluation.mask_report import MaskResults, write_report
from kzoo.recipes.evaluation.segment_files import masks_of
from kzoo.recipes.files import write_json
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.int8 import fit_or_leave, for_calibration
from kzoo.recipes.training.run_folder import by_one, open_run
from kzoo.recipes.training.stages import Stage, fit, highest, once, unfreeze
from kzoo.segmentation.losses import MeanIoU, PixelAccuracy
from kzoo.tflite import convert
from kzoo.tflite.convert.mask_output import end_in_mask
from kzoo.tflite.convert.prepare import copy_in_float32
from kzoo.tflite.metadata.reading import Metadata, SegmenterOutput

HEADS: dict[str, Callable[..., keras.Model]] = {
    "lraspp": kzoo.LRASPP,
    "deeplabv3": kzoo.DeepLabV3,
    "deeplabv3+": partial(kzoo.DeepLabV3, decoder=True),
}
# What the file gives: (activation in it, activation that an app applies to what it gives).
InApp = Literal["none", "softmax"] | None
OUTPUTS: dict[str, tuple[str | None, InApp]] = {
    "logits": (None, "softmax"),
    "scores": ("softmax", "none"),
    "mask": (None, None),
}
SETTLED_IMAGES = 16
NORM_MOMENTUM = 0.9  # a run on some hundred images has too few steps for .99 to settle
HEAD_LEARNING_RATE, QAT_LEARNING_RATE = 2e-3, 3e-5
MARGIN = 1.25  # training images are kept this much larger than the net sees them
STRETCH = 0.2  # of training images, one side against the other


def segment(data: str | Path, **options) -> MaskResults:
    """`kzoo segment` as a function; `options` are the fields of `Config`.

    Returns what it reached. Raises ValueError for data or settings that make no sense.
    """
    config = Config(data=str(data), **options)
    with config.joined():
        return run(config)


def run(config: Config) -> MaskResults:
    """The whole recipe."""
    dataset = read_masks(
        config.data,
        val_fraction=config.val_fraction,
        seed=config.seed,
        damaged=config.damaged,
    )
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    net = build(config, len(dataset.labels), dataset.labels)
    paths, unseen = ([pair.image for pair in split] for split in (dataset.train, dataset.val))
    folder = open_run(config, dataset.labels, paths, unseen)
    if distribute.first():
        print(f"{dataset}\nThe run is kept in {folder}", flush=True)

    # The new head on the frozen rest, then all of the net: each kept when it is done.
    state, history = folder / "checkpoint", []
    stages = Training(dataset, config, state)
    if config.weights != "none" and config.head_epochs:
        net, rows = once(state / "1-head.keras", lambda: stages.head(net))
        history += rows
    if config.epochs:
        net, rows = once(state / "2-whole.keras", lambda: stages.whole(net))
        history += rows
    keras.config.set_dtype_policy("float32")  # what follows, and the file, compute in nothing less
    net = copy_in_float32(net)
    unfreeze(net)  # as its user will want it
    if distribute.first():
        with replacing(folder / "model.keras") as part:
            net.save(part)

    # The int8 file, and what it makes of the images that neither model was trained on.
    calibration = for_calibration(paths, config.size, seed=config.seed)
    int8 = kzoo.quantize(net, calibration=calibration)
    if config.qat_epochs:
        int8, rows = once(state / "3-qat.keras", lambda: stages.int8(int8, net))
        history += rows
    return by_one(folder, MaskResults, lambda: finish(folder, int8, dataset, config, history))


def finish(
    folder: Path, int8: keras.Model, dataset: MaskDataset, config: Config, history: list[Row]
) -> MaskResults:
    """The file, held against the float model, and the report."""
    write_json(folder / "history.json", history)
    file = write_file(int8, folder / "model.tflite", dataset.labels, config.output)
    models = {"float": folder / "model.keras", "int8": file}
    masks = {name: masks_of(path, dataset.val, name) for name, path in models.items()}
    return write_report(folder, dataset, history, masks)


def build(config: Config, classes: int, labels: Sequence[str] | None = None) -> keras.Model:
    """The segmenter, new but for what the weights are of."""
    backbone = kzoo.get_model(config.model)(
        config.alpha,
        input_shape=(config.size, config.size, 3),
        include_top=False,
        weights=None if config.weights == "none" else config.weights,
        output_stride=config.output_stride,
        norm_momentum=NORM_MOMENTUM,
    )
    width = {"filters": config.filters} if config.filters is not None else {}
    net = HEADS[config.head](backbone, classes, norm_momentum=NORM_MOMENTUM, **width)
    if config.weights != "none" and not config.weights.startswith("imagenet"):
        kzoo.load_weights(net, config.weights, labels=labels)  # the head of a segmenter's file
    return net


def write_file(int8: keras.Model, file: Path, labels: tuple[str, ...], output: str) -> Path:
    """The .tflite file, which gives logits, scores or masks."""
    activation, in_app = OUTPUTS[output]
    if activation:
        scores = keras.layers.Activation(activation, name="scores")(int8.output)
        int8 = keras.Model(int8.input, scores, name=int8.name)
    if in_app is None:
        return end_in_mask(convert(int8, file))
    return convert(int8, file, labels=labels, metadata=Metadata(outputs=SegmenterOutput(in_app)))


@dataclasses.dataclass(frozen=True)
class Training:
    """The stages of a run."""

    dataset: MaskDataset
    config: Config
    folder: Path

    def head(self, net: keras.Model) -> tuple[keras.Model, list[Row]]:
        """The new layers alone."""
        for layer in net.layers:
            layer.trainable = not layer.name.startswith("row")
        return self.fit(net, "head", self.config.head_epochs, HEAD_LEARNING_RATE)

    def whole(self, net: keras.Model) -> tuple[keras.Model, list[Row]]:
        """The whole network, pretrained batch norms with the statistics of these images."""
        unfreeze(net)
        if self.config.weights != "none":
            some = np.random.default_rng(self.config.seed).permutation(len(self.dataset.train))
            paths = [self.dataset.train[i].image for i in some[:SETTLED_IMAGES]]
            kzoo.recalibrate_batch_norm(net, Images(paths, self.config.size)[:])
        config = self.config
        return self.fit(net, "whole", config.epochs, config.learning_rate, ema=config.ema)

    def int8(self, int8: keras.Model, teacher: keras.Model) -> tuple[keras.Model, list[Row]]:
        """The quantized network, taught by the float one; as it was, where that does not help."""
        how = partial(fit_or_leave, teacher=teacher)
        return self.fit(int8, "qat", self.config.qat_epochs, QAT_LEARNING_RATE, how=how)

    def fit(
        self, net: keras.Model, name: str, epochs: int, learning_rate: float, *,
        how: Callable = fit, ema: float = 0.0,
    ) -> tuple[keras.Model, list[Row]]:  # fmt: skip
        """A stage whose best epoch has the highest mean IoU on the validation images."""
        augment = Augment(zoom=self.config.zoom, stretch=STRETCH, flip=self.config.flip)
        train = self.batches(self.dataset.train, augment=augment, margin=MARGIN)
        stage = Stage(
            name,
            epochs,
            learning_rate,
            self.loss(),
            [MeanIoU(len(self.dataset.labels)), PixelAccuracy()],
            highest("val_mean_iou"),
            patience=self.config.patience,
            ema=ema,
            **self.config.of_stages,
        )
        val = self.batches(self.dataset.val)
        return how(
            net, stage, lambda epoch: train.shuffled(self.config.seed, epoch), val, self.folder
        )

    def loss(self) -> kzoo.SegmentationLoss:
        weights = class_weights(self.dataset.pixels) if self.config.balance else None
        return kzoo.SegmentationLoss(
            cross_entropy=self.config.cross_entropy,
            dice=self.config.dice,
            focal=self.config.focal,
            class_weights=weights,
        )

    def batches(self, pairs: Sequence[Pair], **options) -> MaskBatches:
        return MaskBatches(pairs, self.config.size, batch_size=self.config.step, **options)


def class_weights(pixels: np.ndarray) -> list[float]:
    """The root of the median share over each class's own, so that rare classes count for more."""
    median = np.median(pixels[pixels > 0])
    return np.where(pixels > 0, np.sqrt(median / np.maximum(pixels, 1)), 0).tolist()
