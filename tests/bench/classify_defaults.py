"""What finished runs of `kzoo classify` reached, as a table.

    uv run python tests/bench/classify_defaults.py LABEL=RUN... [--name NAME]

A LABEL says what settings the run has. Writes results/NAME.csv. The runs of classify_defaults:

    kzoo classify CLOTHING/train --test CLOTHING/val --model mobilenet_v3_small --weights FILE

Those of classify_teacher, each with the seeds 0, 1 and 2:

    kzoo classify ... --model mobilenet_v2 --weights FILE --qat-epochs 0 --out TEACHER
    kzoo classify ... --model mobilenet_v3_small --weights FILE --teacher TEACHER
"""

import argparse
import json
import sys
from pathlib import Path

from record import record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="LABEL=RUN")
    parser.add_argument("--name", default="classify_defaults")
    given, rows = parser.parse_args(), []
    for run in given.runs:
        label, _, folder = run.partition("=")
        config, found = (
            json.loads((Path(folder) / f"{name}.json").read_text())
            for name in ("config", "results")
        )
        rows.append({
            "settings": label, "run": config["seed"], "epochs": config["epochs"],
            **{f"{split} {kind}": f"{found[split][kind]['accuracy']:.3f}"
               for split in ("val", "test") for kind in ("float", "int8")},
            "int8 weights": found["chosen"], "agreement": f"{found['agreement']:.3f}",
        })  # fmt: skip
    sys.argv[1:] = ["LABEL=RUN...", "--name", given.name]  # in the table's column of commands
    record(given.name, rows)


if __name__ == "__main__":
    main()
