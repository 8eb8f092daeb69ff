"""The masks of a data set that are files of their own."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kzoo.recipes.data.formats.frames import stored_size, tell_unsure
from kzoo.recipes.data.formats.mask_layout import mask_names
from kzoo.recipes.data.formats.records import Matched
from kzoo.recipes.data.images import READERS, Look, Source, look_at
from kzoo.recipes.data.layout import Tree, folded
from kzoo.recipes.data.masks.coding import GREY, Values, decide, fault_of
from kzoo.recipes.data.masks.files import BadMaskError, MaskFile, look_at_mask
from kzoo.recipes.data.masks.names import Names, Void, without
from kzoo.recipes.data.masks.pairs import BACKGROUND, Pair, Seen
from kzoo.recipes.data.pixels import TURNED
from kzoo.recipes.data.text import Issue
from kzoo.recipes.progress import track
from kzoo.segmentation.masks import VOID

SAMPLED = 40  # masks that are searched for a class that looks like void
THIN, RARE = 0.5, 0.15  # shares: of its pixels at its edge, at least; of all pixels, at most
UNUSED = ("void", "unlabelled", "unlabeled", "ignore", "ignored", "__ignore__")  # names of void
AROUND = 0.9  # share of the edges' pixels that class 1 has in inverted masks
BORDERING = 0.5  # share of the edges' pixels that a background has


def of_files(
    found: list[Matched], tree: Tree, data: Path, issues: list[Issue], void: Void,
    known: tuple[str, ...] | None = None,
) -> tuple[tuple[str, ...], list[Seen]]:  # fmt: skip
    """Return the classes, and the pairs of images and mask files that can be used."""
    names = mask_names(tree, issues)
    if names.labels:
        left = without(names.labels, void.among(names.labels))
        require_same(data, left, known)
        named = [label for label in left if label.casefold() in UNUSED]
        issues += [Issue(data, unused_name(label)) for label in named if void == Void()]
    elif known and not void.names:
        names = Names.of_model(known)
    with ThreadPoolExecutor(READERS) as pool:
        looks = pool.map(lambda item: look_at_pair(item.path, item.record.source), found)
        shown = list(track(looks, "reading images and masks", len(found)))
    usable: list[tuple[Matched, Look, Values]] = []
    unsure: list[Path] = []
    for item, result in zip(found, shown, strict=True):
        if isinstance(result, Issue):
            issues.append(result)
            continue
        look, values = result
        if look.remark:
            issues.append(Issue(item.path, look.remark))
        if values.remark:
            issues.append(Issue(item.record.source, values.remark))
        usable.append((item, look, values))
        if look.orientation != 1 and values.size == look.size == stored_size(look):
            unsure.append(item.path)
    tell_unsure(unsure, issues)
    decided = decide([values for *_, values in usable], names, void)
    issues += [Issue(data, remark) for remark in decided.remarks]
    labels = decided.labels
    most = len(labels) if labels else VOID
    seen = []
    for item, look, values in usable:
        source = item.record.source
        reason = fault_of(values, decided, names) or unlike(values.size, look, item.path)
        coding = decided.coding_of(values)
        if reason is None and coding:
            counts = classes_of(values.counts, values, coding)
            void_value = f"void ({coding.void})"
            if not counts:
                reason = f"holds nothing but {void_value}"
            elif max(counts) >= most:
                reason = f"holds class id {max(counts)}, and ids go to {most - 1}"
                if labels:
                    reason += f". Name it in the list of classes, or pass --void {max(counts)}"
        if reason is not None:
            issues.append(Issue(source, f"{reason}: left out"))
        if reason is not None or coding is None:
            continue
        turn = look.orientation if values.size != look.size else 1
        if turn != 1:
            issues.append(Issue(source, "turned with its image, as that one's EXIF says"))
        pair = Pair(item.path, MaskFile(source, coding, turn))
        edge = classes_of(values.edge, values, coding)
        seen.append(Seen(pair, counts, edge, item.split))
    if labels is None and (number := lies_between([item.pair for item in seen[:SAMPLED]])):
        reason = (
            f"class {number} lies in thin lines between all others, as void does: if it is, say "
            f"--void {number}"
        )
        issues.append(Issue(data, reason))
    if labels is None:
        issues += [Issue(data, reason) for reason in doubts(seen)]
    return labels or numbered(seen), seen


def doubts(seen: Sequence[Seen]) -> list[str]:
    """Return what the ids of classes without names seem to be instead of classes."""
    ids = [{key for key, n in item.counts.items() if n} - {0} for item in seen]
    lengths = {len(own) for own in ids}
    if (
        len(lengths) > 2
        and max(lengths) > 4
        and all(own == {*range(1, len(own) + 1)} for own in ids)
    ):
        return [
            "the ids of each mask count its objects from 1, to "
            f"{min(lengths)} in one and {max(lengths)} in another: are they instances? kzoo "
            "segment needs ids of classes"
        ]
    edge: Counter[int] = Counter()
    total: Counter[int] = Counter()
    for item in seen:
        edge.update(item.edge)
        total.update(item.counts)
    if {*total} == {0, 1} and edge[1] >= AROUND * edge.total() and 2 * total[1] > total.total():
        return ["class 1 lies around class 0, as a background does: are the masks inverted?"]
    return []


def require_same(data: Path, labels: Sequence[str], known: tuple[str, ...] | None) -> None:
    """Raise ValueError where the classes that `data` names are not those of a model."""
    if known and [*map(folded, labels)] != [*map(folded, known)]:
        raise ValueError(
            f"{data} names the classes {', '.join(labels)}, and the model's are {', '.join(known)}."
        )


def unused_name(label: str) -> str:
    return (
        f"class {label!r} is trained like the others: to ignore its pixels, pass --void {label!r}"
    )


def lies_between(pairs: Sequence[Pair]) -> int | None:
    """Return the highest id, where it borders on every other and is mostly border; else None."""
    others: set[int] = set()
    beside: set[int] = set()
    edge = area = total = 0
    masks = [pair.mask.read() for pair in pairs]
    number = max((int(ids[ids != VOID].max(initial=0)) for ids in masks), default=0)
    for ids in masks:
        own = ids == number
        others.update(np.unique(ids[~own]).tolist())
        across = own[:, 1:] != own[:, :-1]
        beside.update(ids[:, 1:][across].tolist(), ids[:, :-1][across].tolist())
        rim = np.zeros_like(own)
        rim[:, 1:] |= across
        rim[:, :-1] |= across
        down = own[1:] != own[:-1]
        rim[1:] |= down
        rim[:-1] |= down
        edge, area, total = edge + (rim & own).sum(), area + own.sum(), total + own.size
    others -= {VOID}
    thin = area and edge >= THIN * area and area <= RARE * total
    return number if len(others) >= 3 and others <= beside and thin else None


def look_at_pair(image: Path, mask: Path) -> tuple[Look, Values] | Issue:
    look = look_at(image)
    if look.fault:
        return Issue(image, f"{look.fault}: left out")
    try:
        return look, look_at_mask(mask)
    except BadMaskError as error:
        return Issue(mask, f"{error}: left out")


def classes_of(counts, values: Values, coding) -> Counter[int]:
    """Return the pixels of each class, without void, of pixels by value."""
    keys = np.array([*counts], np.int64)
    if coding.by_colour and values.palette:
        keys = np.array([values.palette.get(int(key), -1) for key in keys], np.int64)
    elif coding.by_colour and not values.colours:
        keys = keys * GREY
    found: Counter[int] = Counter()
    for i, n in zip(coding(keys).tolist(), counts.values(), strict=True):
        found[i] += n
    del found[VOID]
    return found


def unlike(size: tuple[int, ...], look: Look, image: Source) -> str | None:
    """Return what differs between a mask of that size (H, W) and its image, or None."""
    height, width = look.size
    if size == (height, width) or (look.orientation in TURNED and size == (width, height)):
        return None
    return f"has {size[1]} x {size[0]} px, {image.name} has {width} x {height}"


def numbered(seen: Sequence[Seen]) -> tuple[str, ...]:
    """Return names for classes that have none; 0 is the background where it lies at the edges."""
    most = max((max(item.counts) for item in seen), default=0)
    edge: Counter[int] = Counter()
    for item in seen:
        edge.update(item.edge)
    behind = most == 1 or edge[0] >= BORDERING * edge.total()
    return (BACKGROUND if behind else "class 0", *(f"class {i}" for i in range(1, most + 1)))
