"""Text, tables, YAML, XML and JSON as people's programs write them.

Byte order marks and UTF-16 are understood. What is no UTF-8 is read as Windows'
cp1252, with a remark.
A file that cannot be read raises ValueError with its name, the place, and what is wrong.
"""

import codecs
import csv
import dataclasses
import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import defusedxml.ElementTree
import yaml

MARKS = {  # the longer ones first: UTF-32 begins as UTF-16 does
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
SEPARATORS = (",", ";", "\t", "|")
MISSING = ("nan", "<na>", "#n/a", "null")  # how pandas, Excel and databases write no value
MAYBE_MISSING = ("none", "na", "n/a")  # Python's None and others, which may be classes too
MOST_DEPTH = 100  # levels of brackets in a YAML file
Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclasses.dataclass(frozen=True)
class Issue:
    """Something about a file or folder that its owner should know, and what was done about it."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def issue_count(issues: Sequence[Issue]) -> str:
    """Return "1 issue", or "12 issues"."""
    return f"{len(issues):,} issue{'' if len(issues) == 1 else 's'}"


def and_issues(issues: Sequence[Issue]) -> str:
    """Return "; 12 issues", which a line on a data set ends in, or "" where there are none."""
    return f"; {issue_count(issues)}" if issues else ""


def first_issue(issues: Sequence[Issue]) -> str:
    """Return " First of 12 issues: ...", for the end of a message, or "" where there are none."""
    return f" First of {issue_count(issues)}: {issues[0]}." if issues else ""


def read_text(file: Path, issues: list[Issue] | None = None) -> str:
    """Return a file's text. Raises ValueError for a file that is no text."""
    content = file.read_bytes()
    text, encoding = decoded(file, content)
    if encoding == "cp1252" and issues is not None:
        issue = Issue(file, "is not in UTF-8: read as cp1252 (Windows). Save it as UTF-8")
        if issue not in issues:
            issues.append(issue)
    return text


def decoded(file: Path, content: bytes) -> tuple[str, str]:
    """Return (text, encoding) of a file's bytes."""
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), None)
    if encoding is None and 3 * content[:200].count(0) > len(content[:200]):
        # UTF-16 without a mark: every other byte of plain letters is 0, and none of the rest.
        odd, even = content[1:200:2].count(0), content[:200:2].count(0)
        encoding = "utf-16-le" if not even else "utf-16-be" if not odd else None
    try:
        text = content.decode(encoding or "utf-8")
        encoding = encoding or "utf-8"
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise ValueError(
                f"{file} is not a text file ({error.reason} at byte {error.start})."
            ) from None
        text, encoding = content.decode("cp1252", "replace"), "cp1252"
    if "\0" in text:
        raise ValueError(f"{file} is not a text file: it contains zero bytes.")
    return text, encoding


def read_lines(file: Path, issues: list[Issue] | None = None) -> list[str]:
    """Return the lines of a text, without blanks around them; empty ones stay."""
    return [line.strip() for line in read_text(file, issues).splitlines()]


def read_json(file: Path, issues: list[Issue] | None = None) -> Any:
    """Return what a JSON file holds."""
    try:
        return json.loads(read_text(file, issues))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file} is broken at line {error.lineno}, column {error.colno}: {error.msg}."
        ) from None
    except RecursionError:
        raise ValueError(
            f"{file} is not a valid annotation file: its brackets are nested too deeply."
        ) from None


def label_in(value: Any) -> str:
    """Return a label in JSON as text. Raises ValueError for null, NaN and nothing."""
    label = "" if value is None or value != value else str(value).strip()
    if not label:
        raise ValueError(f"a label is missing: it says {json.dumps(value)}")
    return label


def read_yaml(file: Path, issues: list[Issue] | None = None) -> Any:
    """Return what a YAML file holds, every scalar as the text that is written.

    YAML itself would make False of a class called no, and 8 of one called 010.
    """
    text = read_text(file, issues)
    if max(text.count("["), text.count("{")) > MOST_DEPTH * 100:
        raise ValueError(f"{file} is not a valid data.yaml: it contains thousands of brackets.")
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{file} is broken{where}: {error.problem}.") from None
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise ValueError(f"{file} is not a YAML file: {type(error).__name__}.") from None


def read_xml(file: Path, issues: list[Issue] | None = None) -> ElementTree.Element:
    """Return the root of an XML file; entities and other tricks of XML are refused."""
    content = file.read_bytes()
    try:
        try:
            return defusedxml.ElementTree.fromstring(content)
        except (LookupError, ValueError) as error:
            if isinstance(error, defusedxml.DefusedXmlException | ElementTree.ParseError):
                raise
            raise ValueError(str(error)) from None
        except ElementTree.ParseError as error:
            return reread(file, error, issues)
    except ElementTree.ParseError as error:
        line, column = error.position
        reason = str(error).partition(":")[0]
        raise ValueError(f"broken at line {line}, column {column} ({reason})") from None
    except defusedxml.DefusedXmlException as error:
        kind = type(error).__name__
        raise ValueError(
            f"contains XML features that annotations do not need ({kind}), and may be an attack"
        ) from None


