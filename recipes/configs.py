"""What a run of each recipe is made of: every field is a flag of its command.

Nothing heavy is imported here, so that `kzoo classify --help` answers at once and a wrong value is
refused before Keras is imported. `kzoo.recipes.classify.Config` is `ClassifyConfig`, and so on.
"""

import contextlib
import dataclasses
import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

from kzoo.recipes.inputs import require_model
from kzoo.recipes.models import known_models
from kzoo.recipes.options import JsonOptions, Options, at_least, below_one, option

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
DAMAGED = ("refuse", "skip")
ENGINES = ("kzoo", "tfmot")
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
    """What the configurations of all recipes share."""

    model: str = option("which net (kzoo list)", "mobilenet_v3_large", choices=known_models)
    alpha: float = option("width multiplier", 1.0)
    size: int = option("side of the images that the net sees, in px", 224)
    weights: str = option("a name (kzoo weights), none, or the path of a weights file", "imagenet")
    head_epochs: int = option("epochs of the new head, the rest frozen", 4)
    epochs: int = option("epochs of the whole network", 40)
    qat_epochs: int = option("epochs of the quantized network, taught by the float one", 6)
    batch_size: int = option("images per step", 16)
    learning_rate: float = option("highest learning rate of the whole network", 1e-3)
    flip: bool | None = option(
        "mirror training images left and right (default: unless the names of the classes are "
        "letters, numbers, or left and right)", None,
    )  # fmt: skip
    patience: int = option("epochs without a better one before a stage ends", 15)
    val_fraction: float = option("share of images to validate on where no split is given", 0.2)
    test: str | None = option(
        "images to test on at the end, where they lie elsewhere than DATA (default: its own)", None
    )
    keep_float: tuple[str, ...] = option(
        "layers that stay in float in the int8 file: names that kzoo sensitivity prints",
        (),
        before=[],
    )
    seed: int = option("of the split, the order, the augmentation and new weights", 0)
    out: str | None = option("the run folder (default: runs/ and the name of the data)", None)
    precision: str = option(
        f"{', '.join(PRECISIONS)}: what the net computes in", "float32", choices=PRECISIONS
    )
    accumulate: int = option("steps that a batch is spread over, where memory is short", 1)
    ema: float = option(
        "highest momentum of a mean of the weights, kept in their place; 0: none", 0.0
    )
    save_every: float = option(
        "minutes between checkpoints within an epoch; 0: at its end only", 10.0, lasting=False
    )
    damaged: str = option(
        f"shards of a packed folder that are damaged: {' or '.join(DAMAGED)}", "refuse",
        lasting=False, choices=DAMAGED,
    )  # fmt: skip
    tensorboard: str | None = option(
        "folder for TensorBoard's event files (pip install 'kzoo[tensorboard]')", None,
        lasting=False,
    )  # fmt: skip
    quiet: bool = option("show nothing of the progress", False, lasting=False)
    distribute: str | None = option(
        "auto (all devices; processes as SLURM or KERAS_DISTRIBUTION_* say), or HOST:PORT of all "
        "processes, with commas between. Needs JAX", None, lasting=False,
    )  # fmt: skip
    rank: int | None = option("which of the addresses is this process's", None, lasting=False)

    least: ClassVar[dict[str, float]] = {
        "head_epochs": 0, "epochs": 0, "qat_epochs": 0, "batch_size": 1, "learning_rate": 0,
        "patience": 1, "accumulate": 1, "save_every": 0, "ema": 0, "seed": 0, "size": 32,
    }  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, self.least)
        below_one(self, "val_fraction")
        if self.ema >= 1:
            raise ValueError(
                f"ema must be in [0, 1), .998 for a mean of some 500 steps. Received: {self.ema}"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                "batch_size must be a multiple of accumulate. Received: batch_size="
                f"{self.batch_size} and accumulate={self.accumulate}"
            )
        if self.tensorboard is not None:
            require_tensorboard()
        if self.distribute is not None or self.rank is not None:
            from kzoo.recipes import distributed  # imports Keras, whose backend it asks for

            distributed.check(self.distribute, self.rank, self.step)

    @property
    def step(self) -> int:
        """Images that go through the net at once."""
        return self.batch_size // self.accumulate

    @property
    def of_stages(self) -> dict[str, Any]:
        """The fields that the run's stages are told (`kzoo.recipes.training.stages.Stage`)."""
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
    """What a classification run is made of; every field is a flag of `kzoo classify`."""

    task: ClassVar[str] = "classify"

    data: str = option("folder with one folder per class or train/, val/, test/; a CSV; or packed")
    head_epochs: int = option("epochs of the new head on frozen, cached features", 30)
    epochs: int = option("epochs of the whole network", 16)
    qat_engine: str = option(
        "who quantizes: kzoo, or tfmot (pip install 'kzoo[tfmot]')", "kzoo", choices=ENGINES
    )
    batch_size: int = option("images per step", 32)
    learning_rate: float = option("highest learning rate of the whole network", 1e-3)
    normalize_kernels: bool = option(
        "give pretrained kernels one scale, batch norms making up for it, so that one learning "
        "rate fits all of them", True, before=False,
    )  # fmt: skip
    train_scale: float = option(
        "side of the training images of the whole network against --size, rounded to 16 px: crops "
        "show things larger than whole images do", 0.86, before=1.0,
    )  # fmt: skip
    augment: str = option(
        f"how much training images are changed: {', '.join(AUGMENTS)}; in Python an Augment too",
        "light", choices=AUGMENTS, instead="Augment", before="light",
    )  # fmt: skip
    teacher: str | None = option(
        "a run or .keras file of a larger net of the same classes, that teaches this one", None
    )
    freeze: int = option(
        "pretrained rows stay as they are as long as their maps are finer than 1/FREEZE of the "
        "image; 1: none do", 1, before=1,
    )  # fmt: skip
    label_smoothing: float = option("share of each target that is spread over all classes", 0.1)
    temperature: bool = option(
        "divide the logits by a temperature fitted on the validation images: the probabilities of "
        "model and file are then as sure as they are right; no answer changes", False,
        before=False,
    )  # fmt: skip
    patience: int = option("epochs without a better one before a stage ends", 10)

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
            raise ValueError("keep_float is for qat_engine='kzoo'; tfmot takes no such layers.")
        if self.qat_engine == "tfmot":
            require_tfmot()


