"""Ways to the neighbours and back: tf-keras and tfmot, keras-cv, keras-hub (docs/neighbours.md).

What each needs comes with an extra (`pip install 'kzoo[tfmot]'`) and is imported when it is used.
"""

from kzoo.interop.tf_keras import from_tf_keras, to_tf_keras
from kzoo.interop.tfmot import calibrate, cluster_model, prune_model, quantize_model

__all__ = [
    "calibrate",
    "cluster_model",
    "from_tf_keras",
    "prune_model",
    "quantize_model",
    "to_tf_keras",
]
