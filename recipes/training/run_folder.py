"""A run's folder: what was asked for, what came of it, and how either is read again.

config.json, labels.txt               what was asked for
checkpoint/                           what a killed run goes on from
model.keras, model.tflite             the float model, the int8 file
history.json, results.json            epochs and figures
report.html, predictions.csv, .png    the same for people
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kzoo.files import locked, remove_parts, write_json, write_text
from kzoo.recipes import distributed as distribute
from kzoo.recipes.data.images import Source
from kzoo.recipes.data.packed import index_digest, is_packed
from kzoo.tflite.convert.converter import require_tensorflow
from kzoo.tflite.metadata.reading import read_metadata

PATHS = ("data", "test", "teacher")  # settings that are paths
LOCK = ".lock"  # in a run's folder, while a process works on it


@contextlib.contextmanager
def working_on(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder, and clear away what a killed one left unfinished.

    Raises ValueError where another process is at work there.
    """
    if not distribute.first():
        yield
        return
    busy = (
        f"Another process is at work in {folder}: wait until it has ended, or give this run "
        "another --out."
    )
    with locked(folder / LOCK, busy=busy):
        for place in (folder, folder / "checkpoint"):
            remove_parts(place)
        yield


def open_run(
    config: Any, labels: tuple[str, ...], *splits: Sequence[Source],
    targets: Iterable[Iterable[bytes]] = (),
) -> Path:  # fmt: skip
    """Make the run's folder, or find the same run begun there, and return it.

    `config` is a task's Config. `splits` are the images to train and to validate on, `targets` what
    is annotated on them. Raises ValueError where the folder holds anything else, and where the run
    could not end in its file.
    """
    require_tensorflow()
    check_labels(labels)
    folder = run_folder(config.data, config.out)
    if distribute.first():
        images = fingerprint(config.data, splits)
        begin_run(folder, config, labels, images, annotations_digest(targets))
    distribute.together()
    return folder


def run_folder(data: str | Path, out: str | None) -> Path:
    """Return the folder of a run on `data`: `out`, or where it goes without."""
    return Path(out) if out else Path("runs") / Path(data).resolve().stem


def fingerprint(data: str | Path, splits: Sequence[Sequence[Source]]) -> str:
    """Return a digest of a run's images, by name, size and order."""
    if is_packed(Path(data)):
        return index_digest(Path(data))
    digest = hashlib.sha256()
    for split in splits:
        for path in split:
            assert isinstance(path, Path)
            digest.update(os.fsencode(f"{'/'.join(path.parts[-2:])} {path.stat().st_size}\n"))
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def annotations_digest(targets: Iterable[Iterable[bytes]]) -> str:
    """Return a digest of what is annotated on a run's images."""
    digest = hashlib.sha256()
    for split in targets:
        for one in split:
            digest.update(len(one).to_bytes(8) + one)
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def check_labels(labels: Sequence[str]) -> None:
    """Raise ValueError where a class cannot be a line of labels.txt."""
    for label in labels:
        if len(label.splitlines()) != 1 or not label.strip():
            raise ValueError(
                f"The class {label!r} cannot be a line of labels.txt: rename it (a folder or a "
                "name in the annotations) to one line of text."
            )


def check_images(folder: Path, begun: Mapping[str, Any], found: str) -> None:
    """Raise ValueError where the images are not those of the run, if its config tells them."""
    if begun.get("images", begun.get("pictures", found)) != found:
        raise ValueError(
            f"{folder} holds a run on other images: some of {begun['data']} were added, removed or "
            "changed since it was begun. Put them back as they were, or start again with another "
            "--out."
        )


def begin_run(
    folder: Path, config: Any, labels: tuple[str, ...], images: str, annotations: str = ""
) -> None:
    """Write config.json and labels.txt, or raise ValueError where another run is there.

    `images` and `annotations` are digests of these.
    """
    lasting = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.metadata["lasting"]
    }
    settings = json.loads(json.dumps(lasting, default=str))
    for name in PATHS:  # the run may be looked at from elsewhere
        if settings.get(name):
            settings[name] = os.path.abspath(settings[name])
    wanted = {"task": config.task, **settings, "labels": list(labels)}
    file = folder / "config.json"
    if file.exists():
        begun = settings_before(config) | json.loads(file.read_text(encoding="utf-8"))
        keys = [key for key in wanted if differs(key, begun.get(key), wanted[key])]
        keys = [key for key in keys if not moved(key, begun.get(key))]  # the images are checked
        if keys:
            changes = ", ".join(f"{key}={begun.get(key)!r}, not {wanted[key]!r}" for key in keys)
            raise ValueError(
                f"{folder} holds a run with other settings ({changes}). Give the settings of that "
                "run to resume it, or another --out."
            )
        check_images(folder, begun, images)
        if begun.get("annotations", annotations) != annotations:
            raise ValueError(
                f"{folder} holds a run on other annotations: labels, boxes or masks of "
                f"{begun['data']} were changed since it was begun. To train on them as they are "
                "now, start again with another --out; or put them back as they were."
            )
    elif folder.exists() and (
        not folder.is_dir() or any(file.name != LOCK for file in folder.iterdir())
    ):
        raise ValueError(
            f"{folder} exists and is not a kzoo run folder: it has no config.json. Choose "
            "another --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    own = {"damaged": config.damaged, "images": images, "annotations": annotations}
    write_json(file, wanted | own)
    write_text(folder / "labels.txt", "".join(f"{label}\n" for label in labels))


def settings_before(config: Any) -> dict[str, Any]:
    """Return what the options of today were in runs that were begun before there were these."""
    return {
        field.name: field.metadata["before"]
        for field in dataclasses.fields(config)
        if field.metadata["before"] is not None
    }


def moved(setting: str, begun: Any) -> bool:
    """Return whether the images of a run are no longer where they were when it was begun."""
    return setting in ("data", "test") and isinstance(begun, str) and not Path(begun).exists()


def differs(setting: str, begun: Any, wanted: Any) -> bool:
    """Return whether a setting makes it another run; a run may be moved and its data too."""
    if setting in PATHS and isinstance(begun, str):
        begun = os.path.abspath(begun)
    return setting != "out" and begun != wanted


def labels_of(file: Path) -> list[str] | None:
    """Return the names of a model's classes; None where neither it nor its folder has any.

    Those inside a .tflite file come first: a labels.txt beside it may be of another model. Then
    comes NAME.labels.txt, which `kzoo.tflite.convert` writes where labels.txt is another's.
    """
    if file.suffix == ".tflite" and file.is_file():
        metadata = read_metadata(file)
        if metadata and metadata.labels:
            return list(metadata.labels)
    for name in (f"{file.stem}.labels.txt", "labels.txt"):
        listed = file.with_name(name)
        if listed.is_file():
            return read_labels(listed)
    return None


def read_labels(file: Path) -> list[str]:
    """Return the names of classes, one a line. Raises ValueError for a file that is no UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not in UTF-8 ({error.reason}): save it as UTF-8.") from error
