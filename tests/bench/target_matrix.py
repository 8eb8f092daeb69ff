"""Which of kzoo's files suit which target, by the targets' published lists. No device is run.

    python tests/bench/target_matrix.py [--files FOLDER]     # 10 minutes, seconds with files there

Writes tests/bench/results/targets.csv, a row for each file and target, and the table of
docs/targets.md from it. The nets are small and at 64 px (tests/zoo_files.py): their operators are
those of the full size, but for what depends on sizes (RESIZE_BILINEAR on the Edge TPU).
"""

import argparse
import csv
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]
from zoo_files import zoo_files  # noqa: E402

from kzoo.tflite import targets  # noqa: E402

CSV = HERE / "results" / "targets.csv"
PAGE = HERE.parents[1] / "docs" / "targets.md"
BEGIN, END = "<!-- table of tests/bench/target_matrix.py -->\n", "<!-- end of table -->\n"
COLUMNS = ["net", "form", "target", "answer", "operators", "refused", "unknown", "partitions",
           "taken", "sentence", "source_date", "commit", "machine", "seed", "command"]  # fmt: skip
COMMAND = "python tests/bench/target_matrix.py"
TITLES = {"cpu": "CPU", "gpu": "GPU", "gpu-ir": "GPU, new", "qualcomm": "Qualcomm",
          "mediatek": "MediaTek", "tensor": "Tensor", "edgetpu": "Edge TPU", "wasm": "Wasm",
          "webgpu": "WebGPU", "micro": "Micro"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=Path, help="folder of the files, made where missing")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(verdicts(given.files or Path(folder)))
    CSV.parent.mkdir(exist_ok=True)
    with CSV.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, lineterminator="\n").writerows([COLUMNS, *rows])
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}{table()}{END}{after}", encoding="utf-8")


def verdicts(folder: Path) -> Iterator[list]:
    """The rows of the CSV."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True,
        check=True,
    ).stdout.strip()  # fmt: skip
    for net, form, file in zoo_files(folder):
        for found in targets(file):
            yield [
                net, form, found.target.key, found.answer, found.operators, len(found.refused),
                len(found.unknown), found.partitions, found.taken, found.sentence,
                found.target.read, commit, platform.machine(), 0, COMMAND,
            ]  # fmt: skip


def table() -> str:
    """The table of docs/targets.md, from the CSV."""
    with CSV.open(encoding="utf-8", newline="") as rows:
        cells = {
            (row["net"], row["form"], row["target"]): cell(row) for row in csv.DictReader(rows)
        }
    files = dict.fromkeys((net, form) for net, form, _ in cells)
    lines = ["| net | form | " + " | ".join(TITLES.values()) + " |", "| --- " * 12 + "|"]
    for net, form in files:
        row = " | ".join(cells[net, form, key] for key in TITLES)
        lines.append(f"| {net} | {form} | {row} |")
    return "\n".join(lines) + "\n"


def cell(row: dict[str, str]) -> str:
    """yes; how many operators are refused, of how many; no; or a question mark."""
    if row["answer"] == "partly":
        return f"{row['refused']} of {row['operators']}"
    return {"unknown": "?"}.get(row["answer"], row["answer"])


if __name__ == "__main__":
    main()
