"""keras-cv's BoxCOCOMetrics of detections, to cross-check `score_boxes`."""

from collections.abc import Sequence

import numpy as np

from kzoo.detection.detections import Detections
from kzoo.interop import detections_to_keras_cv
from kzoo.interop.tf_keras import neighbour
from kzoo.recipes.data.box_dataset import Example

NAMES = {"val_keras_cv_map": "MaP", "val_keras_cv_map50": "MaP@[IoU=50]"}


def score_by_keras_cv(examples: Sequence[Example], found: Sequence[Detections]) -> dict[str, float]:
    """Return mean average precision over IoU .5 to .95 and at .5, with boxes in image px."""
    if not any(len(one) for one in found):
        return dict.fromkeys(NAMES, 0.0)
    metrics = neighbour("keras_cv", "keras-cv").metrics.BoxCOCOMetrics(
        bounding_box_format="yxyx", evaluate_freq=2
    )
    truth = [
        Detections(e.boxes, np.asarray(e.labels), np.ones(len(e.labels))).scaled(*e.size)
        for e in examples
    ]
    scaled = [one.scaled(*e.size) for one, e in zip(found, examples, strict=True)]
    # "rel_yxyx" prevents conversion: boxes are already in px, whose scale differs by image.
    y_true, y_pred = (detections_to_keras_cv(d, format="rel_yxyx") for d in (truth, scaled))
    del y_true["confidence"]
    metrics.update_state(y_true, y_pred)
    result = metrics.result(force=True)
    return {name: float(result[theirs]) for name, theirs in NAMES.items()}
