"""`kzoo plan`: estimate time and memory of a training run.

    kzoo plan --model mobilenet_v3_large --images 1000000 --devices 8 --data packed

Speed of training and of reading is measured on this machine, in a minute or so; for devices that
are not here, say what one of them reaches (--rate). The rest is arithmetic, which docs/large.md
spells out. Memory is an estimate from the layers' outputs, which tests/bench/plan_memory.py holds
against processes that train: on CPUs an image more took 1.1 (JAX) to 1.7 (TensorFlow) of it, and
the framework 1.2 and .5 GB of its own.
"""

import dataclasses
import io
import os
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from PIL import Image

import kzoo
from kzoo.recipes.configs.plan import PlanConfig as Ask
from kzoo.recipes.data.images import Source
from kzoo.recipes.programs.planned_tasks import PLANNED, read_images
from kzoo.recipes.task import get_task
from kzoo.sizes import Size, height_width, size_text

MEASURED_STEPS, MEASURED_IMAGES = 5, 64
DRAWN_SIDE, DRAWN_QUALITY = 320, 90  # of images to read where there are no data
BYTES = {"float32": 4, "mixed_bfloat16": 2, "mixed_float16": 2}  # of an activation
FLOATS_PER_PARAMETER = 4  # the weight, its gradient, and Adam's two moments


@dataclasses.dataclass(frozen=True)
class Plan:
    """The estimated time and memory of a training run."""

    ask: Ask
    parameters: int
    macs: int  # of an image
    outputs: int  # elements of all layers' outputs for one training image
    rate: float  # training images per second of one device
    reading: float  # images per second that one core reads, decodes and augments
    kb: float  # kB of an image file

    @property
    def train_size(self) -> Size:
        """Size of the training images in px."""
        return PLANNED[self.ask.task].train_size(self.ask)

    @property
    def exchanged(self) -> float:
        """Seconds per update for a ring all-reduce of the gradients between the devices.

        Each device sends and receives 2 (D - 1) / D of them: https://arxiv.org/abs/1802.05799.
        """
        count = self.ask.devices
        return 2 * (count - 1) / count * 4 * self.parameters / (self.ask.network * 1e9 / 8)

    @property
    def rates(self) -> dict[str, float]:
        """Images per second of each part of the training, for all devices together."""
        ask = self.ask
        training = ask.batch_size / (ask.devices * self.rate) + self.exchanged
        return {
            "training": ask.batch_size / training,
            "decoding and augmenting": ask.devices * (ask.cores or 1) * self.reading,
            "reading files": ask.devices * ask.disk * 1e3 / self.kb,
        }

    @property
    def slowest(self) -> str:
        return min(self.rates, key=lambda name: self.rates[name])

    @property
    def hours(self) -> float:
        return self.ask.images * self.ask.epochs / self.rates[self.slowest] / 3600

    @property
    def memory(self) -> float:
        """GB on each device: weights, gradients, Adam's moments and a step's activations."""
        each = self.ask.batch_size // (self.ask.devices * self.ask.accumulate)
        activations = each * self.outputs * BYTES[self.ask.precision]
        return (4 * FLOATS_PER_PARAMETER * self.parameters + activations) / 1e9

    @property
    def verdict(self) -> str:
        """A sentence with the duration and the bottleneck."""
        return (
            f"About {self.hours:,.1f} hours for the whole network; {self.slowest} is the "
            f"bottleneck, at {self.rates[self.slowest]:,.0f} images/s."
        )

    def __str__(self) -> str:
        ask, rates = self.ask, self.rates
        per_device = ask.batch_size // ask.devices
        lines = [
            self.verdict,
            "",
            f"{ask.task}: {ask.model} at alpha {ask.alpha:g} and {size_text(ask.size)} px, "
            f"{ask.classes} classes: {self.parameters:,} parameters, {self.macs / 1e6:.1f} M MACs; "
            f"trained on images of {size_text(self.train_size)} px",
            f"{ask.images:,} images of {self.kb:.0f} kB, {ask.epochs} epochs: "
            f"{ask.images * self.kb / 1e6:,.1f} GB, read {ask.epochs} times",
            f"{ask.devices} devices, {ask.batch_size} images per update ({per_device} each, in "
            f"{ask.accumulate} steps): about {self.memory:.2f} GB on each ({ask.precision}) "
            "beside what the framework takes itself",
            f"one device trains on {self.rate:,.1f} images/s, one of {ask.cores} cores reads "
            f"{self.reading:,.1f}; gradients take {1e3 * self.exchanged:.1f} ms an update",
            *(
                f"{name:>26}: {rate:12,.0f} images/s"
                + ("   <- the bottleneck" if name == self.slowest else "")
                for name, rate in rates.items()
            ),
            f"bytes read: {rates[self.slowest] * self.kb / 1e3:,.1f} MB/s in all",
        ]
        return "\n".join(lines)


