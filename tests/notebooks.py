"""Writes examples/notebooks/*.ipynb from the scripts beside them.

    uv run python tests/notebooks.py

A cell begins with `# %%`, one of text with `# %% [markdown]`. tests/test_examples.py runs the
notebooks' cells and fails where a notebook is stale.
"""

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
CELL = re.compile(r"^# %%(?P<text> \[markdown\])?\n", re.M)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebook(script: str) -> dict[str, Any]:
    """Return the notebook, as nbformat 4.5 has it, of a script of cells."""
    _, *parts = CELL.split(script)
    cells: list[dict[str, Any]] = []
    for text, source in zip(parts[::2], parts[1::2], strict=True):
        if text:
            source = re.sub(r"^# ?", "", source, flags=re.M)
        lines = source.strip().splitlines(keepends=True)
        cell = {"cell_type": "markdown" if text else "code", "id": f"cell-{len(cells)}"}
        own = {} if text else {"execution_count": None, "outputs": []}
        cells.append(cell | {"metadata": {}, **own, "source": lines})
    return {
        "cells": cells, "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5,
    }  # fmt: skip


def rendered(script: Path) -> str:
    """Return the text of the .ipynb file of a script."""
    return json.dumps(notebook(script.read_text(encoding="utf-8")), indent=1) + "\n"


if __name__ == "__main__":
    for script in sorted(FOLDER.glob("*.py")):
        script.with_suffix(".ipynb").write_text(rendered(script), encoding="utf-8")
