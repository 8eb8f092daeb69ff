"""Images and their annotations into few large files that any recipe reads: `kzoo pack`.

    kzoo pack PHOTOS packed --side 256        then: kzoo classify packed
    kzoo pack packed                          reads it back, every byte
    kzoo pack part1 part2 part3 all           joins what several processes or disks have packed

What is wrong with single images is found now, and told again in the report of every run.
"""

import dataclasses
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kzoo.recipes.data.box_dataset import CROWD, DIFFICULT, NO_BOXES, Example
from kzoo.recipes.data.class_dataset import Split
from kzoo.recipes.data.images import Source, check_pixels, open_image
from kzoo.recipes.data.masks.pairs import Pair, full_mask
from kzoo.recipes.data.packed import (
    SPLITS,
    Check,
    Writer,
    array_record,
    check,
    open_packed,
    packed_record,
    read_index,
)
from kzoo.recipes.data.pixels import to_rgb, upright
from kzoo.recipes.data.text import Issue
from kzoo.recipes.progress import track
from kzoo.recipes.task import get_task

SHARD_MB = 256
QUALITY = 90  # of JPEG, where images are made smaller


def pack(
    data: str | Path, out: str | Path, *, task: str = "classify", side: int | None = None,
    shard_mb: float = SHARD_MB, val_fraction: float = 0.2, seed: int = 0,
    format: str | None = None, void: str | int | None = None,
) -> Check:  # fmt: skip
    """Writes the images of `data` into `out`, reads them back and says what is there.

    `task` says how `data` is read. With `side` an image whose shorter side is longer is made so
    small (JPEG); else files are kept byte for byte. `format` and `void` are those of the task.
    Raises ValueError for what cannot be packed.
    """
    data, out = Path(data), Path(out)
    kind = get_task(task)
    if kind.pack is None:
        raise ValueError(f"Images of the task {task!r} cannot be packed.")
    if out.exists():
        raise ValueError(f"{out} exists. Choose another folder for the packed images.")
    if side is not None and side < 32:
        raise ValueError(f"side must be at least 32 px. Received: {side}")
    array_record()  # or say at once that it is missing
    settings = {"val_fraction": val_fraction, "seed": seed, "format": format, "void": void}
    dataset = kind.read_dataset(data, settings)
    kind.pack(dataset, Packer(out, side, shard_mb))
    return check(out)


def join(parts: Sequence[str | Path], out: str | Path) -> Check:
    """A packed folder of the shards of others, which stay where they are.

    Raises ValueError where they are not of one task with the same classes.
    """
    folders, out = [Path(part) for part in parts], Path(out)
    if out.exists():
        raise ValueError(f"{out} exists. Choose another folder for the joined images.")
    indexes = [read_index(folder) for folder in folders]
    for key in ("task", "labels"):
        for folder, index in zip(folders, indexes, strict=True):
            if index[key] != indexes[0][key]:
                raise ValueError(
                    f"{folders[0]} and {folder} cannot be joined, their {key} differ: "
                    f"{indexes[0][key]} and {index[key]}"
                )
    packed = [open_packed(folder, indexes[0]["task"]) for folder in folders]
    writer = Writer(out, 0)
    for split in SPLITS:
        for own in packed:
            for shard in own.images[split].shards:
                name = os.path.relpath(own.folder / shard.name, out)
                writer.files.append(dataclasses.replace(shard, name=name))
        annotations = [own.annotations[split] for own in packed]
        writer.split(
            split,
            (),
            {name: np.concatenate([s[name] for s in annotations]) for name in annotations[0]},
        )
    about = {key: np.sum([own.about[key] for own in packed], 0).tolist() for key in packed[0].about}
    writer.finish(
        indexes[0]["task"], packed[0].labels, [one for own in packed for one in own.remarks], about
    )
    return check(out)


class Packer(Writer):
    """A writer of images."""

    def __init__(self, out: Path, side: int | None, shard_mb: float):
        super().__init__(out, int(shard_mb * 1e6))
        self.side = side

    def images(self, split: str, sources: Sequence[Source]) -> Iterator[bytes]:
        for source in track(sources, f"packing {split}"):
            yield packed_record(str(source), shrunk(source, self.side))

    def pairs(self, split: str, pairs: Sequence[Pair]) -> Iterator[bytes]:
        for pair in track(pairs, f"packing {split}"):
            image, mask = shrunk(pair.image, self.side), Image.fromarray(full_mask(pair))
            with open_image(io.BytesIO(image)) as opened:
                size = upright(opened).size
            file = io.BytesIO()
            mask.resize(size, Image.Resampling.NEAREST).save(file, "PNG")
            yield packed_record(str(pair.image), image, file.getvalue())

    def end(self, task: str, labels: Sequence[str], issues: Sequence[Issue], **about: Any) -> None:
        remarks = [(str(issue.path), issue.reason) for issue in issues]
        self.finish(task, labels, remarks, about)


def shrunk(source: Source, side: int | None) -> bytes:
    """An image's file as it is, or one whose shorter side has `side` px."""
    with source.open("rb") as file:
        content = file.read()
    with open_image(io.BytesIO(content)) as image:
        shorter = min(image.size)
        if side is None or shorter <= side:
            return content
        image.draft("RGB", (2 * side, 2 * side))
        check_pixels(image)
        seen = to_rgb(upright(image))
        width, height = seen.size
        scale = side / min(width, height)
    small = io.BytesIO()
    size = round(width * scale), round(height * scale)
    seen.resize(size, Image.Resampling.LANCZOS).save(small, "JPEG", quality=QUALITY)
    return small.getvalue()


def pack_labels(dataset: Any, packer: Packer, task: str = "classify") -> None:
    for name in SPLITS:
        split: Split = getattr(dataset, name)
        targets = {"targets": split.targets.astype("int32")}
        packer.split(name, packer.images(name, split.paths), targets)
    packer.end(task, dataset.labels, dataset.issues)


def pack_boxes(dataset: Any, packer: Packer) -> None:
    for name in SPLITS:
        examples: Sequence[Example] = getattr(dataset, name)
        sources = [example.path for example in examples]
        packer.split(name, packer.images(name, sources), objects(examples))
    packer.end("detect", dataset.labels, dataset.issues)


def objects(examples: Sequence[Example]) -> dict[str, np.ndarray]:
    boxes, labels, kinds = [NO_BOXES[0]], [NO_BOXES[1]], [NO_BOXES[1]]
    for example in examples:  # crowds after the others
        boxes += [example.boxes, example.crowds[0]]
        labels += [example.labels, example.crowds[1]]
        kinds += [DIFFICULT * ~example.counted, np.full(len(example.crowds[1]), CROWD)]
    found = {
        "counts": np.array([len(e.labels) + len(e.crowds[1]) for e in examples], "int32"),
        "sizes": np.array([example.size for example in examples], "int32").reshape(-1, 2),
        "boxes": np.concatenate(boxes),
        "labels": np.concatenate(labels).astype("int32"),
        "kinds": np.concatenate(kinds).astype("int8"),
    }
    return found if found["kinds"].any() else {k: v for k, v in found.items() if k != "kinds"}


def pack_masks(dataset: Any, packer: Packer) -> None:
    for name in SPLITS:
        pairs: Sequence[Pair] = getattr(dataset, name)
        packer.split(name, packer.pairs(name, pairs), {})
    packer.end("segment", dataset.labels, dataset.issues, pixels=dataset.pixels.tolist())
