"""Programs: the only room with image files, flags, progress bars and plots."""

from typing import TYPE_CHECKING

from kzoo.lazy import import_on_demand
from kzoo.old_names import MovedModule

if TYPE_CHECKING:
    from kzoo.recipes.api import *  # noqa: F403

import_on_demand(__name__, functions=["classify", "detect", "multilabel", "segment"])

for old in ("annotations", "masks"):
    MovedModule(f"kzoo.recipes.{old}", "kzoo.recipes.data")
