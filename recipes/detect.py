"""Train an SSDLite detector on annotated photos, and turn it into a verified int8 file for phones.

    kzoo detect PHOTOS --model mobilenet_v3_small --weights imagenet --out runs/photos

PHOTOS holds images and their annotations as COCO, Pascal VOC, YOLO or CSV. The run folder ends
with model.keras, model.tflite, labels.txt and report.html; killed, the same command goes on.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kzoo
from kzoo.detection.detections import Detections, detections
from kzoo.detection.detector import Detector
from kzoo.detection.ssdlite import LEVELS
from kzoo.recipes import pipeline, progress
from kzoo.recipes.configs.detect import DetectConfig as Config
from kzoo.recipes.data.box_batches import SCALE_JITTER, BoxBatches
from kzoo.recipes.data.box_dataset import BoxDataset, Example, read_boxes, read_test
from kzoo.recipes.data.images import Images, Source
from kzoo.recipes.data.packing import pack_boxes
from kzoo.recipes.evaluation.box_metrics import score_boxes
from kzoo.recipes.evaluation.box_report import REPORT, BoxResults
from kzoo.recipes.evaluation.detect_files import load_detector, object_predictor
from kzoo.recipes.evaluation.keras_cv_metrics import score_by_keras_cv
from kzoo.recipes.task import Run, Task, register_task
from kzoo.recipes.training.box_anchors import anchor_report, aspect_of, fitted, levels_for
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.frozen_norms import take_weights, without_frozen_norms
from kzoo.recipes.training.stage import Stage
from kzoo.recipes.training.stages import TransferStages
from kzoo.recipes.training.user_callbacks import Callbacks
from kzoo.sizes import Tiles, height_width
from kzoo.tflite import Comparison, compare, convert
from kzoo.tflite.convert.prepare import copy_in_float32
from kzoo.weights.saved_model import load_model

NORM_MOMENTUM = 0.9  # a run on a few hundred images has too few steps for .97
HEAD_LEARNING_RATE, QAT_LEARNING_RATE = 2e-3, 1e-4
MARGIN = 1.25  # size of decoded training images / input size of the model
EXTRAS, LEAST_EXTRA = (512, 256, 256, 128), 16  # channels at alpha 1; minimum at any alpha
MOST_OBJECTS = 100  # per image; more are not trained on


def detect(data: str | Path, *, callbacks: Callbacks = (), **options: Any) -> BoxResults:
    """Train a detector, quantize it and return the results, as `kzoo detect` does.

        results = kzoo.recipes.detect("photos", model="mobilenet_v3_small", epochs=20)

    data: as of the command.
    callbacks: Keras callbacks for every stage, or a function of the stage's name ("head", "whole",
        "qat") that returns them.
    options: fields of `Config`, the options of the command.

    Raises ValueError for unusable data or settings.
    """
    return pipeline.train(TASK, data, callbacks, options)


def build(config: Config, dataset: BoxDataset) -> Detector:
    """Return the detector with the configured weights; show how well its anchors match."""
    detector = assembled(config, dataset)
    report = anchor_report(detector.anchors, dataset.train, dataset.labels, config.size)
    progress.show(str(report))
    if many := sum(len(example.labels) > MOST_OBJECTS for example in dataset.train):
        progress.show(
            f"{many} training images have more than {MOST_OBJECTS} objects: the rest of these is "
            "not trained on. Cut such images into parts"
        )
    return detector


def assembled(config: Config, dataset: BoxDataset) -> Detector:
    """Return the detector with the configured anchors and weights.

    Anchors are fitted to the data, unless the weights include a detector's head, which needs its
    own: those of the model in a .keras file, else the published ones.
    """
    fit = {"levels": levels_for(dataset.train), "anchors": fitted(dataset.train, config.size)}
    if config.anchors == "published" or config.weights == "coco":
        return loaded(config, dataset)[0]
    if config.weights == "none" or config.weights.startswith("imagenet"):
        return loaded(config, dataset, **fit)[0]
    if config.weights.endswith(".keras"):
        model = load_model(config.weights)
        if isinstance(model, Detector):
            fine = model.anchors.grids[0][0] == -(-model.input_shape[1] // 8)
            own = partial(dataclasses.replace, model.anchors, aspect=aspect_of(config.size))
            fit = {"levels": LEVELS[fine], "anchors": lambda grids: own(grids=grids)}
        return loaded(config, dataset, **fit)[0]
    detector, new = loaded(config, dataset)
    return loaded(config, dataset, **fit)[0] if "boxes0_project" in new else detector


def loaded(config: Config, dataset: BoxDataset, **maps: Any) -> tuple[Detector, tuple[str, ...]]:
    """Return (detector, names of layers that its weight file lacks).

    `maps` are the arguments `levels` and `anchors` of `kzoo.SSDLite`.
    """
    backbone = kzoo.get_model(config.model)(
        config.alpha,
        input_shape=(*height_width(config.size), 3),
        include_top=False,
        weights=None if config.weights == "none" else config.weights,
        norm_momentum=NORM_MOMENTUM,
        **({"reduced_tail": True} if config.reduced_tail or config.weights == "coco" else {}),
    )
    detector = kzoo.SSDLite(
        backbone,
        len(dataset.labels),
        extras=[max(LEAST_EXTRA, int(width * config.alpha)) for width in EXTRAS],
        loss=config.loss,
        box_loss=config.box_loss,
        balance=config.balance,
        norm_momentum=NORM_MOMENTUM,
        **maps,
    )
    if config.weights == "none" or config.weights.startswith("imagenet"):
        return detector, ()
    weights = kzoo.load_weights(detector, config.weights, labels=dataset.labels)
    return detector, weights.new


class Stages(TransferStages):
    """The stages of a run."""

    rates = (HEAD_LEARNING_RATE, QAT_LEARNING_RATE)

    def stage(self, name: str, epochs: int, learning_rate: float, **options: Any) -> Stage:
        """Return a stage whose best epoch has the highest mAP on the validation images."""
        config = self.run.config
        return Stage(
            name, epochs, learning_rate, metric="val_map", patience=config.patience,
            **config.of_stages, **options,
        )  # fmt: skip

    def whole(self, detector: Detector, stage: Stage, fit: Any) -> tuple[Detector, list[Row]]:
        """Train the whole network with frozen pretrained batch norms.

        With batch norms recalibrated and trained, as in segmentation, V3-Small had mAP .36 instead
        of .64 after 28 of 40 epochs on 237 photos.
        """
        for layer in detector.layers:
            pretrained = self.run.config.weights != "none" and layer.name.startswith("row")
            norm = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = not (pretrained and norm)
        copy = without_frozen_norms(detector)
        learning, history = self.fit(detector.like(copy.input, copy.output), stage, fit)
        take_weights(detector, learning)
        return detector, history

    def fit(self, detector: Detector, stage: Stage, fit: Any) -> tuple[Detector, list[Row]]:
        """Train on augmented images; measure mAP after each epoch."""
        config, dataset = self.run.config, self.run.dataset
        augment = dataclasses.replace(SCALE_JITTER[config.scale_jitter], flip=config.flip)
        if not config.crop:
            augment = dataclasses.replace(augment, crop=0, shrink=0)
        train = self.batches(dataset.train, augment=augment, mosaic=config.mosaic, margin=MARGIN)
        val, last = self.batches(dataset.val), stage.epochs - round(config.close * stage.epochs)
        return fit(
            detector,
            stage,
            lambda epoch: (train if epoch < last else train.closing()).shuffled(config.seed, epoch),
            val,
            measure=lambda model: self.measured(model, val),
        )

    def batches(self, examples: Sequence[Example], **options: Any) -> BoxBatches:
        """Return images and boxes as model inputs and targets; `options` as in `BoxBatches`."""
        config, dataset = self.run.config, self.run.dataset
        every = (*dataset.train, *dataset.val)
        most = min(max(len(example.labels) for example in every), MOST_OBJECTS)
        most *= 4 if config.mosaic else 1
        return BoxBatches(examples, config.size, batch_size=config.step, most=most, **options)

    def measured(self, detector: Detector, val: BoxBatches) -> dict[str, float]:
        """Return mean average precisions on the validation images."""
        found = detections(
            detector.predict(val, verbose=0), detector.anchor_boxes, activation=detector.activation
        )
        score = score_boxes(val.examples, found, self.run.dataset.labels)
        # nan (no image has an object) cannot be ranked.
        figures = {
            "val_map": float(np.nan_to_num(score.map)),
            "val_map50": float(np.nan_to_num(score.map50)),
        }
        if self.run.config.keras_cv_metrics:
            figures |= score_by_keras_cv(val.examples, found)
        return figures


def float_copy(run: Run, detector: Detector) -> Detector:
    plain = copy_in_float32(detector)
    return detector.like(plain.input, plain.output)


def image_paths(examples: Sequence[Example]) -> list[Source]:
    return [example.path for example in examples]


def annotated(examples: Sequence[Example]) -> Iterator[bytes]:
    """Yield the bytes of each image's boxes, rounded to 1e-4 of its sides, and classes."""
    for example in examples:
        rows = np.column_stack([np.round(1e4 * example.boxes), example.labels])
        yield rows.astype("<i4").tobytes()


