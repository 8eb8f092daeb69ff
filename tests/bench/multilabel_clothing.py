"""Multi-label on real photos of clothes, with the defaults and with those of `kzoo classify`.

    uv run python tests/bench/multilabel_clothing.py CLOTHING WEIGHTS [--labels classes attributes]
        [--settings default classify] [--losses bce asymmetric] [--seeds 0 1 2] [--size 128]

CLOTHING has train/ and val/ with a folder of photos for each of ten classes. "classes" are those
and six colours, computed of the middle half of each photo, in HSV: the mean value says dark (under
.35) or bright (over .7), the mean saturation pale (under .18), and the hue of its saturated pixels
red, blue or green where they are a third of it or more. "attributes" were labelled by hand for 400
photos (clothing_attributes.csv): whether the garment has a pattern, and whether somebody wears it.
Photos of val/ are tested on (of "classes" every other one is validated on). Writes
multilabel_clothing.csv: figures of the float model and the int8 file, the mean over the seeds.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import record

from kzoo.recipes import multilabel

ATTRIBUTES = Path(__file__).with_name("clothing_attributes.csv")
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "classify": {
        "normalize_kernels": True, "train_scale": 0.86, "learning_rate": 1e-3, "epochs": 16,
    },
}  # fmt: skip
MEASURES = ("map", "micro_f1", "macro_f1")
Row = tuple[Path | str, str, str]  # file, labels, split


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


def classes(clothing: Path) -> list[Row]:
    """Return class and colours of every photo."""
    rows: list[Row] = []
    for split in ("train", "val"):
        for i, path in enumerate(sorted((clothing / split).glob("*/*.jpg"))):
            part = "train" if split == "train" else ("val", "test")[i % 2]
            rows.append((path, ";".join([path.parent.name, *colours(path)]), part))
    return rows


def attributes(clothing: Path) -> list[Row]:
    """Return the labels given by hand."""
    with ATTRIBUTES.open(newline="") as file:
        return [
            (clothing / row["file"], row["labels"], row["split"]) for row in csv.DictReader(file)
        ]


LABELS: dict[str, Callable[[Path], list[Row]]] = {"classes": classes, "attributes": attributes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clothing", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--labels", nargs="+", choices=list(LABELS), default=list(LABELS))
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--losses", nargs="+", default=["bce"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("runs/multilabel_clothing"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for labels in given.labels:
        table = given.out / f"{labels}.csv"
        with table.open("w", newline="") as out:
            written = csv.writer(out)
            written.writerow(["file", "labels", "split"])
            written.writerows(LABELS[labels](given.clothing.resolve()))
        for settings, loss in ((one, two) for one in given.settings for two in given.losses):
            found = [
                multilabel(
                    table, model="mobilenet_v3_small", weights=str(given.weights), loss=loss,
                    size=given.size, seed=seed, quiet=True, **SETTINGS[settings],
                    out=str(given.out / f"{labels}-{settings}-{loss}-{seed}"),
                )
                for seed in given.seeds
            ]  # fmt: skip
            for kind in ("float", "int8"):
                row = {"labels": labels, "settings": settings, "loss": loss, "model": kind}
                for split in ("val", "test"):
                    for name in MEASURES[: None if split == "test" else 1]:
                        values = [getattr(one, split)[kind][name] for one in found]
                        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
                        row[f"{split} {name}"] = f"{np.mean(values):.3f}{spread}"
                row["agreement"] = f"{np.mean([one.agreement for one in found]):.3f}"
                rows.append(row | {"seeds": len(given.seeds)})
            record("multilabel_clothing", rows, seed=given.seeds[0])


if __name__ == "__main__":
    main()
