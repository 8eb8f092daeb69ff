"""Clocks, locales and names: of files, folders and classes, as people and disks have them."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from campaign import runs
from campaign.cases import ANSWER, REFUSED, Budget, Case
from kzoo.recipes.programs.predict_images import predict
from kzoo.recipes.training.run_folder import labels_of

ENVIRONMENTS = {
    "ASCII pipe": {"PYTHONIOENCODING": "ascii"},
    "C without UTF-8": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "TZ": {"TZ": "Pacific/Kiritimati"}, "TZ unknown": {"TZ": "No/Where"},
    "LANG=C": {"LANG": "C", "LC_ALL": "C"},
    "Turkish": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
    "Latin-1 pipe": {"PYTHONIOENCODING": "latin-1"},
    "no HOME": {"HOME": "/nonexistent"}, "narrow": {"COLUMNS": "1"},
}  # fmt: skip
NAMES = {
    "Windows-reserved": ("CON", "aux", "NUL.txt", "COM1", "LPT9", "PRN"),
    "spaces and dots": ("a b", " lead", "trail ", "a..b", "a.", "-x", "--help"),
    "letters": ("İstanbul", "\u0131s\u0131", "straße", "猫", "é", "e\u0301", "😀", "a\u202eb"),
    "long": ("x" * 255, "y" * 254, "ß" * 127),
    "no UTF-8": (os.fsdecode(b"caf\xe9"), os.fsdecode(b"\xff\xfe"), "plain"),
    "signs": ("a,b", 'a"b', "a;b", "a<b>&c", "a%b", "[red]", "$HOME", "a'b", "#1", "*"),
    "line breaks": ("a\nb", "c"),
    "like numbers": ("1", "01", "1.0", "1e3", "nan", "None", "true"),
}  # fmt: skip


def cases(budget: Budget, *, train: bool = True) -> Iterator[Case]:
    """Yield what came of locales and of names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = runs.colours(folder / "k\u0131rm\u0131z\u0131 é 猫")
        for label, environment in list(ENVIRONMENTS.items())[: budget.count]:
            yield Case("locale", label, inspected(data, environment))
        for label, names in list(NAMES.items())[: budget.count]:
            if train:
                yield Case("names of classes", label, trained(folder / label, names))
        yield Case("names of images", "each of them", named_images(folder / "photos"))


def inspected(data: Path, environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "kzoo.recipes.cli", "inspect", str(data)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True)
    if done.returncode == 0 and not done.stderr:
        return ANSWER
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"code {done.returncode}: {last}"[:160]


def trained(folder: Path, names: tuple[str, ...]) -> str:
    """Train on classes of these names; the file, its labels and a prediction have them."""
    data, log = folder / "data", folder / "log"
    runs.colours(data, names, each=4)

    def act() -> None:
        run = folder / "run"
        runs.RECIPES["classify"](data, out=str(run))
        wanted = sorted(name.encode("utf-8", "backslashreplace").decode() for name in names)
        if sorted(labels_of(run / "model.tflite") or ()) != wanted:
            raise KeyError(f"labels {labels_of(run / 'model.tflite')}")
        json.loads((run / "results.json").read_text(encoding="utf-8"))
        (found,) = predict(run, [next(iter(data.rglob("*.png")))])
        str(found).encode("utf-8", "backslashreplace")

    return runs.told(log, runs.ended(runs.started(act, log=log)))


def named_images(folder: Path) -> str:
    """Images of all these names are read by the reader of folders."""
    from kzoo.recipes.data import read_dataset

    count = 0
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for names in NAMES.values():
            for i, name in enumerate(names):
                short = os.fsdecode(os.fsencode(name)[:250])
                try:
                    Image.new("RGB", (16, 16), (count % 256, i, 9)).save(folder / label / "x.png")
                    (folder / label / "x.png").rename(folder / label / f"{short}.png")
                except OSError:
                    continue  # no name that this disk takes
                count += 1
    dataset = read_dataset(folder)
    found = len(dataset.train) + len(dataset.val)
    told = len(dataset.issues)
    hidden = sum(p.name.startswith(".") for p in folder.rglob("*.png"))
    return ANSWER if found + told + hidden >= count else REFUSED * bool(told) or (
        f"{found} of {count} images, {told} issues")  # fmt: skip
