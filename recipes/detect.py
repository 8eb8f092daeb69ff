"""Train an SSDLite detector on annotated photos, and turn it into a verified int8 file for phones.

    kzoo detect PHOTOS --model mobilenet_v3_small --weights imagenet --out runs/photos

PHOTOS holds images and their annotations as COCO, Pascal VOC, YOLO or CSV. The run folder ends
with model.keras, model.tflite, labels.txt and report.html; killed, the same command goes on.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

import kzoo
from kzoo.detection.detections import detections
from kzoo.detection.detector import Detector
from kzoo.files import replacing
from kzoo.recipes import distributed as distribute
from kzoo.recipes.configs import DetectConfig as Config
from kzoo.recipes.data.box_batches import BoxAugment, BoxBatches
from kzoo.recipes.data.box_dataset import BoxDataset, Example, read_boxes
from kzoo.recipes.data.images import Images
from kzoo.recipes.evaluation.box_metrics import score_boxes
from kzoo.recipes.evaluation.box_report import BoxResults, write_report
from kzoo.recipes.evaluation.detect_files import finder
from kzoo.recipes.evaluation.keras_cv_metrics import score_by_keras_cv
from kzoo.recipes.files import write_json
from kzoo.recipes.training.checkpoints import Row
from kzoo.recipes.training.int8 import fit_or_leave, for_calibration
from kzoo.recipes.training.run_folder import by_one, open_run
from kzoo.recipes.training.stages import Stage, fit, highest, once, unfreeze
from kzoo.tflite import compare, convert
from kzoo.tflite.convert.prepare import copy_in_float32

NORM_MOMENTUM = 0.9  # a run on some hundred images has too few steps for .97 to settle
HEAD_LEARNING_RATE, QAT_LEARNING_RATE = 2e-3, 1e-4
MARGIN = 1.25  # training images are kept this much larger than the net sees them
EXTRAS, LEAST_EXTRA = (512, 256, 256, 128), 16  # channels at alpha 1, the least at any
MOST_OBJECTS = 100  # of one image


def detect(data: str | Path, **options) -> BoxResults:
    """`kzoo detect` as a function; `options` are the fields of `Config`.

    Returns what it reached. Raises ValueError for data or settings that make no sense.
    """
    config = Config(data=str(data), **options)
    with config.joined():
        return run(config)


def run(config: Config) -> BoxResults:
    """The whole recipe."""
    dataset = read_boxes(
        config.data,
        format=config.format,
        val_fraction=config.val_fraction,
        seed=config.seed,
        damaged=config.damaged,
    )
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    detector = build(config, len(dataset.labels), dataset.labels)
    paths, unseen = ([each.path for each in split] for split in (dataset.train, dataset.val))
    folder = open_run(config, dataset.labels, paths, unseen)
    if distribute.first():
        print(f"{dataset}\nThe run is kept in {folder}", flush=True)

    # The new head on the frozen rest, then all of the net: each kept when it is done.
    state, history = folder / "checkpoint", []
    stages = Training(dataset, config, state)
    if config.weights != "none" and config.head_epochs:
        detector, rows = once(state / "1-head.keras", lambda: stages.head(detector))
        history += rows
    if config.epochs:
        detector, rows = once(state / "2-whole.keras", lambda: stages.whole(detector))
        history += rows
    keras.config.set_dtype_policy("float32")  # what follows, and the file, compute in nothing less
    plain = copy_in_float32(detector)
    detector = detector.like(plain.input, plain.output)
    unfreeze(detector)  # as its user will want it
    if distribute.first():
        with replacing(folder / "model.keras") as part:
            detector.save(part)

    # The int8 file, and what it makes of the images that neither model was trained on.
    calibration = for_calibration(paths, config.size, seed=config.seed)
    int8 = kzoo.quantize(detector, calibration=calibration)
    if config.qat_epochs:
        int8, rows = once(state / "3-qat.keras", lambda: stages.int8(int8, detector))
        history += rows
    return by_one(folder, BoxResults, lambda: finish(folder, detector, int8, dataset, history))


def finish(
    folder: Path, detector: Detector, int8: Detector, dataset: BoxDataset, history: list[Row]
) -> BoxResults:
    """The file, held against the float model, and the report."""
    write_json(folder / "history.json", history)
    with tqdm(total=3, desc="converting", disable=None) as bar:
        file = convert(int8, folder / "model.tflite", labels=dataset.labels)
        bar.update()
        bar.set_description("comparing")
        size = detector.input_shape[1]
        val = Images([example.path for example in dataset.val], size)[:]
        comparison = compare(detector.scored(), file, val)
        bar.update()
        models = {"float": folder / "model.keras", "int8": file}
        found = {name: finder(path)(val) for name, path in models.items()}
        bar.update()
    return write_report(folder, dataset, history, found, comparison)


def build(config: Config, classes: int, labels: Sequence[str] | None = None) -> Detector:
    """The detector, new but for what the weights are of."""
    backbone = kzoo.get_model(config.model)(
        config.alpha,
        input_shape=(config.size, config.size, 3),
        include_top=False,
        weights=None if config.weights == "none" else config.weights,
        norm_momentum=NORM_MOMENTUM,
        **({"reduced_tail": True} if config.reduced_tail or config.weights == "coco" else {}),
    )
    detector = kzoo.SSDLite(
        backbone,
        classes,
        extras=[max(LEAST_EXTRA, int(width * config.alpha)) for width in EXTRAS],
        loss=config.loss,
        box_loss=config.box_loss,
        norm_momentum=NORM_MOMENTUM,
    )
    if config.weights != "none" and not config.weights.startswith("imagenet"):
        kzoo.load_weights(detector, config.weights, labels=labels)  # the head of a detector's file
    return detector


@dataclasses.dataclass(frozen=True)
class Training:
    """The stages of a run."""

    dataset: BoxDataset
    config: Config
    folder: Path

    def head(self, detector: Detector) -> tuple[Detector, list[Row]]:
        """The new layers alone."""
        for layer in detector.layers:
            layer.trainable = not layer.name.startswith("row")
        return self.fit(detector, Stage("head", self.config.head_epochs, HEAD_LEARNING_RATE))

    def whole(self, detector: Detector) -> tuple[Detector, list[Row]]:
        """The whole network. Pretrained batch normalization keeps its statistics.

        Trained along from the statistics of these images, as a segmenter's, a V3-Small was at
        mAP .36 on 237 photos where with these it was at .64 (after 28 epochs of 40).
        """
        for layer in detector.layers:
            pretrained = self.config.weights != "none" and layer.name.startswith("row")
            norm = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = not (pretrained and norm)
        stage = Stage("whole", self.config.epochs, self.config.learning_rate, ema=self.config.ema)
        return self.fit(detector, stage)

    def int8(self, int8: Detector, teacher: Detector) -> tuple[Detector, list[Row]]:
        """The quantized network, taught by the float one; as it was, where that does not help."""
        stage = Stage("qat", self.config.qat_epochs, QAT_LEARNING_RATE)
        return self.fit(int8, stage, how=partial(fit_or_leave, teacher=teacher))

    def fit(
        self, detector: Detector, stage: Stage, how: Callable = fit
    ) -> tuple[Detector, list[Row]]:
        """A stage whose best epoch has the highest mAP on the validation images."""
        augment = BoxAugment(flip=self.config.flip)
        if not self.config.crop:
            augment = dataclasses.replace(augment, crop=0, shrink=0)
        train = self.batches(
            self.dataset.train, augment=augment, mosaic=self.config.mosaic, margin=MARGIN
        )
        val = self.batches(self.dataset.val)
        stage = dataclasses.replace(
            stage,
            rank=highest("val_map"),
            patience=self.config.patience,
            **self.config.of_stages,
        )
        return how(
            detector,
            stage,
            lambda epoch: train.shuffled(self.config.seed, epoch),
            val,
            self.folder,
            measure=lambda model: self.measured(model, val),
        )

    def batches(self, examples: Sequence[Example], **options) -> BoxBatches:
        every = (*self.dataset.train, *self.dataset.val)
        most = max(len(example.labels) for example in every) * (4 if self.config.mosaic else 1)
        return BoxBatches(
            examples,
            self.config.size,
            batch_size=self.config.step,
            most=min(most, MOST_OBJECTS),
            **options,
        )

    def measured(self, detector: Detector, val: BoxBatches) -> dict[str, float]:
        found = detections(
            detector.predict(val, verbose=0), detector.anchor_boxes, activation=detector.activation
        )
        score = score_boxes(val.examples, found, self.dataset.labels)
        # nan, where no image has an object, ranks nothing.
        figures = {
            "val_map": float(np.nan_to_num(score.map)),
            "val_map50": float(np.nan_to_num(score.map50)),
        }
        if self.config.keras_cv_metrics:
            figures |= score_by_keras_cv(val.examples, found)
        return figures
