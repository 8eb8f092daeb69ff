"""The options of object detection."""

import dataclasses
from typing import ClassVar

from kzoo.recipes.configs.run import SIZE, RunConfig
from kzoo.recipes.inputs import require_keras_cv
from kzoo.recipes.options import option

BOX_FORMATS = ("coco", "voc", "yolo", "csv", "cvat", "labelme", "createml")
CLASS_LOSSES = ("hnm", "focal")
ANCHORS = ("auto", "published")
SCALE_JITTERS = ("mild", "wide")
BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou", "smooth_l1_giou")


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
