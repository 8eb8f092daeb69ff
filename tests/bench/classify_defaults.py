"""What finished runs of `kzoo classify` reached, as a table.

    uv run python tests/bench/classify_defaults.py LABEL=RUN...

A LABEL says what settings the run has. The runs:

    kzoo classify CLOTHING/train --test CLOTHING/val --model mobilenet_v3_small --weights FILE
"""

import json
import sys
from pathlib import Path

from record import record


def main() -> None:
    rows = []
    for given in sys.argv[1:]:
        label, _, folder = given.partition("=")
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
    sys.argv[1:] = ["LABEL=RUN..."]  # in the table's column of commands
    record("classify_defaults", rows)


if __name__ == "__main__":
    main()
