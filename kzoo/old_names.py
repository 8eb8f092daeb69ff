"""Names that programs of an earlier version use: they work for one release, with a warning."""

import importlib
import sys
import types
import warnings
from typing import Any


def warn(old: str, new: str) -> None:
    """Warn that `old` is now called `new`, at the line that called the caller."""
    warnings.warn(f"{old} is now called {new}", DeprecationWarning, stacklevel=3)


class MovedModule(types.ModuleType):
    """Stands where a module was and finds its names in another one."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__(old, f"Moved to {new}.")
        self._new = new
        sys.modules[old] = self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(importlib.import_module(self._new), name)
        warn(f"{self.__name__}.{name}", f"{self._new}.{name}")
        return value


def renamed_attribute(old: str, new: str) -> property:
    """Return a property that reads the attribute `new`."""

    def read(self: Any) -> Any:
        warn(f"{type(self).__name__}.{old}", new)
        return getattr(self, new)

    return property(read)
