"""Packages of npm that hold published nets: fetched by npm, kept in pytest's cache, never here."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest


def npm_package(config: pytest.Config, package: str) -> Path:
    """Return the folder of "@scope/name@1.2.3", or skip the test where it cannot be fetched."""
    folder = Path(config.cache.mkdir("npm")) / package.replace("/", "+")
    if folder.exists():
        return folder / "package"
    if shutil.which("npm") is None:
        pytest.skip(f"npm is not installed, which fetches {package}")
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(exist_ok=True)
    command = ["npm", "pack", "--silent", package]
    done = subprocess.run(command, cwd=part, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{package} cannot be fetched: {done.stderr.strip()[-200:]}")
    file = part / done.stdout.split()[-1]
    with tarfile.open(file) as archive:
        archive.extractall(part, filter="data")
    file.unlink()
    part.rename(folder)
    return folder / "package"
