"""kzoo: MobileNets for Keras 3, from a folder of images to a verified int8 file."""

from typing import TYPE_CHECKING

from kzoo.lazy import import_on_demand
from kzoo.saved_classes import register_stand_ins

if TYPE_CHECKING:
    from kzoo.api import *  # noqa: F403

__version__ = "0.1.0"  # pyproject.toml reads it here

import_on_demand(__name__)
register_stand_ins()
