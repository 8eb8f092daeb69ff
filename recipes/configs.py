"""The options of each recipe: every field is a flag of its command.

Nothing heavy is imported here, so that `kzoo classify --help` answers at once and a wrong value is
refused before Keras is imported. `kzoo.recipes.classify.Config` is `ClassifyConfig`, and so on.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

from kzoo.recipes.inputs import (
    require_keras_cv,
    require_model,
    require_tensorboard,
    require_tfmot,
    size_given,
)
from kzoo.recipes.models import known_models
from kzoo.recipes.options import JsonOptions, Options, at_least, below_one, option

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SIZE = "input size of the model in px: one side, or WIDTHxHEIGHT such as 320x240"
DAMAGED = ("refuse", "skip")
ENGINES = ("kzoo", "tfmot")
QAT = ("auto", "always")
# Names of what is defined in files that import Keras; tests/test_cli.py holds them together.
AUGMENTS = ("none", "light", "strong")
BOX_FORMATS = ("coco", "voc", "yolo", "csv", "cvat", "labelme", "createml")
CLASS_LOSSES = ("hnm", "focal")
ANCHORS = ("auto", "published")
SCALE_JITTERS = ("mild", "wide")
BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou", "smooth_l1_giou")
LABEL_LOSSES = ("bce", "asymmetric")
SEGMENTATION_HEADS = ("lraspp", "deeplabv3", "deeplabv3+")
SEGMENTATION_OUTPUTS = ("logits", "scores", "mask")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Options):
    """The options that all recipes share."""

    model: str = option("model name (kzoo list)", "mobilenet_v3_large", choices=known_models)
    alpha: float = option("width multiplier", 1.0)
    size: int | tuple[int, int] = option(SIZE, 224)
    weights: str = option("a name (kzoo weights), none, or the path of a weights file", "imagenet")
    head_epochs: int = option("epochs of the new head, the rest frozen", 4)
    epochs: int = option("epochs of the whole network", 40)
    qat: str = option(
        "auto (quantization-aware training only if calibration alone loses more than chance on the "
        "validation images) or always", "auto", choices=QAT, before="always",
    )  # fmt: skip
    qat_epochs: int = option(
        "epochs of quantization-aware training, with the float model as teacher; 0: none", 6
    )
    batch_size: int = option("images per step", 16)
    learning_rate: float = option("highest learning rate of the whole network", 1e-3)
    flip: bool | None = option(
        "mirror training images left and right (default: unless the names of the classes are "
        "letters, numbers, or left and right)", None,
    )  # fmt: skip
    patience: int = option("epochs without improvement before a stage ends", 15)
    val_fraction: float = option("share of images for validation if the data has no split", 0.2)
    test: str | None = option(
        "test images, measured at the end (default: the test split of DATA)", None
    )
    keep_float: tuple[str, ...] = option(
        "layers to keep in float in the int8 file (kzoo sensitivity prints their names)",
        (),
        before=[],
    )
    seed: int = option("random seed of the split, the order, the augmentation and new weights", 0)
    out: str | None = option("run folder (default: runs/ and the name of the data)", None)
    precision: str = option(
        f"compute dtype: {', '.join(PRECISIONS)}", "float32", choices=PRECISIONS
    )
    accumulate: int = option("steps that a batch is split into, to save memory", 1)
    ema: float = option(
        "highest momentum of a moving average of the weights (the average is kept); 0: off", 0.0
    )
    save_every: float = option(
        "minutes between checkpoints within an epoch; 0: only at its end", 10.0, lasting=False
    )
    damaged: str = option(
        f"what to do with damaged shards of a packed folder: {' or '.join(DAMAGED)}", "refuse",
        lasting=False, choices=DAMAGED,
    )  # fmt: skip
    tensorboard: str | None = option(
        "folder for TensorBoard's event files (pip install 'kzoo[tensorboard]')", None,
        lasting=False,
    )  # fmt: skip
    quiet: bool = option("do not show the progress", False, lasting=False)
    distribute: str | None = option(
        "auto (all devices, processes from SLURM or KERAS_DISTRIBUTION_*), or HOST:PORT of all "
        "processes, separated by commas; needs JAX", None, lasting=False,
    )  # fmt: skip
    rank: int | None = option(
        "index of this process in the addresses of --distribute", None, lasting=False
    )

    least: ClassVar[dict[str, float]] = {
        "head_epochs": 0, "epochs": 0, "qat_epochs": 0, "batch_size": 1, "learning_rate": 0,
        "patience": 1, "accumulate": 1, "save_every": 0, "ema": 0, "seed": 0,
    }  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "size", size_given(self.size))
        at_least(self, self.least)
        below_one(self, "val_fraction")
        if self.ema >= 1:
            raise ValueError(
                f"ema must be in [0, 1); .998 averages about 500 steps. Received: {self.ema}"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                "batch_size must be a multiple of accumulate. Received: batch_size="
                f"{self.batch_size} and accumulate={self.accumulate}"
            )
        if self.tensorboard is not None:
            require_tensorboard(self.tensorboard)
        if self.distribute is not None or self.rank is not None:
            from kzoo.recipes import distributed  # imports Keras, whose backend it asks for

            distributed.check(self.distribute, self.rank, self.step)

    @property
    def step(self) -> int:
        """Images per forward pass."""
        return self.batch_size // self.accumulate

    @property
    def of_stages(self) -> dict[str, Any]:
        """The fields that are passed to the run's stages (`kzoo.recipes.training.stages.Stage`)."""
        return {name: getattr(self, name) for name in ("accumulate", "save_every")}

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """The processes of the run, from its beginning to its end."""
        from kzoo.recipes import distributed  # imports Keras

        with warnings.catch_warnings():
            # Recipes freeze batch norms that have no statistics, or recalibrate them.
            warnings.filterwarnings("ignore", r".* has no statistics for \d+ batch norms")
            with distributed.joined(self.distribute, self.rank, batch=self.step):
                yield


