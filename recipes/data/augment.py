"""Batches of images, augmented.

What a model sees in an epoch is a function of seed and epoch alone, so that a run that was killed
goes on exactly where it was.
"""

import copy
import dataclasses
import math
import os
import threading
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from PIL import Image

from kzoo.arguments import is_flag, is_whole, require
from kzoo.recipes.data.augmentation.filters import erase, filtered
from kzoo.recipes.data.augmentation.mixing import Mixing, require_share
from kzoo.recipes.data.augmentation.opencv import OPENCV, cv2
from kzoo.sizes import Size, height_width

WORKERS = min(32, max(2, os.cpu_count() or 2))  # threads that make batches


@dataclasses.dataclass(frozen=True)
class Augment:
    """How far a training image is moved, filtered and recoloured; 0 everywhere leaves it as it is.

    What happens to an image is a function of the random generator that it comes with.
    """

    zoom: float = 0.25  # shows down to 1 - zoom of each side
    shrink: float = 0.0  # shows up to 1 + shrink of it: the image with a rim around
    stretch: float = 0.1  # of one side against the other
    turn: float = 10.0  # degrees, either way
    flip: bool = True  # left and right
    colour: float = 0.25  # brightness, contrast and saturation, as factors 1 +- colour
    filters: int = 0  # how many of `filters.FILTERS`, each drawn anew
    erase: float = 0.0  # share of images in which a rectangle is noise
    mixing: Mixing | None = None  # of an image with the next one of its batch, by `Batches`

    def __post_init__(self) -> None:
        for name in ("shrink", "stretch"):
            require_share(name, getattr(self, name), math.inf)
        for name in ("zoom", "colour", "erase"):
            require_share(name, getattr(self, name), 1)
        require("zoom", self.zoom, self.zoom < 1, "below 1, at which nothing of an image is shown")
        require_share("turn", self.turn, 180)
        whole = is_whole(self.filters) and self.filters >= 0
        require("filters", self.filters, whole, "a whole number, 0 or more")
        require("flip", self.flip, is_flag(self.flip), "True or False")
        known = self.mixing is None or isinstance(self.mixing, Mixing)
        require("mixing", self.mixing, known, "a Mixing, or None for none")

    def __call__(
        self, image: np.ndarray, size: Size, rng: np.random.Generator, *,
        out: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Return the image (H, W, 3) uint8 as (height, width, 3) float32 in [0, 255].

        It is written into `out` where that is given, such as a row of a batch.
        """
        moved = warp(image, size, self.place(image.shape[:2], size, rng))
        if self.filters:
            moved = filtered(moved, self.filters, rng)
        changed = self.recolour(moved, rng, out=out)
        if self.erase:
            erase(changed, self.erase, rng)
        return changed

    def place(self, image: Size, size: Size, rng: np.random.Generator) -> np.ndarray:
        """Where an image of `size` looks in one of size `image`, of about the same aspect.

        Returns the affine map (2, 3) of its x, y, 1 in px.
        """
        sides, seen = (np.array(height_width(given)[::-1]) for given in (image, size))  # x, y
        shown = sides * rng.uniform(1 - self.zoom, 1 + self.shrink)
        stretch = np.exp(rng.uniform(-self.stretch, self.stretch) / 2)
        most = sides * (1 + self.shrink)
        scale = np.minimum([shown[0] * stretch, shown[1] / stretch], most) / seen
        centre = sides / 2 + rng.uniform(-0.5, 0.5, 2) * (sides - scale * seen)
        angle = np.deg2rad(rng.uniform(-self.turn, self.turn))
        mirror = -1 if self.flip and rng.random() < 0.5 else 1
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn * scale * [mirror, 1]
        return np.c_[matrix, centre - matrix @ (seen / 2)]

    def recolour(
        self, image: np.ndarray, rng: np.random.Generator, *, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the image (H, W, 3) in other colours, float32 in [0, 255]; into `out` if given.

        Brightness b scales the image, contrast c its distance from the mean of the image,
        saturation s that from each pixel's own grey (the mean of its channels). All are linear, so
        one 3 x 3 matrix and an offset do the three: x -> cb (s x + (1 - s) grey) + (1 - c) b mean.
        """
        brightness, contrast, saturation = rng.uniform(1 - self.colour, 1 + self.colour, 3)
        matrix = saturation * np.eye(3) + (1 - saturation) / 3
        offset = (1 - contrast) * brightness * image.mean()
        if out is None:
            out = np.empty(image.shape, "float32")
        matrix = (contrast * brightness * matrix).astype("float32")
        if OPENCV:
            out[...] = cv2.transform(image.astype("float32"), np.c_[matrix, [offset] * 3])
        else:
            np.matmul(image.astype("float32"), matrix, out=out)
            out += np.float32(offset)
        return np.clip(out, 0, 255, out=out)


AUGMENTS = {
    "none": Augment(zoom=0, stretch=0, turn=0, flip=False, colour=0),
    "light": Augment(),
    "strong": Augment(
        zoom=0.4, filters=1, erase=0.25, mixing=Mixing(mixup=0.2, cutmix=1.0, share=0.5)
    ),
}


def warp(
    image: np.ndarray, size: Size, place: np.ndarray, *,
    fill: int | tuple[int, int, int] = (128, 128, 128), nearest: bool = False,
) -> np.ndarray:  # fmt: skip
    """Return what `place` shows of an image (H, W, 3) or, with `nearest`, of a mask (H, W).

    uint8 in, uint8 (height, width, ...) out, interpolated between pixels; `fill` is outside. OpenCV
    and Pillow differ by one level at most, but for the pixels at the image's own edge, which
    OpenCV blends with `fill`.
    """
    height, width = height_width(size)
    if OPENCV and not nearest:
        ground = (fill,) * 3 if isinstance(fill, int) else fill
        matrix = place.copy()
        matrix[:, 2] += place[:, :2] @ [0.5, 0.5] - 0.5  # centres of pixels are whole numbers there
        return cv2.warpAffine(
            image, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT, borderValue=ground,
        )  # fmt: skip
    resampling = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    shown = Image.fromarray(image).transform(
        (width, height), Image.Transform.AFFINE, tuple(place.flat), resampling, fillcolor=fill
    )
    return np.asarray(shown)


class Epoch(keras.utils.PyDataset):
    """The batches of an epoch: `chosen(i)` says which examples batch `i` is made of.

    The same whatever the number of processes: of each batch, every process has its own rows.
    """

    def __init__(self, count: int, batch_size: int):
        # Pillow and numpy let other threads run while they work.
        super().__init__(workers=WORKERS, max_queue_size=2 * WORKERS)
        self.batch_size = batch_size
        self.order: np.ndarray = np.arange(count)
        self.seed: tuple[int, int] = (0, 0)
        self.done: int = 0
        self.process, self.processes, self.devices = 0, 1, 1

    def shuffled(self, seed: int, epoch: int) -> Self:
        """The same examples as they come in that epoch."""
        shuffled = copy.copy(self)
        shuffled.seed = (seed, epoch)
        shuffled.order = np.random.default_rng(shuffled.seed).permutation(len(self.order))
        return shuffled

    def shared(self, process: int, processes: int, devices: int) -> Self:
        """Those rows of every batch that one of the processes has.

        A last batch that the devices could not share evenly is filled up with examples from its
        beginning, which do not count.
        """
        shared = copy.copy(self)
        shared.process, shared.processes, shared.devices = process, processes, devices
        return shared

    def after(self, steps: int) -> Self:
        """The batches from there on."""
        after = copy.copy(self)
        after.done = steps
        return after

    def only(self, order: np.ndarray) -> Self:
        """These examples, in this order."""
        only = copy.copy(self)
        only.order = order
        return only

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size) - self.done

    def batch(self, i: int) -> np.ndarray:
        """The examples of a batch, of all processes."""
        return self.order[(self.done + i) * self.batch_size :][: self.batch_size]

    def chosen(self, i: int) -> np.ndarray:
        """Those of them that this process has."""
        return self.own(i)[0]

    def counted(self, i: int) -> np.ndarray:
        """Which of the chosen ones count: (n,) bool."""
        return self.own(i)[1]

    def following(self, i: int) -> np.ndarray:
        """Of each chosen one, that which comes next in the batch of all processes."""
        whole = self.batch(i)
        return whole[(self.places(i) + 1) % len(whole)]

    def own(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        whole, places = self.batch(i), self.places(i)
        return whole[places % len(whole)], places < len(whole)

    def places(self, i: int) -> np.ndarray:
        """Return where this process's rows stand in the batch; beyond its end it begins again."""
        count = len(self.batch(i))
        each = -(-count // self.devices) * self.devices // self.processes
        return self.process * each + np.arange(each)

    def rng(self, j: int) -> np.random.Generator:
        """The random numbers of an example in this epoch."""
        return np.random.default_rng((*self.seed, j))


class Batches(Epoch):
    """One epoch of (examples (N, ...) float32, targets (N, classes)), in order.

    Targets are given as class ids (N,), of which one-hot rows are made, or as such rows.

    `examples` are images, uint8 (H, W, 3), or any other rows of numbers; with `augment` they come
    as float32 of `size`. `shuffled` gives the order and augmentation of an epoch.
    Weights (N,) come third where examples weigh differently: by `class_weight`, or because some do
    not count.
    """

    def __init__(
        self, examples: Sequence[Any] | np.ndarray, targets: np.ndarray, *, classes: int,
        batch_size: int, augment: Augment | None = None, size: Size = 0,
        class_weight: np.ndarray | None = None,
    ):  # fmt: skip
        super().__init__(len(examples), batch_size)
        self.examples, self.targets, self.classes = examples, targets, classes
        self.augment, self.size, self.class_weight = augment, size, class_weight
        self.teacher: keras.Model | None = None
        self.asked = threading.Lock()

    def replaced(self, examples: np.ndarray) -> "Batches":
        """The same targets with other examples, such as what a frozen net makes of these."""
        replaced = copy.copy(self)
        replaced.examples = examples
        return replaced

    def taught(self, teacher: keras.Model) -> "Batches":
        """The same examples, with what `teacher` says of them, as they come here, as targets."""
        taught = copy.copy(self)
        taught.teacher = teacher
        return taught

    def __getitem__(self, i: int) -> tuple[np.ndarray, ...]:
        chosen = self.chosen(i)
        examples = self.rows(chosen)
        targets = self.one_hot(chosen)
        if self.augment and self.augment.mixing:
            targets = self.mixed(i, self.augment.mixing, examples, targets)
        if self.teacher is not None:
            with self.asked:  # batches are made by two threads
                answers = self.teacher.predict_on_batch(examples)
        else:
            answers = targets
        if self.class_weight is None and self.devices == 1:
            return examples, answers
        return examples, answers, self.weights(i, targets)

    def mixed(
        self, i: int, mixing: Mixing, examples: np.ndarray, targets: np.ndarray
    ) -> np.ndarray:
        """Mix the examples of a batch in place; return their targets (n, classes).

        The last row of this process is mixed with the first of the next, which has it as well.
        """
        chosen, following = self.chosen(i), self.following(i)
        alone = following[-1:]
        last = examples[0] if alone == chosen[0] else self.rows(alone)[0]
        rngs = [np.random.default_rng((*self.seed, j, 1)) for j in chosen]
        own = mixing(examples, last, rngs)[:, None]
        return own * targets + (1 - own) * self.one_hot(following)

    def one_hot(self, chosen: np.ndarray) -> np.ndarray:
        """Return the targets (n, classes) of examples, float32."""
        own = self.targets[chosen]
        if own.ndim == 2:  # label sets
            return own.astype("float32")
        return np.eye(self.classes, dtype="float32")[own]

    def rows(self, chosen: np.ndarray) -> np.ndarray:
        """Return the examples (n, ...) float32, each written into the batch's memory at once."""
        if self.augment is None:
            rows = np.empty((len(chosen), *np.shape(self.examples[chosen[0]])), "float32")
            for row, j in zip(rows, chosen, strict=True):
                row[...] = self.examples[j]
            return rows
        rows = np.empty((len(chosen), *height_width(self.size), 3), "float32")
        for row, j in zip(rows, chosen, strict=True):
            self.augment(self.examples[j], self.size, self.rng(j), out=row)
        return rows

    def weights(self, i: int, targets: np.ndarray) -> np.ndarray:
        """Of the chosen examples. Keras divides the loss by how many rows there are, with those
        that do not count: the others weigh so much more.

        What is mixed weighs what its classes weigh on average, by their shares."""
        chosen, counted = self.own(i)
        whole = len(self.batch(i))
        filled = len(chosen) * self.processes
        weights = np.where(counted, filled / whole, 0)
        if self.class_weight is not None:
            weights *= targets @ self.class_weight
        return weights.astype("float32")
