"""The same image twice: in two classes, or in two splits, where it spoils what is measured."""

import hashlib
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kzoo.recipes.data.images import READERS
from kzoo.recipes.data.text import Issue


def same_bytes(items: Sequence[tuple[Path, str | None, Hashable]], issues: list[Issue]) -> None:
    """Add an issue for every image with the bytes of another of another class or split.

    items: (file, its split, what is said of it: a class or boxes; None to compare splits alone).
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


def digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
