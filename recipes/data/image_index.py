"""Which image of a data set an annotation means: one index for all tasks and formats.

An image is found by the longest part of its path that an annotation gives, then by its stem where
only one image can be meant; upper and lower case and Unicode's forms count where they tell images
apart. What may mean two images means none: both are named.
"""

import dataclasses
import os
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from kzoo.recipes.data.images import SUFFIXES, is_candidate
from kzoo.recipes.data.layout import Tree, folded, key_of, parts_of, split_of_parts
from kzoo.recipes.data.text import Issue


@dataclasses.dataclass(frozen=True)
class Asked:
    """What an annotation says of its image."""

    source: Path  # the file that it stands in
    name: str  # the image's name there, perhaps with folders; "": that of the file itself
    own: bool = False  # the file is of this image alone, so that its own name may tell too
    split: str | None = None  # the split that the annotation is of
    stem: str = ""  # the image's, where it is not the file's own: 1 of 1_mask.png


@dataclasses.dataclass(frozen=True)
class Candidate:
    path: Path
    score: tuple[Any, ...]  # the more of the path is as asked, the higher
    whole: bool  # whether nothing that was asked speaks against it


class ImageIndex:
    """The images of a data set, by what annotations say of them."""

    def __init__(
        self, tree: Tree, images: Sequence[Path] | None = None,
        bare: Callable[[str], str] = lambda stem: stem,
    ):  # fmt: skip
        """`bare` returns a stem without what says that it is an image's: a of a_leftImg8bit."""
        self.tree = tree
        self.images: list[Path] = tree.images if images is None else list(images)
        self.known: set[str] = set(map(str, self.images))
        self.tables: list[dict[str, list[Path]]] = [{}, {}, {}, {}]
        for path in self.images:
            keys = (path.name, folded(path.name), path.stem, folded(path.stem))
            for table, key in zip(self.tables, keys, strict=True):
                table.setdefault(key, []).append(path)
            if (stem := bare(path.stem)) != path.stem:
                self.tables[2].setdefault(stem, []).append(path)
                self.tables[3].setdefault(folded(stem), []).append(path)

    def find(self, asked: Sequence[Asked], issues: list[Issue]) -> list[Path | None]:
        """Return the image of each; None, and an issue, where there is none or may be several.

        Those found by all that was asked come first. An image of another folder is taken only
        where it is the only one of that stem, and no annotation means it, or that folder, itself.
        """
        found: list[Path | None] = [None] * len(asked)
        rest: list[tuple[int, list[Candidate]]] = []
        conflicts: list[tuple[int, Path, Path]] = []
        own_names = True  # whether every file of one image has that image beside it
        for i, item in enumerate(asked):
            named = self.best(item, item.name) if item.name else []
            own = self.best(item, "") if item.own or not item.name else []
            sure, sure_own = sole(named), sole(own)
            own_names &= not item.own or sure_own is not None
            if sure and sure_own and sure != sure_own:
                conflicts.append((i, sure, sure_own))
            elif sure or sure_own:
                found[i] = sure or sure_own
            else:
                rest.append((i, [*named, *own]))
        self.resolve_conflicts(conflicts, own_names, asked, found, issues)
        self.from_elsewhere(rest, asked, found, issues)
        self.refuse_shared(asked, found, issues)
        return found

    def resolve_conflicts(
        self, conflicts: list[tuple[int, Path, Path]], own_names: bool, asked: Sequence[Asked],
        found: list[Path | None], issues: list[Issue],
    ) -> None:  # fmt: skip
        """Where a file names one image and is called like another: by its own name, if all are."""
        for i, named, own in conflicts:
            if own_names:
                found[i] = own
            else:
                text = f"names {named.name!r} and is called like {self.tree.inside(own)}: left out"
                issues.append(Issue(asked[i].source, text))
        if conflicts and own_names:
            i, named, own = conflicts[0]
            issues.append(Issue(asked[i].source, (
                f"names {named.name!r} and is called like {own.name!r}: read as of {own.name!r}, "
                f"as every annotation file has an image of its own name ({len(conflicts)} in all)"
            )))  # fmt: skip

    def from_elsewhere(
        self, rest: list[tuple[int, list[Candidate]]], asked: Sequence[Asked],
        found: list[Path | None], issues: list[Issue],
    ) -> None:  # fmt: skip
        """Images of other folders than annotations say, where nothing else can be meant."""
        claimed = {path for path in found if path}
        folders = {path.parent for path in claimed}
        moved: list[tuple[int, Path]] = []
        for i, candidates in rest:
            item = asked[i]
            name = item.name or item.source.stem
            whole = {c.path: None for c in candidates if c.whole}
            free = {
                c.path: None for c in candidates
                if c.path not in claimed and c.path.parent not in folders
                and not self.contradicts(item, c.path)
            }  # fmt: skip
            if len(whole) > 1:
                both = " or ".join(str(self.tree.inside(path)) for path in [*whole][:2])
                reason = f"its image {name!r} may be {both}: left out"
                issues.append(Issue(item.source, reason))
            elif len(free) == 1:
                (path,) = free
                moved.append((i, path))
            else:
                issues.append(Issue(item.source, f"its image {name!r} is missing: left out"))
        for i, path in moved:
            found[i] = path
        if moved:
            i, path = moved[0]
            reason = (
                f"its image {asked[i].name or asked[i].source.stem!r} is read from "
                f"{self.tree.inside(path)}, the only one of that name ({len(moved)} in all)"
            )
            issues.append(Issue(asked[i].source, reason))

    def refuse_shared(
        self, asked: Sequence[Asked], found: list[Path | None], issues: list[Issue]
    ) -> None:
        """One image that two different names mean is neither's."""
        first: dict[Path, int] = {}
        shared: set[Path] = set()
        for i, path in enumerate(found):
            if path is None:
                continue
            j = first.setdefault(path, i)
            if j != i and asked[i].name and asked[j].name:
                same = key_of(parts_of(asked[i].name)) == key_of(parts_of(asked[j].name))
                if not same and asked[i].source == asked[j].source:
                    text = f"{asked[j].name!r} and {asked[i].name!r} mean one image: left out"
                    issues.append(Issue(path, text))
                    shared.add(path)
        for i, path in enumerate(found):
            if path in shared:
                found[i] = None

    def best(self, asked: Asked, name: str) -> list[Candidate]:
        """Return the candidates that most speaks for: one where it is clear, none, or several."""
        source = self.tree.inside(asked.source)
        if name:
            if exact := self.exact(asked.source.parent, name):
                return [Candidate(exact, (), True)]
            folders, last = parts_of(name)[:-1], (parts_of(name) or ("",))[-1]
        else:
            folders, last = source.parent.parts, asked.stem or asked.source.stem
        pool = self.called(last, stem=not name)
        if not pool and (plain := urllib.parse.unquote(name)) != name:  # of a web address
            return self.best(asked, plain)
        candidates = [self.scored(asked, path, folders, bool(name)) for path in pool]
        candidates = [c for c in candidates if c.whole] or candidates
        if not candidates:
            return []
        most = max(c.score for c in candidates)
        return [c for c in candidates if c.score == most]

    def exact(self, beside: Path, name: str) -> Path | None:
        """Return the image where a name says that it is, from the annotation or the data set on."""
        name = name.strip().replace("\\", "/")
        for place in (beside, self.tree.root):
            path = os.path.normpath(place / name)
            if path in self.known:
                return Path(path)
        if name.startswith(("/", "../")):
            path = os.path.normpath(beside / name)
            if is_candidate(Path(path)) and os.path.isfile(path):
                return Path(path)
        return None

    def called(self, name: str, *, stem: bool) -> list[Path]:
        """Return the images of a name, then of its stem; exactly so, or but for case and form."""
        whole, whole_folded, stems, stems_folded = self.tables
        if not stem and (found := whole.get(name) or whole_folded.get(folded(name))):
            return found
        bare = PurePosixPath(name).stem if PurePosixPath(name).suffix.lower() in SUFFIXES else name
        for key in dict.fromkeys((bare, PurePosixPath(name).stem if not stem else bare)):
            if found := stems.get(key) or stems_folded.get(folded(key)):
                return found
        return []

    def scored(self, asked: Asked, path: Path, folders: tuple[str, ...], named: bool) -> Candidate:
        have = self.tree.inside(path).parent.parts
        near = self.tree.inside(asked.source).parent.parts
        want_key, have_key, near_key = key_of(folders), key_of(have), key_of(near)
        raw = common_end(tuple(map(folded, folders)), tuple(map(folded, have)))
        shared = common_end(want_key, have_key)
        whole = shared in (len(want_key), len(have_key)) and not self.contradicts(asked, path)
        if not named:  # a file of one image alone: nothing may be left of either path but its root
            whole = whole and (
                shared == len(want_key) == len(have_key) or not have_key or not (want_key)
            )
        agrees = asked.split is not None and asked.split == split_of_parts(have)
        beside = common_end(near_key, have_key)
        start = common_start(near, have)
        score = (shared, raw, agrees, near_key == have_key, beside, start)
        return Candidate(path, score, whole)

    def contradicts(self, asked: Asked, path: Path) -> bool:
        """Whether an image is of another split than its annotation."""
        own = split_of_parts(self.tree.inside(path).parent.parts)
        return asked.split is not None and own is not None and asked.split != own


def sole(candidates: list[Candidate]) -> Path | None:
    """Return the one image that all speaks for."""
    return candidates[0].path if len(candidates) == 1 and candidates[0].whole else None


def common_end(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """Return how many parts two paths share at their ends."""
    count = 0
    while count < min(len(a), len(b)) and a[-1 - count] == b[-1 - count]:
        count += 1
    return count


def common_start(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """Return how many parts two paths share at their beginnings."""
    return common_end(a[::-1], b[::-1])
