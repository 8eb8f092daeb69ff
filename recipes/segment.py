"""Train a segmenter on images with masks, and turn it into a verified int8 file for the phone.

    kzoo segment PHOTOS --model mobilenet_v3_small --weights imagenet --out runs/photos

PHOTOS has images/ and masks/, or train/ and val/ of those, or COCO json files. The run folder ends
with model.keras, model.tflite, labels.txt and report.html; killed, the same command goes on.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

import kzoo
from kzoo.recipes import pipeline
from kzoo.recipes.configs.segment import SegmentConfig as Config
from kzoo.recipes.data.augment import Augment
from kzoo.recipes.data.images import Images, Source
from kzoo.recipes.data.mask_dataset import MaskDataset, read_masks, read_test
from kzoo.recipes.data.masks.batches import MaskBatches
from kzoo.recipes.data.masks.pairs import Pair
from kzoo.recipes.data.packing import pack_masks
from kzoo.recipes.evaluation.mask_report import REPORT, MaskResults, score_pairs
from kzoo.recipes.evaluation.segment_files import mask_predictor, predict_masks
from kzoo.recipes.task import Run, Task, register_task
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.stage import Stage
from kzoo.recipes.training.stages import TransferStages, unfreeze
from kzoo.recipes.training.user_callbacks import Callbacks
from kzoo.segmentation.losses import MeanIoU, PixelAccuracy
from kzoo.segmentation.masks import VOID, MaskScores, mask_at
from kzoo.sizes import height_width
from kzoo.tflite import Comparison, compare, convert
from kzoo.tflite.convert.mask_output import end_in_mask
from kzoo.tflite.convert.prepare import copy_in_float32
from kzoo.tflite.metadata.reading import Metadata, SegmenterOutput

HEADS: dict[str, Callable[..., keras.Model]] = {
    "lraspp": kzoo.LRASPP,
    "deeplabv3": kzoo.DeepLabV3,
    "deeplabv3+": partial(kzoo.DeepLabV3, decoder=True),
}
# Outputs of the file: (activation in the file, activation that an app applies to its output).
InApp = Literal["none", "softmax"] | None
OUTPUTS: dict[str, tuple[str | None, InApp]] = {
    "logits": (None, "softmax"),
    "scores": ("softmax", "none"),
    "mask": (None, None),
}
COMPARED_IMAGES = 32  # at most; fewer if their full-size logits exceed COMPARED_BYTES
COMPARED_BYTES = 64 << 20
COMPARED_AT_ONCE = 8
RECALIBRATION_IMAGES = 16  # to recalibrate pretrained batch norms
NORM_MOMENTUM = 0.9  # a run on a few hundred images has too few steps for .99
HEAD_LEARNING_RATE, QAT_LEARNING_RATE = 2e-3, 3e-5
MARGIN = 1.25  # size of decoded training images / input size of the model
MOST_WEIGHT = 10.0  # limit of a class's weight; a class of median area has 1
STRETCH = 0.2  # largest change of the aspect ratio of training images


def segment(data: str | Path, *, callbacks: Callbacks = (), **options: Any) -> MaskResults:
    """Train a segmenter, quantize it and return the results, as `kzoo segment` does.

        results = kzoo.recipes.segment("photos", model="mobilenet_v3_small", epochs=20)

    data: as of the command.
    callbacks: Keras callbacks for every stage, or a function of the stage's name ("head", "whole",
        "qat") that returns them.
    options: fields of `Config`, the options of the command.

    Raises ValueError for unusable data or settings.
    """
    return pipeline.train(TASK, data, callbacks, options)


def build(config: Config, dataset: MaskDataset) -> keras.Model:
    """Return the segmenter with the configured weights.

    Its head uses `fine` features unless the weights are a segmenter's without them.
    """
    if config.weights == "voc":
        return assembled(config, dataset, fine=False)
    try:
        return assembled(config, dataset, fine=True)
    except ValueError:
        if config.weights == "none" or config.weights.startswith("imagenet"):
            raise
        return assembled(config, dataset, fine=False)


def assembled(config: Config, dataset: MaskDataset, *, fine: bool) -> keras.Model:
    backbone = kzoo.get_model(config.model)(
        config.alpha,
        input_shape=(*height_width(config.size), 3),
        include_top=False,
        weights=None if config.weights == "none" else config.weights,
        output_stride=config.output_stride,
        norm_momentum=NORM_MOMENTUM,
    )
    width = {"filters": config.filters} if config.filters is not None else {}
    labels = dataset.labels
    net = HEADS[config.head](backbone, len(labels), fine=fine, norm_momentum=NORM_MOMENTUM, **width)
    if config.weights != "none" and not config.weights.startswith("imagenet"):
        kzoo.load_weights(net, config.weights, labels=labels)  # the head of a segmenter's file
    return net


class Stages(TransferStages):
    """The stages of a run."""

    rates = (HEAD_LEARNING_RATE, QAT_LEARNING_RATE)

    def stage(self, name: str, epochs: int, learning_rate: float, **options: Any) -> Stage:
        """Return a stage whose best epoch has the highest mean IoU on the validation images."""
        config = self.run.config
        return Stage(
            name,
            epochs,
            learning_rate,
            self.loss(),
            [MeanIoU(len(self.run.dataset.labels)), PixelAccuracy()],
            "val_mean_iou",
            patience=config.patience,
            **config.of_stages,
            **options,
        )

    def whole(self, net: keras.Model, stage: Stage, fit: Any) -> tuple[keras.Model, list[Row]]:
        """Train the whole network, with pretrained batch norms recalibrated on these images."""
        unfreeze(net)
        config, paths = self.run.config, self.run.train
        if config.weights != "none":
            some = np.random.default_rng(config.seed).permutation(len(paths))[:RECALIBRATION_IMAGES]
            kzoo.recalibrate_batch_norm(net, Images([paths[i] for i in some], config.size)[:])
        return self.fit(net, stage, fit)

    def fit(self, net: keras.Model, stage: Stage, fit: Any) -> tuple[keras.Model, list[Row]]:
        """Train on augmented images."""
        train, seed = self.train, self.run.config.seed
        return fit(net, stage, lambda epoch: train.shuffled(seed, epoch), self.val)

    # Shared by the stages, with their decoded images: TensorFlow keeps every data set that it has
    # read until the process ends.

    @cached_property
    def train(self) -> MaskBatches:
        """The training images, augmented."""
        config = self.run.config
        augment = Augment(
            zoom=config.zoom, shrink=config.shrink, stretch=STRETCH, flip=bool(config.flip)
        )
        return self.batches(self.run.dataset.train, augment=augment, margin=MARGIN)

    @cached_property
    def val(self) -> MaskBatches:
        """The validation images."""
        return self.batches(self.run.dataset.val)

    def loss(self) -> kzoo.SegmentationLoss:
        config = self.run.config
        weights = class_weights(self.run.dataset.pixels) if config.balance else None
        return kzoo.SegmentationLoss(
            cross_entropy=config.cross_entropy,
            dice=config.dice,
            focal=config.focal,
            lovasz=config.lovasz,
            class_weights=weights,
        )

    def batches(self, pairs: Sequence[Pair], **options: Any) -> MaskBatches:
        """Return images and masks as model inputs and targets; `options` as in `MaskBatches`."""
        config = self.run.config
        return MaskBatches(pairs, config.size, batch_size=config.step, **options)


def class_weights(pixels: np.ndarray) -> list[float]:
    """Return sqrt(median pixel count / pixel count) of each class, at most `MOST_WEIGHT`."""
    median = np.median(pixels[pixels > 0])
    weights = np.sqrt(median / np.maximum(pixels, 1)).clip(max=MOST_WEIGHT)
    return np.where(pixels > 0, weights, 0).tolist()


def image_quality(model: keras.Model, outputs: np.ndarray, val: MaskBatches, i: int) -> np.ndarray:
    """Return the mean IoU of each single image of a batch (n,), at the model's input size."""
    classes, (_, masks) = outputs.shape[-1], val[i]
    found = [mask_at(output, mask.shape) for output, mask in zip(outputs, masks, strict=True)]
    return np.array([iou(mask, one, classes) for mask, one in zip(masks, found, strict=True)])


