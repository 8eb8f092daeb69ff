"""Models and inputs of each task for the measurements of `kzoo plan`."""

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kzoo
from kzoo.recipes.classify import MARGIN as CLASSIFY_MARGIN
from kzoo.recipes.classify import TASK, Stages
from kzoo.recipes.configs.detect import DetectConfig
from kzoo.recipes.configs.image_labels import ClassifyConfig
from kzoo.recipes.configs.plan import PlanConfig
from kzoo.recipes.configs.segment import SegmentConfig
from kzoo.recipes.data.augment import Augment, Batches, Epoch
from kzoo.recipes.data.box_batches import BoxAugment, BoxBatches
from kzoo.recipes.data.images import Images, Source
from kzoo.recipes.data.masks.batches import MaskBatches
from kzoo.recipes.detect import MARGIN as DETECT_MARGIN
from kzoo.recipes.detect import loaded
from kzoo.recipes.segment import MARGIN as SEGMENT_MARGIN
from kzoo.recipes.segment import build
from kzoo.recipes.task import Run
from kzoo.recipes.training.transfer import of_any_size
from kzoo.sizes import Size, height_width, scaled

Targets = Any  # as `keras.Model.train_on_batch` takes them


@dataclasses.dataclass(frozen=True)
class PlannedTask:
    """A task's untrained model, and the inputs and settings of a training step."""

    build: Callable[[PlanConfig], keras.Model]
    loss: Callable[[], Any]  # as `keras.Model.compile` takes it
    targets: Callable[[int, Size], Targets]  # (images, size) -> made up ones of a batch
    read: Callable[[Sequence[Any], Size], Epoch]  # (examples, size) -> one batch of them
    examples: Callable[[Any], Sequence[Any]] = lambda split: split
    source: Callable[[Any], Source] = lambda example: example  # where an example's image is
    train_size: Callable[[PlanConfig], Size] = lambda ask: ask.size  # of images in training


def classifier(ask: PlanConfig) -> keras.Model:
    return kzoo.get_model(ask.model)(
        ask.alpha, input_shape=(*height_width(ask.size), 3), classes=ask.classes
    )


def classifier_train_size(ask: PlanConfig) -> Size:
    config = ClassifyConfig(data="", model=ask.model, size=ask.size)
    size = Stages(Run(TASK, vars(config), None, Path(), config)).train_size
    return size if size == ask.size or of_any_size(classifier(ask), size) else ask.size


def detector(ask: PlanConfig) -> keras.Model:
    config = DetectConfig(data="", model=ask.model, alpha=ask.alpha, size=ask.size, weights="none")
    return loaded(config, named(ask.classes))[0]


def segmenter(ask: PlanConfig) -> keras.Model:
    config = SegmentConfig(
        data="", model=ask.model, alpha=ask.alpha, size=ask.size, weights="none",
        head=ask.head, filters=ask.filters,
    )  # fmt: skip
    return build(config, named(ask.classes))


def named(classes: int) -> Any:
    """Return a stand-in for a dataset with this number of classes, to build a model."""
    return types.SimpleNamespace(labels=tuple(f"class {i}" for i in range(classes)))


def one_box(count: int, size: Size) -> Mapping[str, np.ndarray]:
    boxes = np.tile(np.array([0.2, 0.2, 0.8, 0.8], "float32"), (count, 1, 1))
    return {"boxes": boxes, "labels": np.zeros((count, 1), "int32")}


def read_images(paths: Sequence[Any], size: Size) -> Batches:
    images = Images(paths, scaled(size, CLASSIFY_MARGIN))
    return Batches(
        images, np.zeros(len(paths), int), classes=2, batch_size=len(paths), augment=Augment(),
        size=size,
    )  # fmt: skip


def read_boxed(examples: Sequence[Any], size: Size) -> BoxBatches:
    return BoxBatches(
        examples, size, batch_size=len(examples), most=1, augment=BoxAugment(),
        margin=DETECT_MARGIN,
    )  # fmt: skip


def read_masked(pairs: Sequence[Any], size: Size) -> MaskBatches:
    return MaskBatches(pairs, size, batch_size=len(pairs), augment=Augment(), margin=SEGMENT_MARGIN)


PLANNED = {
    "classify": PlannedTask(
        classifier, lambda: "sparse_categorical_crossentropy",
        lambda count, size: np.zeros(count, "int32"), read_images,
        examples=lambda split: split.paths,
        train_size=classifier_train_size,
    ),
    "detect": PlannedTask(
        detector, lambda: None, one_box, read_boxed, source=lambda example: example.path
    ),
    "segment": PlannedTask(
        segmenter, lambda: kzoo.SegmentationLoss(dice=1.0),
        lambda count, size: np.zeros((count, *height_width(size)), "uint8"), read_masked,
        source=lambda pair: pair.image,
    ),
}  # fmt: skip
