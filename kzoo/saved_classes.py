"""The classes of kzoo that .keras files name, known to Keras before they are imported.

Keras looks such a class up in a table that its decorator fills when the file of the class is
imported. `import kzoo` imports none of them (see lazy.py), so it enters stand-ins, each of which
imports its class when a file asks for it: at once where Keras is imported already, else as soon
as it is.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any

CLASSES = {
    "Adam": "kzoo.recipes.training.optimizer",
    "Backbone": "kzoo.interop.backbone",
    "CoTuned": "kzoo.recipes.training.transfer",
    "Detector": "kzoo.detection.detector",
    "Distilled": "kzoo.quantization.distill",
    "FakeQuant": "kzoo.quantization.layers",
    "Gate": "kzoo.quantization.layers",
    "LabelLoss": "kzoo.recipes.multilabel",
    "MeanIoU": "kzoo.segmentation.losses",
    "NormedConv2D": "kzoo.recipes.training.frozen_norms",
    "NormedDepthwiseConv2D": "kzoo.recipes.training.frozen_norms",
    "PixelAccuracy": "kzoo.segmentation.losses",
    "QuantConv2D": "kzoo.quantization.layers",
    "QuantConv2DTranspose": "kzoo.quantization.layers",
    "QuantDense": "kzoo.quantization.layers",
    "QuantDepthwiseConv2D": "kzoo.quantization.layers",
    "SegmentationLoss": "kzoo.segmentation.losses",
}


class StandIn:
    """What Keras finds under the name of a class; its decorator puts the class in its place."""

    def __init__(self, name: str):
        self.name = name

    def from_config(self, config: dict[str, Any], **options: Any) -> Any:
        """Return an object of the class."""
        kind = getattr(importlib.import_module(CLASSES[self.name]), self.name)
        return kind.from_config(config, **options)


def enter(keras: types.ModuleType) -> None:
    """Enter a stand-in for each class that is not imported yet."""
    known = keras.saving.get_custom_objects()
    for name in CLASSES:
        known.setdefault(f"kzoo>{name}", StandIn(name))


class AfterKeras(importlib.abc.MetaPathFinder):
    """Finds Keras as the other finders do, and calls `enter` when it has been imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "keras":
            return None
        finders = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(name, path, target) for finder in finders)
        spec = next((spec for spec in found if spec), None)
        if spec and spec.loader:
            load = spec.loader.exec_module

            def load_and_enter(module: types.ModuleType) -> None:
                load(module)
                enter(module)

            spec.loader.exec_module = load_and_enter  # type: ignore[method-assign]
        return spec


def register_stand_ins() -> None:
    """Make Keras know the classes, now or when it is imported."""
    if "keras" in sys.modules:
        enter(sys.modules["keras"])
    else:
        sys.meta_path.insert(0, AfterKeras())
