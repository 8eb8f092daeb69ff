"""Packages that import what they offer when it is first asked for."""

import importlib
import importlib.util
import sys
import types
from collections.abc import Collection
from typing import Any


def import_on_demand(package: str, *, functions: Collection[str] = ()) -> None:
    """Let `package` import the names in its file api.py when the first of them is asked for.

    `kzoo --help` must not cost the seconds that Keras takes, and every import of a file of kzoo
    begins with kzoo/__init__.py. `from kzoo import X`, `kzoo.X`, `dir(kzoo)` and `import *` find
    what stands in kzoo/api.py, which type checkers read.

    functions: names in api.py that a file or folder of the package has too. They stay functions:
        `import kzoo.recipes.classify` would otherwise put the module in their place.
    """

    class Package(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__") and name != "__all__":
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            if name not in functions and importlib.util.find_spec(f"{package}.{name}"):
                return importlib.import_module(f"{package}.{name}")
            api = importlib.import_module(f"{package}.api")
            if name != "__all__" and name not in api.__all__:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            value = getattr(api, name)
            super().__setattr__(name, value)
            return value

        def __setattr__(self, name: str, value: Any) -> None:
            if not (name in functions and isinstance(value, types.ModuleType)):
                super().__setattr__(name, value)

        def __dir__(self) -> list[str]:
            api = importlib.import_module(f"{package}.api")
            return sorted({*super().__dir__(), *api.__all__})

    sys.modules[package].__class__ = Package
