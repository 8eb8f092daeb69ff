"""Small .tflite files with metadata by MediaPipe's own writers.

    uv run python tests/golden/mediapipe_metadata.py bare FOLDER
    python tests/golden/mediapipe_metadata.py write FOLDER      # where mediapipe 1.2.2 is installed

The first makes the files without metadata. MediaPipe's wheel lacks a C++ module that its writers
import, for texts that are not kept here; stand-ins take its place.
"""

import sys
import types
from pathlib import Path

import numpy as np

STAND_IN = {
    "mediapipe.tasks.cc.metadata.python._pywrap_metadata_version": {
        "GetMinimumMetadataParserVersion": lambda buffer: "1.0.0"
    },
    "mediapipe.tasks.cc.metadata.python._pywrap_flatbuffers": {
        "IDLOptions": types.SimpleNamespace,
        "Parser": lambda options=None: types.SimpleNamespace(
            opts=types.SimpleNamespace(), parse=lambda *_: True
        ),
        "generate_text_file": lambda *_: "{}",
        "generate_text": lambda *_: "{}",
    },
}


def stand_in() -> None:
    for name in ("cc", "cc.metadata", "cc.metadata.python"):
        package = types.ModuleType(f"mediapipe.tasks.{name}")
        package.__path__ = []
        sys.modules[package.__name__] = package
    for name, members in STAND_IN.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        sys.modules[name] = module
        setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], module)


def bare(folder: Path) -> None:
    import keras

    from kzoo.tflite import convert

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    mean = keras.layers.GlobalAveragePooling2D()(image)
    boxes = keras.layers.Reshape((4, 4))(keras.layers.Dense(16)(mean))
    scores = keras.layers.Reshape((4, 3))(keras.layers.Dense(12)(mean))
    outputs = {
        "classify": keras.layers.Dense(5, activation="softmax")(mean),
        "segment": keras.layers.Conv2D(2, 1)(image),
        "detect": {"boxes": boxes, "scores": scores},
    }
    for task, output in outputs.items():
        convert(keras.Model(image, output), folder / f"{task}.tflite", scheme="float32")


def write(folder: Path) -> None:
    stand_in()
    from mediapipe.tasks.python.metadata.metadata_writers import (
        image_classifier,
        image_segmenter,
        metadata_info,
        metadata_writer,
        object_detector,
    )

    read = lambda task: bytearray((folder / f"{task}.tflite").read_bytes())  # noqa: E731
    names = lambda n: metadata_writer.Labels().add([f"name {i}" for i in range(n)])  # noqa: E731
    anchors = [
        object_detector.FixedAnchor(x_center=0.25 * i, y_center=0.5, width=0.125, height=0.0625)
        for i in range(1, 5)
    ]
    decoding = object_detector.TensorsDecodingOptions(
        num_classes=3, num_boxes=4, num_coords=4, keypoint_coord_offset=0, num_keypoints=0,
        num_values_per_keypoint=2, x_scale=10.0, y_scale=20.0, w_scale=5.0, h_scale=4.0,
        apply_exponential_on_box_size=True, sigmoid_score=True,
    )  # fmt: skip
    order = metadata_info.RawDetectionOutputTensorsOrder.LOCATION_SCORE
    writers = {
        "classify": image_classifier.MetadataWriter.create(
            read("classify"), [127.5], [64.0], names(5)
        ),
        "segment": image_segmenter.MetadataWriter.create(
            read("segment"), [0.0], [1.0], names(2), image_segmenter.Activation.SIGMOID
        ),
        "detect": object_detector.MetadataWriter.create_for_models_without_nms(
            read("detect"), [0.0], [255.0], names(3),
            object_detector.SsdAnchorsOptions(object_detector.FixedAnchorsSchema(anchors)),
            decoding, order,
        ),
    }  # fmt: skip
    files = {
        task: np.frombuffer(writer.populate()[0], np.uint8) for task, writer in writers.items()
    }
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **files)


if __name__ == "__main__":
    {"bare": bare, "write": write}[sys.argv[1]](Path(sys.argv[2]))
