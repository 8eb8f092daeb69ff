"""Tables of label sets: which columns and cells hold labels, and what may be read wrongly."""

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from kzoo.recipes.data.formats.tables import (
    COLUMNS,
    SEVERAL,
    SPLIT_FLAG,
    given_split,
    kind_of,
    of_images,
    require_one_name,
)
from kzoo.recipes.data.text import Issue, Table

LABEL_SETS = (
    "labels", "tags", "classes", "attributes", "categories", "label_names", "class_names", "tag",
    "attribute", *COLUMNS["label"],
)  # fmt: skip
SEPARATORS = (";", "|", ",")  # between the labels of a cell: the first that the column has
# ['red', 'round'] of Python, {"choices":["red","round"]} of Label Studio
LIST = re.compile(rf"(?:{SEVERAL}\s*)?\[(.*)\]\}}?", re.DOTALL)
QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")
OTHER_SEPARATORS = re.compile(r"[;|,/+&\n]| and ")  # that people put between labels as well
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "-1", "false", "no")  # CelebA says 1 and -1


def separator_of(cells: Sequence[str]) -> str | None:
    """Return what stands between the labels of a cell; None where no cell has two."""
    plain = [cell for cell in cells if not LIST.fullmatch(cell)]
    return next((mark for mark in SEPARATORS if any(mark in cell for cell in plain)), None)


def words_in(cell: str, separator: str | None) -> list[str]:
    """Return the labels of a cell, each once: of red;round, and of a list as Python writes it."""
    words = cell.split(separator) if separator else [cell]
    if inner := LIST.fullmatch(cell):
        quoted = [a or b for a, b in QUOTED.findall(inner[1])]
        words = quoted or inner[1].split(",")
    return list(dict.fromkeys(word.strip() for word in words if word.strip()))


def tell_joined(table: Table, column: int, issues: list[Issue]) -> None:
    """Add issues where what is read as one label seems to be several, or a piece of a list."""
    cells = [row[column] for _, row in table.rows]
    separator = separator_of(cells)
    labels = {label for cell in cells for label in words_in(cell, separator)}
    advice = f"If they are several, put {separator or ';'!r} between them"
    joined = [label for label in sorted(labels) if of_labels(label, labels)]
    spaced = [] if separator else spaced_words(cells)
    if found := joined or spaced:
        reason = f"cells such as {found[0]!r} are read as one label each. {advice}"
        issues.append(Issue(table.file, reason))
    broken = [label for label in sorted(labels) if label[0] in "[{" or label[-1] in "]}"]
    if broken:
        reason = f"the label {broken[0]!r} seems to be a piece of a list that does not end"
        issues.append(Issue(table.file, reason))


def of_labels(label: str, labels: Collection[str]) -> bool:
    """Return whether a label is made of other labels, as red/round is of red and round."""
    parts = [part.strip() for part in OTHER_SEPARATORS.split(label)]
    return len(parts) > 1 and all(part in labels for part in parts)