def image_quality(detector: Detector, outputs: Any, val: BoxBatches, i: int) -> np.ndarray:
    """Return the mAP of each single image of a batch (n,); nan without objects."""
    found = detections(outputs, detector.anchor_boxes, activation=detector.activation)
    examples = [val.examples[j] for j in val.batch(i)]
    labels = [str(label) for label in range(detector.classes)]
    pairs = zip(examples, found, strict=True)
    return np.array([score_boxes([example], [one], labels).map for example, one in pairs])


def infer(
    run: Run, model: keras.Model | Path, examples: Sequence[Example], *,
    tiles: Tiles | None = None,
) -> list[Detections]:  # fmt: skip
    """Return the detections in the images of a split, boxes in [0, 1]; `tiles`: also in tiles."""
    detector, paths = load_detector(model), image_paths(examples)
    if tiles:
        return [detector.in_tiles(path, tiles) for path in paths]
    return detector(Images(paths, run.size)[:])


def compare_boxes(
    run: Run, model: keras.Model, examples: Sequence[Example], *, layers: int
) -> Comparison:
    return compare(model, run.int8, Images(image_paths(examples), run.size)[:], layers=layers)


def write_file(run: Run, int8: keras.Model, progress: Callable[[str], None]) -> Path:
    return convert(int8, run.int8, labels=run.dataset.labels, progress=progress)


TASK = register_task(
    Task(
        name="detect",
        Config=Config,
        read=read_boxes,
        read_settings=("format", "val_fraction", "seed", "damaged", "test"),
        read_test=read_test,
        test_settings=("format",),
        sources=image_paths,
        targets=annotated,
        build=build,
        stages=lambda run: Stages(run).all(),
        float_copy=float_copy,
        write_file=write_file,
        infer=infer,
        score=lambda found, examples, labels: score_boxes(examples, found, labels),
        compare=compare_boxes,
        report=REPORT,
        predict=object_predictor,
        tiles=True,
        image_quality=image_quality,
        recognizes=lambda axes: len(axes) > 1,
        pack=pack_boxes,
    )
)
