"""Writes what the docs take from elsewhere: tables of figures, the command line, the models.

    uv run python tests/docs_pages.py         rewrites README.md and docs/*.md where they are stale

A table of figures stands between `<!-- table: NAME.csv -->` and `<!-- end -->` and holds the rows
of tests/bench/results/NAME.csv, with `<!-- table: NAME.csv, COLUMN=VALUE -->` those with that value
in the column; `<!-- commands -->`, `<!-- models -->` and `<!-- cards -->` are
filled likewise. The text around them is written by hand. tests/test_pages.py fails where a page is
stale.
"""

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "tests" / "bench" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SOURCES = ("seed", "commit", "machine", "command")  # columns that tell where figures come from
BLOCK = re.compile(
    r"<!-- (table: (?P<name>\w+)\.csv(, (?P<column>\w+)=(?P<value>\w+))?|commands|models|cards) "
    r"-->\n.*?<!-- end -->",
    re.S,
)


def markdown(rows: list[list[str]]) -> str:
    """Return a Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]) + "\n"


def figures(name: str, column: str | None = None, value: str | None = None) -> str:
    """Return a file of results as a table, and below it the commands that made it.

    column, value: only the rows with that value in the column, which is left out.
    """
    with (RESULTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if column is None or row[column] == value]
    columns = [name for name in rows[0] if name not in (*SOURCES, column)]
    head = [name.replace("_", " ") for name in columns]
    table = markdown([head, *([row[name] for name in columns] for row in rows)])
    sources = dict.fromkeys(
        f"`{row['command']}` (commit {row['commit']}, seed {row['seed']}, {row['machine']})"
        for row in rows
    )
    return f"{table}\n{'; '.join(sources)}.\n"


def commands() -> str:
    """Return what `kzoo COMMAND --help` says, of every command."""
    from kzoo.recipes.cli import COMMANDS, parser_of

    os.environ["COLUMNS"] = "96"
    return "\n".join(
        f"## kzoo {name}\n\n```text\n{parser_of(command).format_help().strip()}\n```\n"
        for name, command in COMMANDS.items()
    )


def models() -> str:
    """Return the models with their parameters and multiply-accumulates, from recipes/models.csv."""
    with (ROOT / "recipes" / "models.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = [["model", "parameters", "M MACs"]]
    for row in rows:
        macs = f"{int(row['macs']) / 1e6:,.1f}"
        table.append([f"`{row['model']}`", f"{int(row['parameters']):,}", macs])
    return markdown(table)


def cards() -> str:
    """Return a section for each model: its size, and the published weights that it takes."""
    from kzoo.weights.published import PUBLISHED

    with (ROOT / "recipes" / "models.csv").open(encoding="utf-8", newline="") as file:
        sizes = {row["model"]: row for row in csv.DictReader(file)}
    sections = []
    for model, size in sizes.items():
        figures: dict[tuple[str, ...], list[str]] = {}  # of a name, an alpha and a source, by px
        for row in PUBLISHED:
            if row.model == model and row.top:
                name = (f"`{row.name}`", row.head or row.task, f"{row.alpha:g}")
                place = (row.license, f"[{row.source.split('/')[2]}]({row.source})")
                told = "not stated" if row.metric is None else f"{row.metric:g}"
                figures.setdefault((*name, *place), []).append(f"{told} ({row.resolution} px)")
        head = ["`weights=`", "task", "alpha", "published, %", "license", "source"]
        rows = [[*key[:3], ", ".join(told), *key[3:]] for key, told in figures.items()]
        macs = f"{int(size['macs']) / 1e6:,.1f} M multiply-accumulates"
        sections.append(
            f"### {model}\n\n{int(size['parameters']):,} parameters, {macs} at 224 px."
            f"\n\n{markdown([head, *rows]) if rows else NO_WEIGHTS}"
        )
    return "\n".join(sections)


NO_WEIGHTS = "No published weights are known by name; `weights=` takes a file.\n"
FILLED: dict[str, Callable[[], str]] = {"commands": commands, "models": models, "cards": cards}


def rendered(text: str) -> str:
    """Return a page with its blocks filled anew."""

    def fill(block: re.Match[str]) -> str:
        where = block["name"], block["column"], block["value"]
        inside = figures(*where) if block["name"] else FILLED[block[1]]()
        return f"<!-- {block[1]} -->\n\n{inside}\n<!-- end -->"

    return BLOCK.sub(fill, text)


def main() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if rendered(text) != text:
            page.write_text(rendered(text), encoding="utf-8")
            print(f"{page.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
