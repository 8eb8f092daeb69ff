"""A backbone for the detectors and segmenters of keras-cv and keras-hub."""

from typing import Any

import keras

from kzoo.backbones.build import pyramid


@keras.saving.register_keras_serializable(package="kzoo")
class Backbone(keras.Model):
    """A functional backbone that keeps its pyramid attributes when it is saved and loaded.

    Other models of the zoo have the two attributes too, but lose them in a file. Loading this class
    needs `import kzoo.interop`.
    """

    @property
    def pyramid_outputs(self) -> dict[str, Any]:
        """{"P1": features (N, H / 2, W / 2, C), ...}, for keras-hub."""
        return pyramid(self)

    @property
    def pyramid_level_inputs(self) -> dict[str, str]:
        """{"P1": name of the layer with these features, ...}, for keras-cv."""
        return {
            level: features._keras_history.operation.name
            for level, features in self.pyramid_outputs.items()
        }


def backbone(model: keras.Model) -> Backbone:
    """Return a backbone of the zoo as a `Backbone`, which detectors can be saved with.

    It shares layers and weights with `model`. Raises ValueError for other models.
    """
    pyramid(model)
    return Backbone(model.input, model.output, name=model.name)
