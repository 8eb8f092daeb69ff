"""Which format annotations are in, and which image each record is of."""

import dataclasses
from pathlib import Path, PurePosixPath

from kzoo.recipes.data.formats import FORMATS
from kzoo.recipes.data.formats.mask_layout import divided
from kzoo.recipes.data.formats.records import Matched, Record
from kzoo.recipes.data.formats.unread import unread_export
from kzoo.recipes.data.image_index import Asked, ImageIndex
from kzoo.recipes.data.images import SUFFIXES
from kzoo.recipes.data.layout import Tree, folded, parts_of
from kzoo.recipes.data.splits import GUARD, Given, assigned, only_train, read_lists, source_split
from kzoo.recipes.data.text import Issue


def recognized(tree: Tree, data: Path, issues: list[Issue], *, outlines: bool = False) -> str:
    """Return the format of what is there. Raises ValueError for none.

    outlines: only those that masks can be drawn from.
    """
    formats = {name: kind for name, kind in FORMATS.items() if kind.outlines or not outlines}
    fitting = [name for name, kind in formats.items() if kind.fits(tree)]
    if not fitting:
        if advice := unread_export(tree):
            raise ValueError(advice)
        known = "; ".join(f"{name}: {kind.about}" for name, kind in formats.items())
        raise ValueError(
            f"{data} holds no annotations that kzoo reads ({known}). kzoo inspect shows what it is "
            "read as."
        )
    if len(fitting) > 1:
        others = " and ".join(fitting[1:])
        reason = f"is read as {fitting[0]}, and looks like {others} too (--format chooses)"
        issues.append(Issue(data, reason))
    return fitting[0]


def images_meant(tree: Tree, records: list[Record], issues: list[Issue]) -> list[Path]:
    """Return the images that annotations may mean, which masks are not.

    0.png beside 0.jpg may be its mask or an image: it is an image where an annotation names it.
    """
    images, masks = divided(tree)
    if not images:
        return tree.images
    names = {folded((parts_of(record.image) or ("",))[-1]) for record in records}
    photos = {path.with_suffix(""): path for path in images}
    beside = [path for path in masks if path.with_suffix("") in photos]
    unnamed = [path for path in beside if folded(path.name) not in names]
    if unnamed and not all(PurePosixPath(name).suffix in SUFFIXES for name in names):
        photo = photos[unnamed[0].with_suffix("")].name
        reason = (
            f"stands beside {photo} and is taken for its mask: annotations called "
            f"{unnamed[0].stem!r} are read as of {photo} ({len(unnamed)} in all). Rename it if it "
            "is an image of its own"
        )
        issues.append(Issue(unnamed[0], reason))
    return images + [path for path in beside if path not in unnamed]


def matched(
    records: list[Record], tree: Tree, issues: list[Issue], *, image_set: str = "Main"
) -> tuple[list[Matched], bool]:  # fmt: skip
    """Return the records whose image is there, each with its split; the rest goes to `issues`.

    And whether all that is given, with what has no image, is to train on (`only_train`).
    Of records of one image the first counts, for the split that keeps most from training on it.
    """
    index = ImageIndex(tree, images_meant(tree, records, issues))
    asked = []
    for record in records:
        split = record.split or source_split(tree, record.source, many=not record.own)
        asked.append(Asked(record.source, record.image, record.own, split))
    paths = index.find(asked, issues)
    pairs = [(r, path) for r, path in zip(records, paths, strict=True) if path]
    given = [Given(path, r.source, r.split, many=not r.own) for r, path in pairs]
    lists = read_lists(tree, index, issues, image_set=image_set)
    splits = assigned(given, tree, lists, issues)
    found: dict[Path, Matched] = {}
    twice: list[tuple[Path, Path, Path]] = []
    for (record, path), split in zip(pairs, splits, strict=True):
        own = Matched(record, path, split)
        if path in found and found[path].record.source == record.source:
            other = found[path]
            objects = (*other.record.objects, *record.objects)
            merged = dataclasses.replace(other.record, objects=objects)
            found[path] = dataclasses.replace(other, record=merged)
            issues.append(Issue(path, f"is listed twice in {record.source.name}: read as one"))
        elif path in found:
            other = found[path]
            twice.append((record.source, path, other.record.source))
            if GUARD.get(split, -1) > GUARD.get(other.split, -1):
                found[path] = dataclasses.replace(other, split=split)
        else:
            found[path] = own
    for source, path, first in twice[:1] if len(twice) > 20 else twice:
        more = f" ({len(twice)} in all)" if len(twice) > 20 else ""
        reason = f"{path.name} is annotated by {first.name}: left out{more}"
        issues.append(Issue(source, reason))
    annotated = set(paths)
    for path in index.images:
        if path not in annotated:
            issues.append(Issue(path, "has no annotation: left out"))
    issues += tree.unread()
    lost = [item.split for item, path in zip(asked, paths, strict=True) if not path]
    return list(found.values()), only_train([*splits, *lost])