def spaced_words(cells: Iterable[str]) -> list[str]:
    """Return the cells of several words, if they combine fewer words than there are cells."""
    cells = set(cells)
    joined = sorted(cell for cell in cells if " " in cell)
    if not joined or LIST.fullmatch(joined[0]):
        return []
    return joined if len({word for cell in cells for word in cell.split()}) < len(cells) else []


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table of label sets."""

    source: Path
    image: str
    labels: tuple[str, ...]
    split: str | None
    whole: bool  # whether the table says all labels of an image in one row


@dataclasses.dataclass(frozen=True)
class Places:
    """Numbers of columns: of files, and of label sets or of 0 and 1 for each label."""

    file: int
    of_sets: int | None
    of_labels: tuple[int, ...] = ()

    def used(self, named: Mapping[str, int]) -> set[int | None]:
        return {self.file, self.of_sets, named.get("split"), *self.of_labels}


def columns_of_labels(table: Table, named: Mapping[str, int]) -> Places | None:
    """Return where a table has its labels; None where it is no table of labels.

    Two columns that mostly hold 0 and 1, or more of them, are labels' own columns.
    """
    file = named.get("file")
    if file is None:
        files = [i for i in range(len(table.columns)) if of_images(table, i)]
        file = files[0] if len(files) == 1 else None
    if file is None or kind_of(named):
        return None
    others = [i for i in other_columns(table, named, file) if table.columns[i]]
    hot = [i for i in others if of_yes_and_no(table, i)]
    names = {table.columns[i].lower(): i for i in others}
    known = [names[name] for name in LABEL_SETS if name in names]
    if len(hot) > 1:
        check_hot(table, hot, [i for i in known if i not in hot])
        return Places(file, None, tuple(hot))
    place = known[0] if known else others[0] if len(others) == 1 else None
    if place in hot and not known:
        raise ValueError(
            f"{table.file} has one column of 0 and 1, {table.columns[others[0]]!r}. A multi-label "
            "model needs at least two labels; kzoo classify takes this as two classes."
        )
    return None if place is None else Places(file, place)


def other_columns(table: Table, named: Mapping[str, int], file: int | None) -> list[int]:
    """Return the columns that may be of labels: not those of files and splits."""
    taken = (file, named.get("split"))
    return [i for i, name in enumerate(table.columns) if i not in taken and not SPLIT_FLAG(name)]


def of_yes_and_no(table: Table, column: int) -> bool:
    """Return whether most of what stands in a column is 0 and 1, in words or numbers."""
    cells = [row[column].lower() for _, row in table.rows if row[column]]
    return 2 * sum(cell in YES + NO for cell in cells) > len(cells)  # no blank column


def check_hot(table: Table, hot: Sequence[int], sets: Sequence[int]) -> None:
    """Raise ValueError where columns of 0 and 1 have one name, or a column of sets has others."""
    names = [table.columns[i] for i in hot]
    require_one_name(names, table.file)
    for column in sets:
        name = table.columns[column]
        cells = [row[column] for _, row in table.rows]
        words = {word for cell in cells for word in words_in(cell, separator_of(cells))}
        if name.lower() not in COLUMNS["label"] and not words <= {*names}:
            raise ValueError(
                f"{table.file} has labels in the column {name!r} and in columns of 0 and 1 "
                f"({', '.join(names[:3])}). Remove what is no label."
            )


def held(table: Table, named: Mapping[str, int]) -> str:
    """Return what the first column that is neither of 0 and 1 holds, for the end of a message."""
    for i in other_columns(table, named, named.get("file")) if "file" in named else ():
        for _, row in table.rows:
            if row[i] and row[i].lower() not in YES + NO:
                return f", and the column {table.columns[i]!r} holds {row[i][:40]!r}"
    return ""


def rows_of(table: Table, named: Mapping[str, int], places: Places) -> list[Row]:
    """Return the rows of a table. Raises ValueError for a broken line."""
    column = places.of_sets
    cells_of_sets = [] if column is None else [row[column] for _, row in table.rows]
    separator = separator_of(cells_of_sets)
    whole = column is None or bool(separator) or any(map(LIST.fullmatch, cells_of_sets))
    rows = []
    for number, cells in table.even().rows:
        where = f"{table.file}, line {number}"
        if not cells[places.file]:
            raise ValueError(f"{where}: a row needs a file.")
        if column is None:
            words = [
                table.columns[i] for i in places.of_labels if is_yes(cells[i], table, i, where)
            ]
        else:
            words = words_in(cells[column], separator)
        split = given_split(cells, named, where)
        rows.append(Row(table.file, cells[places.file], tuple(words), split, whole))
    return rows


def is_yes(cell: str, table: Table, column: int, where: str) -> bool:
    """Return what a cell of a label's own column says."""
    if cell.lower() not in YES + NO:
        raise ValueError(
            f"{where}: the column {table.columns[column]!r} holds 0 and 1. It says: {cell!r}"
            f"{'' if cell else '. Write 0 for an image without the label'}"
        )
    return cell.lower() in YES
