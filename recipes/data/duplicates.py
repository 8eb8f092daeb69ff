"""The same image twice: in two classes, or in two splits, where it spoils what is measured."""

import dataclasses
import hashlib
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kzoo.recipes.data.images import READERS, BadImageError, Source, read_image
from kzoo.recipes.data.splits import require_left
from kzoo.recipes.data.text import Issue


def same_bytes(items: Sequence[tuple[Path, str | None, Hashable]], issues: list[Issue]) -> None:
    """Add an issue for every image with the bytes of another of another class or split.

    items: (file, its split, its class or boxes; None to compare splits alone).
    Files of different lengths differ: only the others are read.
    """
    sizes: dict[int, list[int]] = {}
    for i, (path, *_) in enumerate(items):
        sizes.setdefault(path.stat().st_size, []).append(i)
    alike = [i for group in sizes.values() if len(group) > 1 for i in group]
    with ThreadPoolExecutor(READERS) as pool:
        digests = list(pool.map(lambda i: digest(items[i][0]), alike))
    first: dict[bytes, list[int]] = {}
    for i, own in zip(alike, digests, strict=True):
        path, split, label = items[i]
        for j in first.setdefault(own, []):
            other, other_split, other_label = items[j]
            what = []
            if label != other_label:
                what.append("which is labelled otherwise")
            if split != other_split:
                what.append(f"which is in {other_split}")
            if what and path != other:
                place = f" (this one in {split})" if split != other_split else ""
                reason = f"is the same image as {other}, {' and '.join(what)}{place}"
                issues.append(Issue(path, reason))
                break
        else:
            first[own].append(i)  # one of each class and split to compare with


def with_test(
    dataset: Any, test: Sequence[Any], issues: Sequence[Issue], image: Callable[[Any], Source]
) -> Any:
    """Return a dataset with other test images, none of which is left in its other splits.

    `image` returns the file of an item of a split. Raises ValueError where nothing is left.
    """
    own = {image(item) for item in test}
    splits = {name: getattr(dataset, name) for name in ("train", "val")}
    for name, split in splits.items():
        if own & set(map(image, split)):
            splits[name] = tuple(item for item in split if image(item) not in own)
    require_left(*splits.values())
    splits["test"] = test
    found = [*dataset.issues, *issues]
    files = [(image(item), name) for name, split in splits.items() for item in split]
    same_bytes([(path, name, None) for path, name in files if isinstance(path, Path)], found)
    return dataclasses.replace(dataset, **splits, issues=tuple(dict.fromkeys(found)))


HASHED_SIDE = 32  # px that images are compared at
NEAR = 4  # bits of 64 that the hashes of images that are nearly the same differ in
FLAT = 4.0  # standard deviation of grey values below which a hash tells nothing
COMPARED = 20_000  # images, at the most


def near_duplicates(items: Sequence[tuple[Path, str, Hashable]], issues: list[Issue]) -> None:
    """Add a remark for every image that is nearly one of another class or split; by imagehash.

    items: as of `same_bytes`. Identical files, which that one tells, are left to it.
    """
    items = items[:COMPARED]
    reported = {issue.path for issue in issues if issue.reason.startswith("is the same image as")}
    with ThreadPoolExecutor(READERS) as pool:
        hashes = list(pool.map(lambda item: hashed(item[0]), items))
    known = [i for i, bits in enumerate(hashes) if bits is not None]
    if not known:
        return
    signs = np.array([hashes[i] for i in known], np.float32) * 2 - 1
    labels, splits = ([items[i][k] for i in known] for k in (2, 1))
    for row in range(len(known)):
        alike = np.flatnonzero((64 - signs[:row] @ signs[row]) / 2 <= NEAR)
        path = items[known[row]][0]
        for column in alike.tolist():
            other_label, other_split = labels[column] != labels[row], splits[column] != splits[row]
            if (other_label or other_split) and path not in reported:
                what = "labelled otherwise" if other_label else f"in {splits[column]}"
                reason = f"is nearly the same image as {items[known[column]][0]}, which is {what}"
                issues.append(Issue(path, reason))
                break


def hashed(path: Path) -> np.ndarray | None:
    """Return the 64 bits of an image's perceptual hash; None where it has none that tells."""
    from imagehash import phash  # SciPy's import takes its time

    try:
        image = read_image(path, HASHED_SIDE)
    except BadImageError:
        return None
    if image.mean(axis=-1).std() < FLAT:
        return None
    return phash(Image.fromarray(image)).hash.ravel()


def digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
