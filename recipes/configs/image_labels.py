"""The options of recipes that label whole images: one class each, or any number of labels."""

import dataclasses
from typing import ClassVar

from kzoo.recipes.configs.run import RunConfig
from kzoo.recipes.inputs import require_model, require_tfmot
from kzoo.recipes.options import below_one, option, with_default

# Names of what is defined in files that import Keras; tests/test_cli.py holds them together.
AUGMENTS = ("none", "light", "strong")
LABEL_LOSSES = ("bce", "asymmetric")
ENGINES = ("kzoo", "tfmot")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageLabelsConfig(RunConfig):
    """The options that `kzoo classify` and `kzoo multilabel` share."""

    head_epochs: int = option("epochs of the new head on frozen, cached features", 30)
    batch_size: int = option("images per step", 32)
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
    freeze: int = option(
        "freeze pretrained rows whose feature maps are finer than 1/FREEZE of the image; 1: none",
        1, before=1,
    )  # fmt: skip
    patience: int = option("epochs without improvement before a stage ends", 10)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.freeze <= 32:
            raise ValueError(f"freeze must be in [1, 32]. Received: {self.freeze}")
        if not 0.25 <= self.train_scale <= 1:
            raise ValueError(f"train_scale must be in [.25, 1]. Received: {self.train_scale}")


@dataclasses.dataclass(frozen=True)
class ClassifyConfig(ImageLabelsConfig):
    """The options of a classification run; every field is a flag of `kzoo classify`."""

    task: ClassVar[str] = "classify"
    least: ClassVar[dict[str, float]] = RunConfig.least | {"cotuning": 0}

    data: str = option(
        "folder with one folder per class, or with train/, val/, test/; a CSV; or packed data"
    )
    epochs: int = option("epochs of the whole network", 16)
    qat_engine: str = option(
        "library that quantizes: kzoo, or tfmot (pip install 'kzoo[tfmot]')",
        "kzoo",
        choices=ENGINES,
    )
    teacher: str | None = option(
        "run folder or .keras file of a larger model of the same classes, used as teacher", None
    )
    cotuning: float = option(
        "weight of a second loss, which keeps what the pretrained network knows of its own "
        "classes (ImageNet's); 0: off", 0.3, before=0.0,
    )  # fmt: skip
    label_smoothing: float = option("share of each target that is spread over all classes", 0.1)
    temperature: bool = option(
        "divide the logits of model and file by a temperature fitted on the validation images, so "
        "that scores match the accuracy; no answer changes", False,
        before=False,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        below_one(self, "label_smoothing")
        if self.teacher is not None:
            require_model(self.teacher)
        if self.qat_engine == "tfmot" and self.keep_float:
            raise ValueError(
                "keep_float works only with qat_engine='kzoo'; tfmot quantizes all layers."
            )
        if self.qat_engine == "tfmot":
            require_tfmot()


@dataclasses.dataclass(frozen=True)
class MultilabelConfig(ImageLabelsConfig):
    """The options of a multi-label run; every field is a flag of `kzoo multilabel`."""

    task: ClassVar[str] = "multilabel"

    data: str = option(
        "CSV of files and labels: several in a cell, or a 0/1 column for each; or packed data"
    )
    loss: str = option(
        f"{', '.join(LABEL_LOSSES)}; the second gives easy negatives little weight", "bce",
        choices=LABEL_LOSSES,
    )  # fmt: skip
    balance: bool = option("give the images of rare labels more weight", True)
    # Those of kzoo classify lose .9 points of mAP here (tests/bench/multilabel_clothing.py).
    epochs: int = option("epochs of the whole network", 12)
    learning_rate: float = option("highest learning rate of the whole network", 4e-4)
    normalize_kernels: bool = with_default(ImageLabelsConfig, "normalize_kernels", False)
    train_scale: float = with_default(ImageLabelsConfig, "train_scale", 1.0)
