"""Images with any number of labels each, none among them: CSV files.

A table has a column of files and one of labels ("red;round"), or one column of 0 and 1 for each
label. Rows of the same image are added up. A split is given by a column, or by the name of the
table or its folder.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from kzoo.recipes.data.class_dataset import Dataset, Split, usable, with_test
from kzoo.recipes.data.duplicates import same_bytes
from kzoo.recipes.data.formats.label_tables import (
    Row,
    columns_of_labels,
    held,
    of_yes_and_no,
    other_columns,
    rows_of,
    separator_of,
    tell_joined,
    words_in,
)
from kzoo.recipes.data.formats.tables import (
    tables_of_labels,
    tell_unused,
)
from kzoo.recipes.data.image_index import Asked, ImageIndex
from kzoo.recipes.data.layout import Tree, look_through, meant, tell_alike
from kzoo.recipes.data.packed import is_packed, open_packed, test_images
from kzoo.recipes.data.splits import (
    GUARD,
    NAMES,
    counted,
    for_test,
    source_split,
    versions,
    with_val_to_draw,
)
from kzoo.recipes.data.text import Issue, and_issues, check_labels
from kzoo.recipes.inputs import existing

WANTED = (
    "the columns file,labels (several labels in a cell: red;round), or file and one column of 0 "
    "and 1 for each label, and optionally split"
)


@dataclasses.dataclass(frozen=True)
class LabelSets(Dataset):
    """Images and which of the labels each one has; `targets` are (N, labels) of 0 and 1."""

    format: str = "csv"

    def __str__(self) -> str:
        counts = self.train.targets.sum(axis=0)
        names = ", ".join(f"{label} {n}" for label, n in zip(self.labels, counts, strict=True))
        without = int((self.train.targets.sum(axis=1) == 0).sum())
        text = f"{counted(self)} ({names}; {without} without a label)"
        return text + and_issues(self.issues)


@dataclasses.dataclass(frozen=True)
class Tagged:
    """An image, its labels, and the split that it is given for."""

    path: Path
    labels: frozenset[str]
    split: str | None


def read_label_sets(
    data: str | Path, *, val_fraction: float = 0.2, seed: int = 0, damaged: str = "refuse",
    test: str | Path | None = None,
) -> LabelSets:  # fmt: skip
    """Return the images that the tables of `data` name, every one opened to see that it is one.

    `data` is a CSV file, a folder with some, or what `kzoo pack` made of one; the other arguments
    are those of `read_dataset`. Where nothing is given as val, `val_fraction` of the images of
    every label is drawn by `seed`, of the rarest label first.
    Raises ValueError where nothing can be learnt from what is there, saying why.
    """
    data = existing(data, f"a CSV with {WANTED}")
    if test is not None:
        dataset = read_label_sets(data, val_fraction=val_fraction, seed=seed, damaged=damaged)
        return with_test(dataset, *read_label_sets_test(test, dataset.labels))
    if is_packed(data):
        return packed_label_sets(data, skip=damaged == "skip")
    issues: list[Issue] = []
    named, found = tagged(data, issues)
    rows = usable(with_val_to_draw(found), issues)
    if not {"train", "val"} & {row.split for row in rows}:
        rows = drawn_by_label(rows, val_fraction, seed)
    rows = [dataclasses.replace(row, split=row.split or "train") for row in rows]
    known = {label for row in rows if row.split == "train" for label in row.labels}
    labels = [label for label in named if label in known]
    for label in named:
        if label not in known:
            issues.append(Issue(data, f"label {label!r} is on no image to train on: left out"))
    if len(labels) < 2:
        raise ValueError(
            f"{data} has {f'only the label {labels[0]!r}' if labels else 'no labels'} on its "
            f"{len(rows)} training images. A multi-label model needs at least two labels: a "
            f"CSV with {WANTED}."
        )
    tell_alike(labels, data, issues)
    for label in labels:
        if all(label in row.labels for row in rows if row.split == "train"):
            reason = f"label {label!r} is on all training images: nothing tells when it is absent"
            issues.append(Issue(data, reason))
    same_bytes([(row.path, row.split, row.labels) for row in rows], issues)
    train, val, own_test = (split_of_rows(rows, {name}, labels) for name in NAMES)
    if not len(val):
        raise ValueError(
            f"{data}: no image is left for validation. Put some into val, or give no split at "
            "all: then "
            "val_fraction is drawn."
        )
    return LabelSets(tuple(labels), train, val, own_test, tuple(issues))


def read_label_sets_test(
    data: str | Path, labels: Sequence[str]
) -> tuple[Split, tuple[Issue, ...]]:
    """Return the images to test a model of these labels on, and what is wrong with them.

    They are those that `data` gives as test, or all where it gives none. Labels of others are left
    out; their images stay. Raises ValueError where no image has one of the labels.
    """
    data = existing(data, f"a CSV with {WANTED}")
    if is_packed(data):
        return test_images(packed_label_sets(data, skip=False), data, labels)
    issues: list[Issue] = []
    named, found = tagged(data, issues)
    known = {label: meant(label, labels) for label in named}
    found = [
        dataclasses.replace(row, labels=frozenset(known[one] for one in row.labels))
        for row in found
    ]
    for label in sorted({*known.values()} - set(labels)):
        issues.append(Issue(data, f"label {label!r} is none of the model's: left out"))
    split = split_of_rows(usable(found, issues), for_test(row.split for row in found), labels)
    if not split.targets.any():
        raise ValueError(f"{data} holds no image of {', '.join(labels)} to test on.")
    return split, tuple(issues)


def packed_label_sets(data: Path, *, skip: bool) -> LabelSets:
    packed = open_packed(data, "multilabel", skip=skip)
    train, val, test = (
        Split(packed.images[split], packed.annotations[split]["targets"]) for split in NAMES
    )
    return LabelSets(packed.labels, train, val, test, packed.issues, "packed")


def split_of_rows(
    rows: Sequence[Tagged], wanted: set[str | None] | set[str], labels: Sequence[str]
) -> Split:
    """Return the images of some splits."""
    own = [row for row in rows if row.split in wanted]
    targets = [[label in row.labels for label in labels] for row in own]
    return Split(
        tuple(row.path for row in own), np.array(targets, "uint8").reshape(len(own), len(labels))
    )


def drawn_by_label(rows: Sequence[Tagged], val_fraction: float, seed: int) -> list[Tagged]:
    """Return the rows with `val_fraction` of each label's images drawn as val.

    The rarest label is drawn first, as of https://doi.org/10.1007/978-3-642-23808-6_10: what is
    drawn for one label counts for its others. Images without a label come last.
    """
    rng = np.random.default_rng(seed)
    unsplit = [i for i, row in enumerate(rows) if row.split is None]
    groups = {
        unsplit[group[0]]: [unsplit[k] for k in group]
        for group in versions([rows[i].path for i in unsplit])
    }
    free = [*groups]  # of the versions of one photo the first
    of_label: dict[str | None, list[int]] = {}
    for i in free:
        for label in rows[i].labels or (None,):
            of_label.setdefault(label, []).append(i)
    order = sorted(of_label, key=lambda label: (label is None, len(of_label[label]), label or ""))
    drawn: set[int] = set()
    settled: set[int] = set()
    for label in order:
        own = of_label[label]
        wanted = min(max(1, round(len(own) * val_fraction)), len(own) - 1)
        left = [i for i in own if i not in settled]
        missing = max(0, wanted - sum(i in drawn for i in own))
        drawn.update(left[k] for k in rng.permutation(len(left))[:missing])
        settled.update(own)
    chosen = {k for i in drawn for k in groups[i]}
    return [
        dataclasses.replace(row, split="val") if i in chosen else row for i, row in enumerate(rows)
    ]


# Tables


def tagged(data: Path, issues: list[Issue]) -> tuple[tuple[str, ...], list[Tagged]]:
    """Return (labels, images) of the tables of a file or folder."""
    tree = look_through(data)
    labels, rows = table_rows(tree, issues)
    if not rows:
        raise ValueError(f"{data} holds no table of labels. DATA is a CSV with {WANTED}.")
    paths = ImageIndex(tree).find(
        [Asked(row.source, row.image, split=row.split) for row in rows], issues
    )
    found: dict[Path, Tagged] = {}
    unlike: list[Path] = []
    for row, path in zip(rows, paths, strict=True):
        if path is None:
            continue
        if row.whole and path in found and found[path].labels != {*row.labels}:
            unlike.append(path)
        other = found.get(path, Tagged(path, frozenset(), row.split))
        split = max(row.split, other.split, key=GUARD.__getitem__)
        if other.split != row.split:
            issues.append(Issue(path, f"is given as of two splits: kept for {split}"))
        found[path] = Tagged(path, other.labels | {*row.labels}, split)
    if unlike:
        reason = f"is there again with other labels: it has all of them ({len(unlike)} in all)"
        issues.append(Issue(unlike[0], reason))
    issues += tree.unread()
    return labels, list(found.values())


def table_rows(tree: Tree, issues: list[Issue]) -> tuple[tuple[str, ...], list[Row]]:
    """Return (labels, rows) of all tables of label sets. Raises ValueError for a broken one.

    Labels that are columns keep their order; others are sorted.
    """
    columns_first: dict[str, None] = {}
    words: set[str] = set()
    rows: list[Row] = []
    for table, named in tables_of_labels(tree, issues):
        places = columns_of_labels(table, named)
        if places is None and tree.only:
            raise ValueError(
                f"{table.file}: the first line must name {WANTED}. It says: "
                f"{','.join(table.columns)[:80]!r}{held(table, named)}"
            )
        if places is None:
            issues.append(Issue(table.file, "has no columns of files and labels: left out"))
            continue
        if places.of_sets is not None:
            advice = "leave the cell empty for an image without labels"
            mark = separator_of([row[places.of_sets] for _, row in table.rows])
            check_labels(table, places.of_sets, issues, advice, partial(words_in, separator=mark))
            tell_joined(table, places.of_sets, issues)
        by_name = source_split(tree, table.file, many=True)
        own = [
            dataclasses.replace(r, split=r.split or by_name) for r in rows_of(table, named, places)
        ]
        rows += own
        if places.of_labels:
            columns_first |= dict.fromkeys(table.columns[i] for i in places.of_labels)
        words |= {label for row in own for label in row.labels}
        tell_unused(table, places.used(named), issues)
        for i in other_columns(table, named, places.file):
            if not table.columns[i] and of_yes_and_no(table, i):
                reason = f"column {i + 1} has no name in the first line: left out"
                issues.append(Issue(table.file, reason))
    return (*columns_first, *sorted(words - {*columns_first})), rows


def has_label_sets(tree: Tree) -> bool:
    """Whether a table gives some image several labels or none."""
    try:
        rows = table_rows(tree, [])[1]
    except ValueError:
        return False
    found: dict[tuple[Path, str], set[str]] = {}
    for row in rows:
        found.setdefault((row.source, row.image), set()).update(row.labels)
    return any(len(labels) != 1 for labels in found.values())