@dataclasses.dataclass(frozen=True)
class ClassifyConfig(RunConfig):
    """The options of a classification run; every field is a flag of `kzoo classify`."""

    task: ClassVar[str] = "classify"

    data: str = option(
        "folder with one folder per class, or with train/, val/, test/; a CSV; or packed data"
    )
    head_epochs: int = option("epochs of the new head on frozen, cached features", 30)
    epochs: int = option("epochs of the whole network", 16)
    qat_engine: str = option(
        "library that quantizes: kzoo, or tfmot (pip install 'kzoo[tfmot]')",
        "kzoo",
        choices=ENGINES,
    )
    batch_size: int = option("images per step", 32)
    learning_rate: float = option("highest learning rate of the whole network", 1e-3)
    normalize_kernels: bool = option(
        "bring pretrained kernels to one scale, so that one learning rate fits all of them; "
        "batch norms compensate", True, before=False,
    )  # fmt: skip
    train_scale: float = option(
        "side of the training images of the whole network / --size, rounded to 16 px; below 1 "
        "because objects look larger in crops than in whole images", 0.86, before=1.0,
    )  # fmt: skip
    augment: str = option(
        f"strength of augmentation: {', '.join(AUGMENTS)}; in Python also an Augment",
        "light", choices=AUGMENTS, instead="Augment", before="light",
    )  # fmt: skip
    teacher: str | None = option(
        "run folder or .keras file of a larger model of the same classes, used as teacher", None
    )
    freeze: int = option(
        "freeze pretrained rows whose feature maps are finer than 1/FREEZE of the image; 1: none",
        1, before=1,
    )  # fmt: skip
    label_smoothing: float = option("share of each target that is spread over all classes", 0.1)
    temperature: bool = option(
        "divide the logits of model and file by a temperature fitted on the validation images, so "
        "that scores match the accuracy; no answer changes", False,
        before=False,
    )  # fmt: skip
    patience: int = option("epochs without improvement before a stage ends", 10)

    def __post_init__(self) -> None:
        super().__post_init__()
        below_one(self, "label_smoothing")
        if not 1 <= self.freeze <= 32:
            raise ValueError(f"freeze must be in [1, 32]. Received: {self.freeze}")
        if not 0.25 <= self.train_scale <= 1:
            raise ValueError(f"train_scale must be in [.25, 1]. Received: {self.train_scale}")
        if self.teacher is not None:
            require_model(self.teacher)
        if self.qat_engine == "tfmot" and self.keep_float:
            raise ValueError(
                "keep_float works only with qat_engine='kzoo'; tfmot quantizes all layers."
            )
        if self.qat_engine == "tfmot":
            require_tfmot()


