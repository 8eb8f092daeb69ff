"""The options of segmentation."""

import dataclasses
from typing import ClassVar

from kzoo.recipes.configs.run import SIZE, RunConfig
from kzoo.recipes.options import below_one, option

SEGMENTATION_HEADS = ("lraspp", "deeplabv3", "deeplabv3+")
SEGMENTATION_OUTPUTS = ("logits", "scores", "mask")


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
    void: str | int | None = option(
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
