"""Export: .tflite files made, read, run, compared and timed."""

from typing import TYPE_CHECKING

from kzoo.lazy import import_on_demand

if TYPE_CHECKING:
    from kzoo.tflite.api import *  # noqa: F403

import_on_demand(__name__, functions=["convert"])
