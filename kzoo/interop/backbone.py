"""A backbone for the detectors and segmenters of keras-cv and keras-hub."""

from typing import Any

import keras

from kzoo.backbones.build import pyramid


@keras.saving.register_keras_serializable(package="kzoo")
class Backbone(keras.Model):
    """A functional backbone that still knows its pyramid when it comes out of a file.

    Nets of the zoo have the two attributes as well, and plain Keras loads their files, in which
    attributes are not kept. Loading this one takes `import kzoo.interop`.
    """

    @property
    def pyramid_outputs(self) -> dict[str, Any]:
        """{"P1": features (N, H / 2, W / 2, C), ...}, as keras-hub wants it."""
        return pyramid(self)

    @property
    def pyramid_level_inputs(self) -> dict[str, str]:
        """{"P1": the name of the layer that gives them, ...}, as keras-cv wants it."""
        return {
            level: features._keras_history.operation.name
            for level, features in self.pyramid_outputs.items()
        }


def backbone(model: keras.Model) -> Backbone:
    """`model`, a backbone of the zoo, as one that detectors and segmenters can save with them.

    It has the same layers and weights. Raises ValueError for what has no rows.
    """
    pyramid(model)
    return Backbone(model.input, model.output, name=model.name)
