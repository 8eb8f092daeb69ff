"""A detector, from whatever file it stands in, as a function from pictures to what is on them."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from kzoo.detection import Detections, detections
from kzoo.detector import Detector
from kzoo.tflite import Runner
from kzoo.tflite.metadata import BoxOutputs, DetectionOutputs, read_metadata

Find = Callable[[np.ndarray], list[Detections]]  # (N, side, side, 3) uint8 -> boxes in [0, 1]


def finder(file: Path, **options) -> Find:
    """The detector of a .keras or .tflite file. `options` are those of `kzoo.detections`.

    A .tflite file tells its anchors in its metadata, or has TFLite_Detection_PostProcess within.
    Raises ValueError for one that does neither.
    """
    if file.suffix == ".keras":
        model = keras.saving.load_model(file, compile=False)
        if not isinstance(model, Detector):
            raise ValueError(f"{file} holds a {type(model).__name__}, not a detector.")
        return lambda pictures: detections(
            model.predict(pictures.astype("float32"), verbose=0), model.anchor_boxes,
            activation=model.activation, **options,
        )  # fmt: skip
    metadata = read_metadata(file)
    kind = metadata.outputs if metadata else None
    runner = Runner(file)
    if isinstance(kind, BoxOutputs):
        anchors = kind.anchors
        return lambda pictures: detections(named(runner(pictures)), anchors, **options)
    if isinstance(kind, DetectionOutputs):
        return lambda pictures: four_outputs(runner(pictures), kind, **options)
    raise ValueError(
        f"{file} does not tell its anchors: it is no detector with metadata, such as "
        "kzoo.recipes.detect writes."
    )


def named(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{"boxes", "scores"} by what they must be where the file calls them otherwise."""
    if set(outputs) == {"boxes", "scores"}:
        return outputs
    ((_, boxes), (_, scores)) = sorted(outputs.items(), key=lambda pair: pair[1].shape[-1] != 4)
    return {"boxes": boxes, "scores": scores}


def four_outputs(
    outputs: dict[str, np.ndarray], kind: DetectionOutputs, *, threshold: float = 0.01
) -> list[Detections]:
    """What TFLite_Detection_PostProcess has found."""
    boxes, classes, scores, counts = (outputs[name] for name in kind.order)
    found = []
    for box, label, score, count in zip(boxes, classes, scores, counts.ravel(), strict=True):
        n = int(count)
        one = Detections(np.clip(box[:n], 0, 1), label[:n].astype(int), score[:n])
        found.append(one.above(threshold))
    return found
