"""Folders and URLs in which published weight files are looked for. Imports nothing heavy."""

import os
import pathlib

from kzoo.weights.published import PublishedWeights

MIRROR = "KZOO_WEIGHTS"  # environment variable: a folder or URL that is tried first


def cache_folder() -> pathlib.Path:
    """Return Keras' folder of weights, which keras.applications uses too."""
    home = pathlib.Path(os.environ.get("KERAS_HOME", pathlib.Path.home() / ".keras"))
    return home / "models"


def mirror_url() -> str | None:
    """Return the URL that KZOO_WEIGHTS names, or None."""
    named = os.environ.get(MIRROR, "")
    return named.rstrip("/") if named.startswith(("http://", "https://")) else None


def mirror_folder() -> pathlib.Path | None:
    """Return the folder that KZOO_WEIGHTS names, or None; raise ValueError if it is not one."""
    named = os.environ.get(MIRROR, "")
    if not named or mirror_url():
        return None
    folder = pathlib.Path(named).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"The environment variable {MIRROR} must name a folder or an http(s) URL. Received: "
            f"{named!r}, where there is no folder. Create it, or correct or unset {MIRROR}."
        )
    return folder


def places(row: PublishedWeights, folder: pathlib.Path | None = None) -> list[pathlib.Path]:
    """Return the paths at which a file may be: in KZOO_WEIGHTS, then in `folder` or the cache."""
    folders = [mirror_folder(), folder or cache_folder()]
    return [place / row.file for place in folders if place]
