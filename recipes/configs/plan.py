"""The options of `kzoo plan`."""

import dataclasses

from kzoo.recipes.configs.run import PRECISIONS, SIZE
from kzoo.recipes.configs.segment import SEGMENTATION_HEADS
from kzoo.recipes.inputs import size_given
from kzoo.recipes.models import known_models
from kzoo.recipes.options import JsonOptions, at_least, option

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
