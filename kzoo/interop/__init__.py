"""Ways to the neighbours and back: tf-keras and tfmot, keras-cv, keras-hub (docs/neighbours.md).

What each needs comes with an extra (`pip install 'kzoo[tfmot]'`) and is imported when it is used.
"""

from kzoo.interop.backbone import Backbone, backbone
from kzoo.interop.boxes import (
    detections_from_keras_cv,
    detections_to_keras_cv,
    from_keras_cv,
    from_keras_hub,
    to_keras_cv,
    to_keras_hub,
)
from kzoo.interop.tf_keras import from_tf_keras, to_tf_keras
from kzoo.interop.tfmot import calibrate, cluster_model, prune_model, quantize_model

__all__ = [
    "Backbone",
    "backbone",
    "calibrate",
    "cluster_model",
    "detections_from_keras_cv",
    "detections_to_keras_cv",
    "from_keras_cv",
    "from_keras_hub",
    "from_tf_keras",
    "prune_model",
    "quantize_model",
    "to_keras_cv",
    "to_keras_hub",
    "to_tf_keras",
]
