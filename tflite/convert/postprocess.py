"""TFLite_Detection_PostProcess appended to a detector's file, which then outputs final boxes.

It is a custom operator that LiteRT, MediaPipe Tasks and the Edge TPU's runtime include. It decodes
boxes and runs NMS in float on the CPU, and does not clip boxes to the image. Its settings:
tensorflow/lite/kernels/detection_postprocess.cc.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.detection.boxes import CODE_WEIGHTS, centred
from kzoo.files import replacing
from kzoo.tflite.inspect.audit import audit, require_sound
from kzoo.tflite.metadata.reading import BoxOutputs, DetectionOutputs, read_metadata
from kzoo.weights.readers.flatbuffer import read_tflite

OPERATOR = "TFLite_Detection_PostProcess"


@dataclasses.dataclass(frozen=True)
class PostProcess:
    """Settings of the operator."""

    threshold: float = 0.3  # lowest score in [0, 1] to keep
    overlap: float = 0.55  # IoU threshold of non-maximum suppression
    most: int = 25  # largest number of boxes per image
    per_class: bool = True  # NMS within each class; False: across all classes

    def options(self, classes: int) -> dict[str, Any]:
        """Return the settings under the operator's names."""
        scales = dict(zip(("y_scale", "x_scale", "h_scale", "w_scale"), CODE_WEIGHTS, strict=True))
        return {
            "max_detections": self.most,
            "max_classes_per_detection": 1,
            "detections_per_class": self.most,
            "use_regular_nms": self.per_class,
            "nms_score_threshold": float(self.threshold),
            "nms_iou_threshold": float(self.overlap),
            "num_classes": classes,
            **scales,
        }


def add_postprocess(
    path: Path, out: Path, *, settings: PostProcess = PostProcess()
) -> Path:  # fmt: skip
    """Append the operator to the detector in the file `path`, write it to `out` and return `out`.

    `path` must have outputs {"boxes", "scores"} and the anchors in its metadata, as `kzoo detect`
    writes it. The new file has the outputs boxes (1, most, 4), classes, scores (1, most) and count,
    and metadata for MediaPipe's ObjectDetector. It is run once before it is renamed to `out`.
    Raises ValueError for other files, and for settings that the operator does not run with.
    """
    from kzoo.tflite.metadata.writing import add_metadata

    content = Path(path).read_bytes()
    metadata = read_metadata(content)
    if metadata is None or not isinstance(metadata.outputs, BoxOutputs):
        raise ValueError(
            f"{path} has no anchors in its metadata: the operator needs a detector with anchors, "
            "such as `kzoo detect` writes."
        )
    content = with_postprocess(content, metadata.outputs, settings)
    metadata = dataclasses.replace(metadata, outputs=DetectionOutputs())
    with replacing(Path(out)) as draft:
        draft.write_bytes(add_metadata(content, metadata))
        require_sound(audit(draft), Path(out), custom=OPERATOR)
    return Path(out)


def with_postprocess(content: bytes, outputs: BoxOutputs, settings: PostProcess) -> bytes:
    """Return the model with the operator after its two outputs; associated files are dropped."""
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import flexbuffers

    from kzoo.tflite.convert.finish import tensor_map
    from kzoo.tflite.writer import tflite_content

    (signature,) = read_tflite(content).signatures
    codes, scores = signature.outputs[outputs.boxes], signature.outputs[outputs.scores]
    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    classes = int(graph.tensors[scores].shape[-1])

    def tensor(name: str, shape: tuple[int, ...], data: np.ndarray | None = None) -> int:
        new = schema.TensorT()
        new.name, new.shape, new.type = name, np.array(shape, np.int32), schema.TensorType.FLOAT32
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.astype("<f4").tobytes(), np.uint8)
            model.buffers.append(buffer)
            new.buffer = len(model.buffers) - 1
        graph.tensors.append(new)
        return len(graph.tensors) - 1

    for index in (codes, scores):  # the new outputs take over their names
        graph.tensors[index].name = f"{graph.tensors[index].name}_raw"
    anchors = np.concatenate(centred(outputs.anchors), axis=-1)  # y, x, h, w
    most = settings.most
    shapes = {"boxes": (1, most, 4), "classes": (1, most), "scores": (1, most), "count": (1,)}
    new = {name: tensor(name, shape) for name, shape in shapes.items()}

    kind = schema.OperatorCodeT()
    kind.builtinCode = schema.BuiltinOperator.CUSTOM
    kind.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    kind.customCode, kind.version = OPERATOR, 1
    model.operatorCodes.append(kind)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs = np.array([codes, scores, tensor("anchors", anchors.shape, anchors)], np.int32)
    operator.outputs = np.array(list(new.values()), np.int32)
    operator.customOptions = np.frombuffer(flexbuffers.Dumps(settings.options(classes)), np.uint8)
    graph.operators.append(operator)
    graph.outputs = operator.outputs
    model.signatureDefs[0].outputs = [tensor_map(schema, *pair) for pair in new.items()]
    return tflite_content(model)
