"""Conversion to and from tf-keras with tfmot, keras-cv and keras-hub (docs/neighbours.md).

Each needs an extra (`pip install 'kzoo[tfmot]'`), whose packages are imported when used.
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
