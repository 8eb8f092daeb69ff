"""The options that all recipes share."""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

from kzoo.recipes.inputs import require_tensorboard, size_given
from kzoo.recipes.models import known_models
from kzoo.recipes.options import Options, at_least, below_one, option

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SIZE = "input size of the model in px: one side, or WIDTHxHEIGHT such as 320x240"
DAMAGED = ("refuse", "skip")
QAT = ("auto", "always")


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