def iou(truth: np.ndarray, found: np.ndarray, classes: int) -> float:
    counts = truth != VOID
    ids = truth[counts].astype(int) * classes + found[counts]
    confusion = np.bincount(ids, minlength=classes**2).reshape(classes, classes)
    return MaskScores(confusion, np.zeros(0)).mean_iou


def image_paths(pairs: Sequence[Pair]) -> list[Source]:
    return [pair.image for pair in pairs]


def compare_masks(
    run: Run, model: keras.Model, pairs: Sequence[Pair], *, layers: int
) -> Comparison | None:
    """Return the comparison of the file's and the model's logits; None if the file has none."""
    if OUTPUTS[run.settings["output"]] != OUTPUTS["logits"]:
        return None
    each = 4 * math.prod(model.output_shape[1:])
    count = min(COMPARED_IMAGES, max(1, COMPARED_BYTES // each))
    some = np.unique(np.linspace(0, len(pairs) - 1, count).astype(int))
    images = Images([pairs[int(i)].image for i in some], run.size)[:]
    return compare(model, run.int8, images, layers=layers, batch_size=COMPARED_AT_ONCE)


def write_file(run: Run, int8: keras.Model, progress: Callable[[str], None]) -> Path:
    """Write the .tflite file with the configured output: logits, scores or mask."""
    activation, in_app = OUTPUTS[run.settings["output"]]
    if activation:
        scores = keras.layers.Activation(activation, name="scores")(int8.output)
        int8 = keras.Model(int8.input, scores, name=int8.name)
    if in_app is None:
        return end_in_mask(convert(int8, run.int8, progress=progress))
    about = Metadata(outputs=SegmenterOutput(in_app))
    labels = run.dataset.labels
    return convert(int8, run.int8, labels=labels, metadata=about, progress=progress)


TASK = register_task(
    Task(
        name="segment",
        Config=Config,
        read=read_masks,
        read_settings=("val_fraction", "seed", "damaged", "test", "void"),
        read_test=read_test,
        test_settings=("void",),
        sources=image_paths,
        targets=lambda pairs: (pair.mask.mark for pair in pairs),
        build=build,
        stages=lambda run: Stages(run).all(),
        float_copy=lambda run, model: copy_in_float32(model),
        write_file=write_file,
        infer=lambda run, model, pairs: predict_masks(model, pairs),
        score=score_pairs,
        compare=compare_masks,
        report=REPORT,
        predict=mask_predictor,
        image_quality=image_quality,
        recognizes=lambda axes: len(axes) == 1 and axes[0] in (3, 4),
        pack=pack_masks,
    )
)