def reread(
    file: Path, error: ElementTree.ParseError, issues: list[Issue] | None
) -> ElementTree.Element:
    """Return the root of an XML file that claims another encoding than it has, or none.

    Raises `error` where that is not what is wrong with it.
    """
    found: list[Issue] = []
    try:
        text = read_text(file, found)
    except ValueError:
        raise error from None
    if text.isascii():
        raise error
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text.lstrip("\ufeff"))
    try:
        root = defusedxml.ElementTree.fromstring(text)
    except ElementTree.ParseError:
        raise error from None
    if issues is not None:
        issues += found
    return root


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a CSV file: by line number, each with as many cells as there are columns."""

    file: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    longer: tuple[int, int] | None = None  # (line, cells) of the first row with more cells

    def even(self) -> "Table":
        """Return the table. Raises ValueError for a row with more cells than columns."""
        if self.longer:
            line, count = self.longer
            raise ValueError(
                f"{self.file}, line {line}: the row has {count} cells, the first line "
                f"{len(self.columns)}. Put a cell that holds a separator in quotes."
            )
        return self


def check_labels(
    table: Table, column: int, issues: list[Issue], advice: str,
    labels_in: Callable[[str], Sequence[str]] = lambda cell: [cell],
) -> None:  # fmt: skip
    """Raise ValueError for labels that are a missing value in words; tell of what may be one."""
    for words in (MISSING, MAYBE_MISSING):
        rows = [
            (line, label) for line, row in table.rows
            for label in labels_in(row[column]) if label.lower() in words
        ]  # fmt: skip
        if not rows:
            continue
        lines = ", ".join(str(line) for line, _ in rows[:3]) + (", ..." if rows[3:] else "")
        what = f"{len(rows)} rows have the label {rows[0][1]!r} (lines {lines})"
        if words is MISSING:
            raise ValueError(
                f"{table.file}: {what}, which is how programs write a missing value. {advice}."
            )
        issues.append(Issue(table.file, f"{what}. If that is no class: {advice}"))


def read_table(file: Path, issues: list[Issue] | None = None) -> Table:
    """Return a table whose cells are separated by commas, semicolons, tabs or bars.

    Rows of nothing but separators are passed over. Raises ValueError for what is no table.
    """
    text = read_text(file, issues)
    first, _, rest = text.partition("\n")
    skipped = 0
    if re.fullmatch(r"sep=.\s*", first):  # a line of Excel's
        text, skipped = rest, 1
    head = next((line for line in text.splitlines() if line.strip(" ,;\t|")), "")
    separator = max(SEPARATORS, key=lambda mark: len(cells(head, mark)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True,
                        strict=True)  # fmt: skip
    found: list[tuple[int, tuple[str, ...]]] = []
    last = 0
    try:
        for row in reader:
            last = reader.line_num
            if any(cell.strip() for cell in row):
                line = reader.line_num + skipped
                found.append((line, tuple(cell.strip() for cell in row)))
    except csv.Error as error:
        raise ValueError(f"{file} is not valid CSV after line {last + skipped}: {error}.") from None
    if not found:
        return Table(file, (), ())
    columns = found[0][1]
    width = len(columns)
    rows = ((line, (*row[:width], *[""] * (width - len(row)))) for line, row in found[1:])
    longer = ((line, len(row)) for line, row in found[1:] if any(row[width:]))
    return Table(file, columns, tuple(rows), next(longer, None))


def columns_of(file: Path) -> tuple[str, ...]:
    """Return the columns that a table's first line names, without reading the rest of it."""
    with file.open("rb") as content:
        head = content.read(1 << 16)
    try:
        text, _ = decoded(file, head)
    except ValueError:
        return ()
    line = next((line for line in text.splitlines() if line.strip(" ,;\t|")), "")
    if re.fullmatch(r"sep=.\s*", line):
        line = text.splitlines()[1] if "\n" in text else ""
    separator = max(SEPARATORS, key=lambda mark: len(cells(line, mark)))
    return tuple(cell.strip() for cell in cells(line, separator))


def cells(line: str, separator: str) -> list[str]:
    """Return the cells of a line; none where it cannot be read."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def decimals(cells: Sequence[str]) -> list[float]:
    """Return the cells of a table as numbers, with a point or a comma; none where one is none."""
    return numbers([re.sub(r"^([+-]?\d+),(\d+)$", r"\1.\2", cell) for cell in cells])


def numbers(values: Any) -> list[float]:
    """Return a list's values as finite numbers; none where one of them is anything else."""
    try:
        found = [float(value) for value in values] if isinstance(values, list | tuple) else []
    except (OverflowError, TypeError, ValueError):
        return []
    return found if all(map(math.isfinite, found)) else []
