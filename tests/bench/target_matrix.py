"""Which of kzoo's files suit which target, by the targets' published lists. No device is run.

    python tests/bench/target_matrix.py [--files FOLDER]     # 10 minutes, seconds with files there
    python tests/bench/target_matrix.py --others FILE ...    # seconds

Writes tests/bench/results/targets.csv, a row for each file and target, and the table of
docs/targets.md from it. The nets are small and at 64 px (tests/zoo_files.py): their operators are
those of the full size, but for what depends on sizes (RESIZE_BILINEAR on the Edge TPU).

With `--others` the files are other people's, and the table is targets_others.csv's. Its column
"interpreter" is what LiteRT with XNNPACK does on this machine: "as predicted", or which operators
differ.
"""

import argparse
import csv
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]
from zoo_files import zoo_files  # noqa: E402

from kzoo.tflite import targets  # noqa: E402
from kzoo.tflite.inspect.targets.verdicts import Verdict  # noqa: E402
from kzoo.tflite.runtime.trial import trial  # noqa: E402

CSV = HERE / "results" / "targets.csv"
OTHERS = HERE / "results" / "targets_others.csv"
PAGE = HERE.parents[1] / "docs" / "targets.md"
END = "<!-- end of table -->\n"
COLUMNS = ["net", "form", "target", "answer", "operators", "refused", "unknown", "partitions",
           "taken", "sentence", "source_date", "interpreter", "commit", "machine", "seed",
           "command"]  # fmt: skip
COMMAND = "python tests/bench/target_matrix.py"
TITLES = {"cpu": "CPU", "gpu": "GPU", "gpu-ir": "GPU, new", "qualcomm": "Qualcomm",
          "mediatek": "MediaTek", "tensor": "Tensor", "edgetpu": "Edge TPU", "wasm": "Wasm",
          "webgpu": "WebGPU", "micro": "Micro"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=Path, help="folder of the files, made where missing")
    parser.add_argument("--others", type=Path, nargs="+", help="files of others, in their place")
    given = parser.parse_args()
    out = OTHERS if given.others else CSV
    with tempfile.TemporaryDirectory() as folder:
        files = [(file.stem, "", file) for file in given.others or ()] or zoo_files(
            given.files or Path(folder)
        )
        rows = list(verdicts(files, " --others FILE ..." if given.others else ""))
    out.parent.mkdir(exist_ok=True)
    with out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin(out))
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{begin(out)}{table(out)}{END}{after}", encoding="utf-8")


def begin(source: Path) -> str:
    return f"<!-- table of tests/bench/target_matrix.py: {source.name} -->\n"


def verdicts(files: Iterable[tuple[str, str, Path]], options: str) -> Iterator[list]:
    """The rows of the CSV."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True,
        check=True,
    ).stdout.strip()  # fmt: skip
    for net, form, file in files:
        for found in targets(file):
            ran = interpreted(file, found) if found.target.key == "cpu" and options else ""
            yield [
                net, form, found.target.key, found.answer, found.operators, len(found.refused),
                len(found.unknown), found.partitions, found.taken, found.sentence,
                found.target.read, ran, commit, platform.machine(), 0, COMMAND + options,
            ]  # fmt: skip


def interpreted(file: Path, found: Verdict) -> str:
    """What the interpreter with XNNPACK leaves out, against what the list says that it does."""
    try:
        outside = set(trial(file).outside)
    except ValueError as error:
        return f"does not open: {str(error).rpartition(': ')[2]}"
    differ = outside ^ {finding.index for finding in found.refused}
    return f"differs: {sorted(differ)}" if differ else "as predicted"


def table(source: Path = CSV) -> str:
    """A table of docs/targets.md, from its CSV."""
    with source.open(encoding="utf-8", newline="") as rows:
        cells = {
            (row["net"], row["form"], row["target"]): cell(row) for row in csv.DictReader(rows)
        }
    files = dict.fromkeys((net, form) for net, form, _ in cells)
    first = ["net", "form"] if any(form for _, form in files) else ["file"]
    lines = ["| " + " | ".join([*first, *TITLES.values()]) + " |"]
    lines.append("| --- " * (len(first) + len(TITLES)) + "|")
    for net, form in files:
        row = " | ".join(cells[net, form, key] for key in TITLES)
        lines.append(f"| {' | '.join([net, form][: len(first)])} | {row} |")
    return "\n".join(lines) + "\n"


def cell(row: dict[str, str]) -> str:
    """yes; how many operators are refused, of how many; no; or a question mark."""
    if row["answer"] == "partly":
        return f"{row['refused']} of {row['operators']}"
    return {"unknown": "?"}.get(row["answer"], row["answer"])


if __name__ == "__main__":
    main()
