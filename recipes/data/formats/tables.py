"""CSV files: of boxes, as many programs write them, and of classes.

Columns are known by their names, in any of the usual spellings. Boxes are corners or a corner with
width and height, in px or, where none of them is beyond 1, in shares of the image's sides.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from kzoo.recipes.data.formats.records import Box, Found, Object, Record
from kzoo.recipes.data.formats.unread import export_advice, program_of
from kzoo.recipes.data.images import SUFFIXES
from kzoo.recipes.data.layout import SPLITS, Tree, folded, split_of, words_of
from kzoo.recipes.data.text import Issue, Table, check_labels, columns_of, decimals, read_table

COLUMNS = {
    "file": (
        "file", "filename", "file_name", "image", "image_path", "img_path", "path", "filepath",
        "file_path", "image_name", "img_name", "image_file", "img", "imageid", "image_id", "name",
        "id",
    ),
    "label": (
        "label", "class", "class_name", "classname", "labelname", "label_name", "category",
        "category_name", "target", "species", "breed", "object", "name", "class_id", "label_id",
        "choice",
    ),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "y": ("y", "bbox_y", "box_y", "ymin", "y_min", "top"),
    "x": ("x", "bbox_x", "box_x", "xmin", "x_min", "left"),
    "h": ("h", "bbox_height", "box_height", "bbox_h", "box_h"),
    "w": ("w", "bbox_width", "box_width", "bbox_w", "box_w"),
    "box": ("bbox", "box", "bounding_box"),
    "split": ("split", "set", "subset", "dataset", "partition", "data set", "data_set"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
    "crowd": ("isgroupof",),
}  # fmt: skip
NEEDED = ("file", "label", "ymin", "xmin", "ymax", "xmax")
SIDES = ("file", "label", "y", "x", "h", "w")
LISTED = ("file", "label", "box")
SEVERAL = '{"choices":'  # begins a cell of several labels of Label Studio's
NO_OBJECT = "name its class, or leave label and box empty where there is no object"
SPLIT_FLAG = re.compile(r"is[_ ]?(train|val|valid|validation|test)(ing)?", re.I).fullmatch
SUFFIXES_OF_TABLES = (".csv", ".tsv")


def columns_by_use(columns: Sequence[str]) -> dict[str, int]:
    """Return {what: the column's number}; no column is two things."""
    names: dict[str, int] = {}
    for number, name in enumerate(columns):
        names.setdefault(name.lower(), number)
    found: dict[str, int] = {}
    for what, spellings in COLUMNS.items():
        taken = {found[k] for k in ("file", "label") if k in found}
        for name in spellings:
            if name in names and names[name] not in taken:
                found[what] = names[name]
                break
    return found


def tables_of(
    tree: Tree, issues: list[Issue] | None = None
) -> Iterator[tuple[Table, dict[str, Any]]]:
    """Yield every table with its columns; those that are no tables are passed over."""
    for file in tree.of(*SUFFIXES_OF_TABLES):
        try:
            table = read_table(file, issues)
        except ValueError:
            if tree.only or issues is not None:
                raise
            continue
        yield table, with_split(table, columns_by_use(table.columns), issues)


def with_split(table: Table, columns: dict[str, int], issues: list[Issue] | None) -> dict[str, int]:
    """Return the columns, one that holds nothing but names of splits being that of splits."""
    headless = bool(table.columns) and suffix_of(table.columns[0]) in SUFFIXES
    if "split" in columns or len(table.columns) < 3 or headless:
        return columns
    taken = {columns[what] for what in ("file", "label") if what in columns}
    found = [i for i in range(len(table.columns)) if i not in taken and of_splits(table, i)]
    if len(found) != 1:
        return columns
    if issues is not None:
        name = table.columns[found[0]]
        issues.append(Issue(table.file, f"the column {name!r} is read as the split"))
    return {**columns, "split": found[0]}


def of_splits(table: Table, column: int) -> bool:
    """Whether a column names train, val or test in every row, and two of them at least."""
    words = {row[column] for _, row in table.rows}
    splits = {SPLITS.get(folded(word)) or split_of(word) for word in words}
    return len(splits) > 1 and None not in splits


def may_count(name: str) -> bool:
    """Whether a column's name says that it holds labels or splits."""
    return name.lower() in COLUMNS["label"] or bool({*words_of(name)} & {*SPLITS, "usage"})


def tell_unused(table: Table, used: Iterable[int | None], issues: list[Issue]) -> None:
    """Add an issue with the columns that are not read."""
    places = set(used)
    unused = [name for i, name in enumerate(table.columns) if i not in places and name]
    if unused:
        flag = next(filter(SPLIT_FLAG, unused), None)
        advice = f". For a split, say train, val or test in a column called split, not {flag}"
        reason = f"columns that are not used: {', '.join(unused)}{advice if flag else ''}"
        issues.append(Issue(table.file, reason))


def kind_of(columns: Mapping[str, int]) -> tuple[str, ...] | None:
    """Return the columns that boxes are read from, or None."""
    return next((k for k in (NEEDED, LISTED, SIDES) if set(k) <= set(columns)), None)


def has_boxes(tree: Tree) -> bool:
    files = tree.of(*SUFFIXES_OF_TABLES)
    return any(kind_of(columns_by_use(columns_of(file))) for file in files)


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a table of boxes."""

    item: Object | None
    split: str | None
    size: tuple[float, float] | None  # (H, W)


def read_boxes(tree: Tree, issues: list[Issue]) -> Found:
    """Return the images of all tables of boxes; an image without a box has no objects."""
    names = class_names(tree)
    rows: dict[tuple[Path, str], list[Line]] = {}
    for table, columns in tables_of(tree, issues):
        kind = kind_of(columns)
        if kind is None:
            if tree.only:
                missing = ", ".join(what for what in NEEDED if what not in columns)
                raise ValueError(
                    f"{table.file}: the first line must name the columns {', '.join(NEEDED)}; "
                    f"missing: {missing}."
                )
            continue
        known = {columns.get(what) for what in (*kind, "split")}
        plain = {i for i, name in enumerate(table.columns) if not may_count(name)}
        tell_unused(table, known | plain, issues)
        check_labels(table, columns["label"], issues, NO_OBJECT)
        for number, cells in table.even().rows:
            values = {what: cells[column] for what, column in columns.items()}
            values["label"] = names.get(values["label"], values["label"])
            line = line_of(values, kind, f"{table.file}, line {number}")
            rows.setdefault((table.file, values["file"]), []).append(line)
    every = [line.item.box for own in rows.values() for line in own if line.item and line.item.box]
    shares = bool(every) and max(map(max, every)) <= 1.001
    records = []
    for (file, name), own in rows.items():
        objects = tuple(line.item for line in own if line.item)
        size = (1.0, 1.0) if shares else own[0].size
        given = {line.split for line in own} - {None}
        split = next((s for s in ("test", "val", "train") if s in given), None)
        records.append(Record(file, name, objects, size, split))
    labels = {item.label for r in records for item in r.objects if item.label}
    return tuple(sorted(labels)), records


def class_names(tree: Tree) -> dict[str, str]:
    """Return the names of Open Images' codes, where a table of codes (/m/01g317) is there."""
    found: dict[str, str] = {}
    for file in tree.by_suffix.get(".csv", ()):
        if "class-descriptions" in file.name:
            table = read_table(file)
            rows = [table.columns, *(cells for _, cells in table.rows)]
            found |= {row[0]: row[1] for row in rows if len(row) > 1}
    return found


def line_of(values: dict[str, str], kind: tuple[str, ...], where: str) -> Line:
    """Return what a line says. Raises ValueError where it is broken."""
    item = size = None
    box = box_of(values, kind, where)
    if box:
        crowd = values.get("crowd", "").lower() in ("1", "true")
        item = Object(values["label"], box, crowd=crowd, of_sides=kind != NEEDED)
    given = [values.get(key, "") for key in ("height", "width")]
    if all(given):
        if not (sides := decimals(given)):
            raise ValueError(f"{where}: height and width are numbers, not {given}")
        size = (sides[0], sides[1]) if all(sides) else None
    return Line(item, split_named(values.get("split", ""), where), size)


def box_of(values: dict[str, str], kind: tuple[str, ...], where: str) -> Box | None:
    if kind == LISTED:
        cells = values["box"].strip("[]() ").replace(",", " ").split()
    else:
        cells = [values[key] for key in kind[2:]]
    if not any(cells):
        return None
    found = decimals(cells)
    if len(found) != 4:
        raise ValueError(f"{where}: a box is four numbers, not {cells}")
    a, b, c, d = found
    if kind == NEEDED:
        return a, b, c, d
    x, y, w, h = (a, b, c, d) if kind == LISTED else (b, a, d, c)
    return y, x, y + h, x + w


# Classes


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table of classes."""

    source: Path
    image: str
    label: str
    split: str | None


def has_classes(tree: Tree) -> bool:
    return any(class_columns(table, columns) for table, columns in tables_of(tree))


def class_columns(table: Table, columns: dict[str, int]) -> dict[str, int]:
    """Return the numbers of the columns file, label and split; {} where it is no such table.

    A table of two columns needs no names for them where one is of images' names.
    """
    if kind_of(columns):
        return {}
    if {"file", "label"} <= set(columns):
        return columns
    split = columns.get("split")
    others = [i for i in range(len(table.columns)) if i != split]
    files = [i for i in others if of_images(table, i)]
    if len(others) == 2 and len(files) == 1:
        (label,) = set(others) - set(files)
        return {"file": files[0], "label": label, **({} if split is None else {"split": split})}
    return {}


def of_images(table: Table, column: int) -> bool:
    """Whether a column holds names of images."""
    cells = [row[column] for _, row in table.rows]
    return bool(cells) and all(suffix_of(cell) in SUFFIXES for cell in cells if cell)


def suffix_of(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).suffix.lower()


def class_rows(tree: Tree, issues: list[Issue]) -> list[Row]:
    """Return the rows of all tables of classes. Raises ValueError for one that is none."""
    rows: list[Row] = []
    for table, named in tables_of_labels(tree, issues):
        columns = class_columns(table, named)
        if columns:
            check_labels(table, columns["label"], issues, "name its class or remove the row")
            rows += rows_of(table, columns)
            tell_unused(table, map(columns.get, ("file", "label", "split")), issues)
        elif hot := one_hot(table, named):
            rows += hot_rows(table, named, hot, issues)
        elif tree.only:
            raise ValueError(
                f"{table.file}: the first line must name the columns file,label and optionally "
                f"split. It says: {','.join(table.columns)[:80]!r}"
            )
        else:
            issues.append(Issue(table.file, "has no columns of files and labels: left out"))
    return rows


def tables_of_labels(tree: Tree, issues: list[Issue]) -> Iterator[tuple[Table, dict[str, int]]]:
    """Yield the tables with their columns, without exports that hold a program's own objects.

    Raises ValueError where one of these is what was asked for.
    """
    for table, named in tables_of(tree, issues):
        program = program_of(table.file)
        if program and tree.only:
            raise ValueError(export_advice(table.file, program))
        if program:
            issues.append(Issue(table.file, f"is an export of {program}, not read: left out"))
            continue
        yield with_header(table, named)


def with_header(table: Table, columns: dict[str, int]) -> tuple[Table, dict[str, int]]:
    """Return a table of two or three columns whose first line is no header with one."""
    names = ("file", "label", "split")[: len(table.columns)]
    if len(table.columns) in (2, 3) and suffix_of(table.columns[0]) in SUFFIXES:
        rows = ((1, table.columns), *table.rows)
        return Table(table.file, names, rows), {name: i for i, name in enumerate(names)}
    return table, columns


def rows_of(table: Table, columns: dict[str, int]) -> Iterator[Row]:
    by_name = split_of(table.file.stem)
    for number, cells in table.even().rows:
        where = f"{table.file}, line {number}"
        name, label = cells[columns["file"]], cells[columns["label"]]
        if not label or not name or label.startswith(SEVERAL):
            row = dict(zip(table.columns, cells, strict=True))
            raise ValueError(
                f"{where}: a row needs a file and a label. It says: {row}. For images with no "
                "label or several take kzoo multilabel."
            )
        yield Row(table.file, name, label, given_split(cells, columns, where) or by_name)


def given_split(cells: Sequence[str], columns: Mapping[str, int], where: str) -> str | None:
    """Return the split that a row gives; None without. Raises ValueError for another word."""
    return split_named(cells[columns["split"]] if "split" in columns else "", where)


def split_named(word: str, where: str) -> str | None:
    """Return the split that a cell names; None of an empty one. Raises ValueError for others."""
    split = SPLITS.get(folded(word)) or split_of(word)
    if word and not split:
        raise ValueError(f"{where}: split must be train, val or test. It says: {word!r}")
    return split


def one_hot(table: Table, columns: dict[str, int]) -> list[int]:
    """Return the columns that say by 1 and 0 which class an image is of, as Roboflow's do."""
    if "file" not in columns or not table.rows:
        return []
    others = [
        i for i, name in enumerate(table.columns)
        if name and i not in (columns["file"], columns.get("split")) and not SPLIT_FLAG(name)
    ]  # fmt: skip
    cells = {row[i] for _, row in table.rows for i in others}
    return others if len(others) > 1 and cells <= {"0", "1", "0.0", "1.0"} else []


def hot_rows(
    table: Table, columns: dict[str, int], hot: list[int], issues: list[Issue]
) -> Iterator[Row]:
    counts: Counter[int] = Counter()
    require_one_name([table.columns[i] for i in hot], table.file)
    tell_unused(table, (columns["file"], columns.get("split"), *hot), issues)
    by_name = split_of(table.file.stem) or split_of(table.file.parent.name)
    for number, cells in table.even().rows:
        own = [table.columns[i] for i in hot if float(cells[i])]
        counts[len(own)] += len(own) != 1
        if len(own) == 1:
            split = given_split(cells, columns, f"{table.file}, line {number}") or by_name
            yield Row(table.file, cells[columns["file"]], own[0], split)
    if left := counts.total():
        issues.append(Issue(table.file, f"{left} images of no class or of several: left out"))


def require_one_name(names: Sequence[str], file: Path) -> None:
    """Raise ValueError where columns of 0 and 1 have one name."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{file} has several columns called {twice!r}: rename or drop one.")
