"""The masks of a data set that are drawn from the outlines of annotations."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kzoo.recipes.data.formats import FORMATS
from kzoo.recipes.data.formats.frames import frames_of
from kzoo.recipes.data.formats.matching import matched, recognized
from kzoo.recipes.data.formats.records import Matched
from kzoo.recipes.data.images import READERS, look_at
from kzoo.recipes.data.layout import Tree, meant
from kzoo.recipes.data.masks.drawn import DrawnMask, mask_of, other_size
from kzoo.recipes.data.masks.names import Void, without
from kzoo.recipes.data.masks.pairs import BACKGROUND, Pair, Seen
from kzoo.recipes.data.text import Issue
from kzoo.recipes.progress import track
from kzoo.segmentation.masks import VOID


def of_outlines(
    tree: Tree,
    data: Path,
    issues: list[Issue],
    void: Void,
    known: tuple[str, ...] | None = None,
) -> tuple[str, tuple[str, ...], list[Seen], bool]:
    """Return the format, the classes, the images with masks that outlines make; `only_train`."""
    try:
        form = recognized(tree, data, issues, outlines=True)
    except ValueError:
        raise ValueError(
            f"{data} holds no masks that kzoo reads: images/ and masks/ (or train/ and val/ with "
            "those), Pascal VOC's JPEGImages/ and SegmentationClass/, or outlines as "
            f"{', '.join(name for name, kind in FORMATS.items() if kind.outlines)}."
        ) from None
    names, records = FORMATS[form].read(tree, issues)
    things = tuple(name for name in names if not is_background(name))
    nothing = void.among(things)
    labels = known or (BACKGROUND, *without(things, nothing))
    index = {label: i for i, label in enumerate(labels)}
    index |= {name: index[own] for name in names if (own := meant(name, labels)) in index}
    index |= {name: 0 for name in names if is_background(name)}
    index |= {things[i]: VOID for i in nothing}
    found, alone = matched(records, tree, issues, image_set="Segmentation")
    left: Counter[tuple[Path, str]] = Counter()
    broken: dict[Path, list[str]] = {}
    with ThreadPoolExecutor(READERS) as pool:
        looks = list(track(pool.map(lambda item: look_at(item.path), found), "reading images",
                           len(found)))  # fmt: skip
    usable: list[tuple[Matched, DrawnMask]] = []
    frames = frames_of(found, looks, issues)
    for item, look, frame in zip(found, looks, frames, strict=True):
        if look.fault:
            issues.append(Issue(item.path, f"{look.fault}: left out"))
        elif frame and (reason := other_size(item, look, frame)):
            issues.append(Issue(item.record.source, f"{reason}: left out"))
        elif frame:
            usable.append((item, mask_of(item, look, frame, index, left, broken)))
    for file, first in broken.items():
        what = f"objects have outlines that cannot be drawn (first: {first[0]}): left out"
        issues.append(Issue(file, f"{len(first)} {what}"))
    issues += [Issue(file, f"{count} {what}") for (file, what), count in left.items()]
    seen = []
    with ThreadPoolExecutor(READERS) as pool:
        drawings = pool.map(lambda pair: pair[1].read(), usable)
        for (item, mask), ids in zip(usable, drawings, strict=True):
            values, sums = np.unique(ids, return_counts=True)
            counts = Counter(dict(zip(values.tolist(), sums.tolist(), strict=True)))
            del counts[VOID]
            if counts:
                seen.append(Seen(Pair(item.path, mask), counts, Counter(), item.split))
            else:
                issues.append(Issue(item.path, "is void all over: left out"))
    return form, labels, seen, alone


def is_background(name: str) -> bool:
    """Whether a class is called background, or _background_ as LabelMe has it."""
    return name.casefold().strip("_") == BACKGROUND
