"""A run folder: creating it, and checking that a resumed run has the same settings and data.

config.json, labels.txt               settings and class names
checkpoint/                           state from which an interrupted run resumes
model.keras, model.tflite             the float model, the int8 file
history.json, results.json            figures of epochs and of the result
report.html, predictions.csv, .png    the report
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
    """Lock the folder against other runs, and delete unfinished files of an interrupted one.

    Raises ValueError if another process works on it.
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
    """Create the run folder, or check that it has the same run, and return it.

    config: a task's Config.
    splits: the images to train and to validate on; targets: bytes of their annotations.

    Raises ValueError if the folder has something else, if a class name is unusable, and if
    TensorFlow, which writes the file at the end, is missing.
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
    """Return the folder of a run on `data`: `out`, by default runs/NAME of the data."""
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
    """Return a digest of the annotations of a run's images."""
    digest = hashlib.sha256()
    for split in targets:
        for one in split:
            digest.update(len(one).to_bytes(8) + one)
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def check_labels(labels: Sequence[str]) -> None:
    """Raise ValueError if a class name cannot be a line of labels.txt."""
    for label in labels:
        if len(label.splitlines()) != 1 or not label.strip():
            raise ValueError(
                f"The class {label!r} cannot be a line of labels.txt: rename it (a folder or a "
                "name in the annotations) to one line of text."
            )


def check_images(folder: Path, begun: Mapping[str, Any], found: str) -> None:
    """Raise ValueError if the images are not those of the run's config.json."""
    if begun.get("images", begun.get("pictures", found)) != found:
        raise ValueError(
            f"{folder} holds a run on other images: some of {begun['data']} were added, removed or "
            "changed since it was begun. Put them back as they were, or start again with another "
            "--out."
        )


def begin_run(
    folder: Path, config: Any, labels: tuple[str, ...], images: str, annotations: str = ""
) -> None:
    """Write config.json and labels.txt; raise ValueError if the folder has another run.

    images, annotations: their digests.
    """
    lasting = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.metadata["lasting"]
    }
    settings = json.loads(json.dumps(lasting, default=str))
    for name in PATHS:  # the run may be opened from another working directory
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
    """Return the values of options for runs that were begun before these options existed."""
    return {
        field.name: field.metadata["before"]
        for field in dataclasses.fields(config)
        if field.metadata["before"] is not None
    }


def moved(setting: str, begun: Any) -> bool:
    """Return whether the images of a run have been moved since it was begun."""
    return setting in ("data", "test") and isinstance(begun, str) and not Path(begun).exists()


def differs(setting: str, begun: Any, wanted: Any) -> bool:
    """Return whether a setting differs from that of the run; "out" may differ."""
    if setting in PATHS and isinstance(begun, str):
        begun = os.path.abspath(begun)
    return setting != "out" and begun != wanted


def labels_of(file: Path) -> list[str] | None:
    """Return the class names of a model's file; None if there are none.

    From the metadata of a .tflite file, NAME.labels.txt or labels.txt beside it, in this order: a
    labels.txt may belong to another model.
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
    """Return class names, one per line; empty lines at the end are left out.

    Raises ValueError if the file is not UTF-8, or has an empty line before a name.
    """
    try:
        names = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not in UTF-8 ({error.reason}): save it as UTF-8.") from error
    while names and not names[-1].strip():
        names.pop()
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise ValueError(
                f"{file}, line {number} is empty: each line names a class, in the order of the "
                "model's outputs."
            )
    return names
