"""Multi-label on real photos: the class of a garment, and what colour the photo's middle has.

    uv run python tests/bench/multilabel_clothing.py CLOTHING WEIGHTS [--seeds 0 1 2] [--epochs 4]

CLOTHING has train/ and val/ with a folder of photos for each of ten classes. The class is the data
set's own label. The colour labels are computed, not labelled by hand: of the middle half of each
photo, in HSV, the mean value says dark (under .35) or bright (over .7), the mean saturation pale
(under .18), and the hue of its saturated pixels red, blue or green where they are a third of it or
more. Photos of val/ are validated or tested on in turn. Writes
tests/bench/results/multilabel_clothing.csv: test figures of the float model and the int8 file.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image
from record import record

from kzoo.recipes import multilabel

COLOURS = ("dark", "bright", "pale", "red", "green", "blue")


def colours(path: Path) -> list[str]:
    """Return the colour labels of a photo."""
    with Image.open(path) as photo:
        small = photo.convert("HSV").resize((64, 64))
    hue, saturation, value = np.asarray(small, float)[16:48, 16:48].reshape(-1, 3).T / 255
    vivid = (saturation > 0.3) & (value > 0.2)
    near = {
        "red": (hue < 0.05) | (hue > 0.93),
        "green": (hue > 0.2) & (hue < 0.45),
        "blue": (hue > 0.52) & (hue < 0.72),
    }
    found = [name for name, wanted in near.items() if (wanted & vivid).mean() > 1 / 3]
    found += ["dark"] if value.mean() < 0.35 else ["bright"] if value.mean() > 0.7 else []
    return found + (["pale"] if saturation.mean() < 0.18 else [])


def write_table(clothing: Path, file: Path) -> Path:
    """Write the labels of all photos."""
    with file.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["file", "labels", "split"])
        for split in ("train", "val"):
            for i, path in enumerate(sorted((clothing / split).glob("*/*.jpg"))):
                labels = ";".join([path.parent.name, *colours(path)])
                part = "train" if split == "train" else ("val", "test")[i % 2]
                table.writerow([path, labels, part])
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clothing", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--losses", nargs="+", default=["bce", "asymmetric"])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("runs/multilabel_clothing"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table = write_table(given.clothing.resolve(), given.out / "labels.csv")
    rows = []
    for loss in given.losses:
        found = []
        for seed in given.seeds:
            results = multilabel(
                table, model="mobilenet_v3_small", weights=str(given.weights), size=given.size,
                epochs=given.epochs, qat_epochs=2, loss=loss, seed=seed, quiet=True,
                out=str(given.out / f"{loss}-{seed}"),
            )  # fmt: skip
            found.append(results)
        for kind in ("float", "int8"):
            row = {"loss": loss, "model": kind, "labels": len(results.thresholds)}
            for name in ("map", "micro_f1", "macro_f1"):
                values = [one.test[kind][name] for one in found]
                spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
                row[name] = f"{np.mean(values):.3f}{spread}"
            for name, part in (("class_map", slice(None)), ("colour_map", COLOURS)):
                values = []
                for one in found:
                    by_label = one.test[kind]["by_label"]
                    own = [k for k in by_label if (k in COLOURS) == (part == COLOURS)]
                    values.append(np.mean([by_label[k]["average_precision"] for k in own]))
                row[name] = f"{np.mean(values):.3f}"
            row["agreement"] = f"{np.mean([one.agreement for one in found]):.3f}"
            row["seeds"] = len(given.seeds)
            rows.append(row)
            record("multilabel_clothing", rows, seed=given.seeds[0])


if __name__ == "__main__":
    main()