def plan(ask: Ask) -> Plan:
    """Return the estimate for a training run.

    ask: its options. The model is built, and speeds that are not given are measured here.
    """
    trained = dataclasses.replace(ask, size=PLANNED[ask.task].train_size(ask))
    reading, kb = reading_speed(trained)
    return Plan(
        dataclasses.replace(ask, cores=ask.cores or os.cpu_count()),
        *cost(ask),
        outputs(trained),
        ask.rate or training_speed(trained),
        reading,
        ask.kb or kb,
    )


def cost(ask: Ask) -> tuple[int, int]:
    """Return (parameters, MACs of an image) of the net."""
    profile = kzoo.profile(PLANNED[ask.task].build(ask))
    return profile.trainable, profile.macs


def outputs(ask: Ask) -> int:
    """Return the number of elements of all layers' outputs for one image."""
    layers = PLANNED[ask.task].build(ask).layers
    given = [output for layer in layers for output in keras.tree.flatten(layer.output)]
    return sum(int(np.prod(output.shape[1:])) for output in given)


def compiled(ask: Ask) -> keras.Model:
    """Return the compiled model."""
    task = PLANNED[ask.task]
    keras.config.set_dtype_policy(ask.precision)
    try:
        net = task.build(ask)
    finally:
        keras.config.set_dtype_policy("float32")
    net.compile("adam", task.loss(), jit_compile=keras.backend.backend() == "jax")
    return net


def training_speed(ask: Ask) -> float:
    """Return training images per second of this machine's device, without the first step."""
    net = compiled(ask)
    each = ask.batch_size // (ask.devices * ask.accumulate)
    images = np.random.default_rng(0).uniform(0, 255, (each, *height_width(ask.size), 3))
    batch = images.astype("float32"), PLANNED[ask.task].targets(each, ask.size)
    return each / fastest(lambda: net.train_on_batch(*batch))


def fastest(act: Callable[[], Any]) -> float:
    """Return the least time of several runs in seconds, which other load affects least."""
    act()
    taken = []
    for _ in range(MEASURED_STEPS):
        start = time.perf_counter()
        act()
        taken.append(time.perf_counter() - start)
    return min(taken)


def reading_speed(ask: Ask) -> tuple[float, float]:
    """Return (images per second that one thread reads and augments, kB of a file)."""
    if ask.data is None:
        drawn = [Drawn(i) for i in range(MEASURED_IMAGES)]
        taken = fastest(lambda: read_images(drawn, ask.size)[0])
        return len(drawn) / taken, sum(len(one.bytes) for one in drawn) / len(drawn) / 1e3
    planned = PLANNED[ask.task]
    every = planned.examples(get_task(ask.task).read(ask.data).train)
    chosen = np.random.default_rng(0).permutation(len(every))[:MEASURED_IMAGES]
    some = [every[i] for i in chosen]
    sizes = [len(content(planned.source(example))) for example in some]
    taken = fastest(lambda: planned.read(some, ask.size)[0])
    return len(some) / taken, sum(sizes) / len(sizes) / 1e3


def content(source: Source) -> bytes:
    with source.open("rb") as file:
        return file.read()


class Drawn:
    """A JPEG of noise with the spatial frequencies of photos, read like a packed image."""

    def __init__(self, seed: int):
        coarse = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype="uint8")
        image = Image.fromarray(coarse).resize((DRAWN_SIDE,) * 2, Image.Resampling.BICUBIC)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=DRAWN_QUALITY)
        self.bytes = file.getvalue()

    def open(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self.bytes)
