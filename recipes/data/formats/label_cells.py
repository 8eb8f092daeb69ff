"""The cells of tables of label sets: which labels one holds, and what may be read wrongly."""

import re
from collections.abc import Collection, Iterable, Sequence

from kzoo.recipes.data.formats.tables import SEVERAL
from kzoo.recipes.data.text import Issue, Table

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