@dataclasses.dataclass(frozen=True)
class DetectConfig(RunConfig):
    """What a detection run is made of; every field is a flag of `kzoo detect`."""

    task: ClassVar[str] = "detect"
    least: ClassVar[dict[str, float]] = RunConfig.least | {"mosaic": 0, "close": 0, "balance": 0}

    data: str = option("folder of images and annotations, a file of these, or packed")
    format: str | None = option(
        f"{', '.join(BOX_FORMATS)} (default: what is there)", None, choices=BOX_FORMATS
    )
    size: int = option("side of the images that the net sees, in px", 320)
    reduced_tail: bool = option("half the channels in MobileNetV3's last rows", False)
    weights: str = option("imagenet, coco, none, or a weights file, a detector's too", "imagenet")
    loss: str = option(f"of the classes: {', '.join(CLASS_LOSSES)}", "hnm", choices=CLASS_LOSSES)
    box_loss: str = option(
        f"of the boxes: {', '.join(BOX_LOSSES)}", "smooth_l1_giou", choices=BOX_LOSSES
    )
    balance: float = option(
        "0 weighs anchors alike, 1 objects: small ones, which few anchors fit, as much as large",
        1.0,
    )
    anchors: str = option(
        "auto (fitted to the boxes, with a finer map for small ones) or published", "auto",
        choices=ANCHORS, before="published",
    )  # fmt: skip
    epochs: int = option("epochs of the whole network", 60)
    qat_epochs: int = option("epochs of the quantized network, kept if they help", 8)
    batch_size: int = option("images per step", 8)
    learning_rate: float = option("highest learning rate of the whole network", 5e-4)
    ema: float = option(
        "highest momentum of a mean of the weights, kept in their place; 0: none", 0.998
    )
    crop: bool = option("crop training images, or put them on a larger ground", True)
    scale_jitter: str = option(
        "how far: mild, objects at .67 to 2 times their size, or wide, SSD's .5 to 3.3", "mild",
        choices=SCALE_JITTERS, before="wide",
    )  # fmt: skip
    mosaic: float = option("share of training images made of four", 0.0)
    close: float = option("share of the epochs, the last, that show whole images", 0.2)
    patience: int = option("epochs without a better one before a stage ends", 20)
    keras_cv_metrics: bool = option(
        "keras-cv's BoxCOCOMetrics beside the mAP (pip install 'kzoo[keras-cv]')", False,
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
    """What a segmentation run is made of; every field is a flag of `kzoo segment`."""

    task: ClassVar[str] = "segment"
    least: ClassVar[dict[str, float]] = RunConfig.least | dict.fromkeys(
        ("cross_entropy", "dice", "focal", "lovasz", "zoom", "shrink"), 0.0
    )

    data: str = option("folder of images and masks, or of images and outlines, or packed")
    head: str = option(
        f"{', '.join(SEGMENTATION_HEADS)}: the last for small things", "lraspp",
        choices=SEGMENTATION_HEADS,
    )  # fmt: skip
    filters: int | None = option("of the head (default: as published)", None)
    output_stride: int = option("how much smaller the deepest map is: 8, 16 or 32", 16)
    size: int = option("side of the images that the net sees, in px", 256)
    weights: str = option("imagenet, voc, none, or a weights file, a segmenter's too", "imagenet")
    void: str | None = option(
        "what counts for nothing: a value of masks, or names of classes with commas between "
        "(default: 255)", None,
    )  # fmt: skip
    cross_entropy: float = option("weight of cross-entropy in the loss", 1.0)
    dice: float = option("weight of the Dice loss: overlap, good for small regions", 1.0)
    focal: float = option("weight of the focal loss: pixels that are hard", 0.0)
    lovasz: float = option("weight of the Lovasz loss: the IoU itself", 0.0, before=0.0)
    balance: bool = option("weigh classes in cross-entropy and focal loss: rare ones more", True)
    head_epochs: int = option("epochs of the new head, the rest frozen", 3)
    qat_epochs: int = option("epochs of the quantized network", 6)
    batch_size: int = option("images per step", 4)
    zoom: float = option("training images show down to 1 - zoom of each side", 0.35)
    shrink: float = option(
        "training images show up to 1 + shrink of each side, with void around", 0.25, before=0.0
    )
    output: str = option(
        f"of the file: {', '.join(SEGMENTATION_OUTPUTS)}", "logits", choices=SEGMENTATION_OUTPUTS
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        below_one(self, "zoom")
        if str(self.void).isdecimal():  # as the config.json of older runs has it
            object.__setattr__(self, "void", int(str(self.void)))
        if not self.cross_entropy + self.dice + self.focal + self.lovasz:
            raise ValueError(
                "All weights are 0: give cross_entropy, dice, focal or lovasz one that is not."
            )


# Of `kzoo plan`: (size in px, classes, images per update) where none is given.
PLANNED = {"classify": (224, 1000, 32), "detect": (320, 20, 16), "segment": (256, 20, 4)}


def of_tasks(place: int) -> str:
    return ", ".join(f"{values[place]} to {task}" for task, values in PLANNED.items())


@dataclasses.dataclass(frozen=True)
class MultilabelConfig(RunConfig):
    """What a multi-label run is made of; every field is a flag of `kzoo multilabel`."""

    task: ClassVar[str] = "multilabel"

    data: str = option(
        "CSV of files and labels, several in a cell or a column of 0 and 1 for each; or packed"
    )
    head_epochs: int = option("epochs of the new head on frozen, cached features", 30)
    epochs: int = option("epochs of the whole network", 12)
    batch_size: int = option("images per step", 32)
    learning_rate: float = option("highest learning rate of the whole network", 4e-4)
    loss: str = option(
        f"{', '.join(LABEL_LOSSES)}: the second gives easy negatives little weight", "bce",
        choices=LABEL_LOSSES,
    )  # fmt: skip
    augment: str = option(
        f"how much training images are changed: {', '.join(AUGMENTS)}; in Python an Augment too",
        "light", choices=AUGMENTS, instead="Augment",
    )  # fmt: skip
    balance: bool = option("weigh the images that have a label more, where they are few", True)
    freeze: int = option(
        "pretrained rows stay as they are as long as their maps are finer than 1/FREEZE of the "
        "image; 1: none do", 1, before=1,
    )  # fmt: skip
    patience: int = option("epochs without a better one before a stage ends", 10)


@dataclasses.dataclass(frozen=True)
class PlanConfig(JsonOptions):
    """What is planned; every field is a flag of `kzoo plan`."""

    task: str = option(f"what is trained: {', '.join(PLANNED)}", "classify", choices=tuple(PLANNED))
    model: str = option("which net (kzoo list)", "mobilenet_v3_large", choices=known_models)
    alpha: float = option("width multiplier", 1.0)
    head: str = option(
        f"of a segmenter: {', '.join(SEGMENTATION_HEADS)}", "lraspp", choices=SEGMENTATION_HEADS
    )
    filters: int | None = option("of a segmenter's head (default: as published)", None)
    size: int = option(
        f"side of the images that the net sees, in px (default: {of_tasks(0)})", None
    )
    classes: int = option(f"how many there are (default: {of_tasks(1)})", None)
    images: int = option("how many there are to train on", 100_000, former="pictures")
    epochs: int = option("epochs of the whole network", 12)
    batch_size: int = option(f"images per update, of all devices (default: {of_tasks(2)})", None)
    accumulate: int = option("steps that a batch is spread over", 1)
    precision: str = option(
        f"{', '.join(PRECISIONS)}: what the net computes in", "float32", choices=PRECISIONS
    )
    devices: int = option("that train, of all machines", 1)
    rate: float | None = option("images a second that a device trains on (default: this one)", None)
    cores: int | None = option("that read for each device (default: this machine's)", None)
    kb: float | None = option("of an image's file (default: of the data, or of drawn ones)", None)
    disk: float = option("MB/s that each device's disk or network share reads", 200.0)
    network: float = option("Gbit/s between the devices", 10.0)
    data: str | None = option("images to measure reading with: a folder, CSV, or packed", None)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in zip(("size", "classes", "batch_size"), PLANNED[self.task], strict=True):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
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


def require_tfmot() -> None:
    """Raise ValueError where tfmot is not installed: before the float stages, not after them."""
    if importlib.util.find_spec("tensorflow_model_optimization") is None:
        raise ValueError(
            "qat_engine='tfmot' needs tensorflow-model-optimization: pip install 'kzoo[tfmot]'. "
            "Or use qat_engine='kzoo', which needs nothing."
        )


def require_tensorboard() -> None:
    """Raise ValueError where tensorboard is not installed, which TensorFlow's summaries need."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "tensorboard=... needs TensorBoard: pip install 'kzoo[tensorboard]'. history.json in "
            "the run folder has the same figures."
        )


def require_keras_cv() -> None:
    """Raise ValueError where keras-cv is not installed: before training, not after it."""
    if importlib.util.find_spec("keras_cv") is None:
        raise ValueError(
            "keras_cv_metrics needs keras-cv: pip install 'kzoo[keras-cv]'. kzoo's own mAP is "
            "COCO's as well, and needs nothing."
        )