@dataclasses.dataclass(frozen=True)
class DetectConfig(RunConfig):
    """The options of a detection run; every field is a flag of `kzoo detect`."""

    task: ClassVar[str] = "detect"
    least: ClassVar[dict[str, float]] = RunConfig.least | {"mosaic": 0, "close": 0, "balance": 0}

    data: str = option("folder of images and annotations, an annotation file, or packed data")
    format: str | None = option(
        f"{', '.join(BOX_FORMATS)} (default: detected)", None, choices=BOX_FORMATS
    )
    size: int | tuple[int, int] = option(SIZE, 320)
    reduced_tail: bool = option("half the channels in MobileNetV3's last rows", False)
    weights: str = option(
        "imagenet, coco, none, or a weights file (also of a detector)", "imagenet"
    )
    loss: str = option(
        f"loss of the classes: {', '.join(CLASS_LOSSES)}", "hnm", choices=CLASS_LOSSES
    )
    box_loss: str = option(
        f"loss of the boxes: {', '.join(BOX_LOSSES)}", "smooth_l1_giou", choices=BOX_LOSSES
    )
    balance: float = option(
        "0: every anchor has the same weight in the loss; 1: every object, so that small ones, "
        "which few anchors fit, count as much as large ones",
        1.0,
    )
    anchors: str = option(
        "auto (fitted to the boxes, with a finer feature map for small ones) or published", "auto",
        choices=ANCHORS, before="published",
    )  # fmt: skip
    epochs: int = option("epochs of the whole network", 60)
    qat_epochs: int = option("epochs of quantization-aware training; 0: none", 8)
    batch_size: int = option("images per step", 8)
    learning_rate: float = option("highest learning rate of the whole network", 5e-4)
    ema: float = option(
        "highest momentum of a moving average of the weights (the average is kept); 0: off", 0.998
    )
    crop: bool = option("crop training images, or place them on a larger canvas", True)
    scale_jitter: str = option(
        "range of object sizes from --crop: mild (.67 to 2 times) or wide (SSD's .5 to 3.3)",
        "mild", choices=SCALE_JITTERS, before="wide",
    )  # fmt: skip
    mosaic: float = option("share of training images that are mosaics of four", 0.0)
    close: float = option("share of the epochs, at the end, that train on whole images", 0.2)
    patience: int = option("epochs without improvement before a stage ends", 20)
    keras_cv_metrics: bool = option(
        "also measure keras-cv's BoxCOCOMetrics (pip install 'kzoo[keras-cv]')", False,
        lasting=False,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mosaic", "close", "balance"):
            if vars(self)[name] > 1:
                raise ValueError(f"{name} must be in [0, 1]. Received: {vars(self)[name]}")
        if self.keras_cv_metrics:
            require_keras_cv()
        if self.reduced_tail and not self.model.startswith("mobilenet_v3"):
            raise ValueError(f"reduced_tail is for MobileNetV3. Received: model={self.model!r}")


@dataclasses.dataclass(frozen=True)
class SegmentConfig(RunConfig):
    """The options of a segmentation run; every field is a flag of `kzoo segment`."""

    task: ClassVar[str] = "segment"
    least: ClassVar[dict[str, float]] = RunConfig.least | dict.fromkeys(
        ("cross_entropy", "dice", "focal", "lovasz", "zoom", "shrink"), 0.0
    )

    data: str = option("folder of images and masks, or of images and polygons, or packed data")
    head: str = option(
        f"{', '.join(SEGMENTATION_HEADS)}; the last is best for small regions", "lraspp",
        choices=SEGMENTATION_HEADS,
    )  # fmt: skip
    filters: int | None = option("channels of the head (default: as published)", None)
    output_stride: int = option("stride of the deepest feature map: 8, 16 or 32", 16)
    size: int | tuple[int, int] = option(SIZE, 256)
    weights: str = option(
        "imagenet, voc, none, or a weights file (also of a segmenter)", "imagenet"
    )
    void: str | None = option(
        "what masks ignore: a value, or class names separated by commas (default: 255)", None,
    )  # fmt: skip
    cross_entropy: float = option("weight of cross-entropy in the loss", 1.0)
    dice: float = option("weight of the Dice loss: overlap, good for small regions", 1.0)
    focal: float = option("weight of the focal loss: difficult pixels", 0.0)
    lovasz: float = option("weight of the Lovasz loss: the IoU itself", 0.0, before=0.0)
    balance: bool = option("give rare classes more weight in cross-entropy and focal loss", True)
    head_epochs: int = option("epochs of the new head, the rest frozen", 3)
    batch_size: int = option("images per step", 4)
    zoom: float = option("training crops show at least 1 - ZOOM of each side", 0.35)
    shrink: float = option(
        "training images show up to 1 + SHRINK of each side, padded with void", 0.25, before=0.0
    )
    output: str = option(
        f"output of the file: {', '.join(SEGMENTATION_OUTPUTS)}",
        "logits",
        choices=SEGMENTATION_OUTPUTS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        below_one(self, "zoom")
        if str(self.void).isdecimal():  # as the config.json of older runs has it
            object.__setattr__(self, "void", int(str(self.void)))
        if not self.cross_entropy + self.dice + self.focal + self.lovasz:
            raise ValueError(
                "All loss weights are 0: set cross_entropy, dice, focal or lovasz above 0."
            )


@dataclasses.dataclass(frozen=True)
class MultilabelConfig(RunConfig):
    """The options of a multi-label run; every field is a flag of `kzoo multilabel`."""

    task: ClassVar[str] = "multilabel"

    data: str = option(
        "CSV of files and labels: several in a cell, or a 0/1 column for each; or packed data"
    )
    head_epochs: int = option("epochs of the new head on frozen, cached features", 30)
    epochs: int = option("epochs of the whole network", 12)
    batch_size: int = option("images per step", 32)
    learning_rate: float = option("highest learning rate of the whole network", 4e-4)
    loss: str = option(
        f"{', '.join(LABEL_LOSSES)}; the second gives easy negatives little weight", "bce",
        choices=LABEL_LOSSES,
    )  # fmt: skip
    augment: str = option(
        f"strength of augmentation: {', '.join(AUGMENTS)}; in Python also an Augment",
        "light", choices=AUGMENTS, instead="Augment",
    )  # fmt: skip
    balance: bool = option("give the images of rare labels more weight", True)
    freeze: int = option(
        "freeze pretrained rows whose feature maps are finer than 1/FREEZE of the image; 1: none",
        1, before=1,
    )  # fmt: skip
    patience: int = option("epochs without improvement before a stage ends", 10)


# Of `kzoo plan`: (size in px, classes, images per update) where none is given.
PLANNED = {"classify": (224, 1000, 32), "detect": (320, 20, 16), "segment": (256, 20, 4)}


def of_tasks(place: int) -> str:
    return ", ".join(f"{values[place]} to {task}" for task, values in PLANNED.items())


@dataclasses.dataclass(frozen=True)
class PlanConfig(JsonOptions):
    """The options of a plan; every field is a flag of `kzoo plan`."""

    task: str = option(f"task to plan: {', '.join(PLANNED)}", "classify", choices=tuple(PLANNED))
    model: str = option("model name (kzoo list)", "mobilenet_v3_large", choices=known_models)
    alpha: float = option("width multiplier", 1.0)
    head: str = option(
        f"head of a segmenter: {', '.join(SEGMENTATION_HEADS)}",
        "lraspp",
        choices=SEGMENTATION_HEADS,
    )
    filters: int | None = option("channels of a segmenter's head (default: as published)", None)
    size: int | tuple[int, int] = option(f"{SIZE} (default: {of_tasks(0)})", None)
    classes: int = option(f"number of classes (default: {of_tasks(1)})", None)
    images: int = option("number of training images", 100_000, former="pictures")
    epochs: int = option("epochs of the whole network", 12)
    batch_size: int = option(f"images per update, of all devices (default: {of_tasks(2)})", None)
    accumulate: int = option("steps that a batch is split into", 1)
    precision: str = option(
        f"compute dtype: {', '.join(PRECISIONS)}", "float32", choices=PRECISIONS
    )
    devices: int = option("number of training devices, on all machines together", 1)
    rate: float | None = option(
        "images per second that a device trains on (default: measured here)", None
    )
    cores: int | None = option(
        "CPU cores that read for each device (default: this machine's)", None
    )
    kb: float | None = option(
        "kB of an image file (default: that of --data, or of drawn images)", None
    )
    disk: float = option("MB/s that each device reads from its disk or network share", 200.0)
    network: float = option("Gbit/s between the devices", 10.0)
    data: str | None = option(
        "data to measure reading speed with: a folder, CSV, or packed data", None
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in zip(("size", "classes", "batch_size"), PLANNED[self.task], strict=True):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        object.__setattr__(self, "size", size_given(self.size))
        least = ("classes", "images", "epochs", "batch_size", "accumulate", "devices")
        at_least(self, dict.fromkeys(least, 1))
        for name in ("rate", "cores", "kb", "disk", "network"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be greater than 0. Received: {value}")
        if self.batch_size % (self.devices * self.accumulate):
            raise ValueError(
                "batch_size must be a multiple of devices times accumulate. Received: "
                f"{self.batch_size}, {self.devices} and {self.accumulate}"
            )
