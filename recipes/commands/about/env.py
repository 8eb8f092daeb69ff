"""`kzoo env`: versions and hardware, for bug reports."""

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Mapping

import kzoo
from kzoo.recipes.options import Command, JsonOptions

PACKAGES = (
    "keras", "tensorflow", "jax", "torch", "ai-edge-litert", "numpy", "pillow", "array_record",
    "tensorflow-model-optimization", "keras-cv", "keras-hub",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Environment:
    """The machine, and the versions of what kzoo works with."""

    kzoo: str
    python: str
    machine: str
    cores: int  # that this process may use
    backend: str  # of Keras
    packages: Mapping[str, str | None]  # None: not installed

    def __str__(self) -> str:
        rows = [
            ("kzoo", self.kzoo), ("Python", self.python), ("machine", self.machine),
            ("cores", str(self.cores)), ("backend", self.backend),
            *((name, version or "not installed") for name, version in self.packages.items()),
        ]  # fmt: skip
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def environment() -> Environment:
    """Return the environment of this process. Imports Keras, to ask for its backend."""
    import keras

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Environment(
        kzoo.__version__,
        platform.python_version(),
        f"{platform.system()} {platform.machine()}",
        cores or 1,
        keras.backend.backend(),
        {name: version_of(name) for name in PACKAGES},
    )


def version_of(package: str) -> str | None:
    """Return the version of an installed package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def run(options: JsonOptions) -> Environment:
    return environment()


COMMAND = Command(
    "env",
    "print versions, backend and machine, for bug reports",
    JsonOptions,
    run,
    "kzoo env --json",
)
