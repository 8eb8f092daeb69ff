"""`convert`: write a Keras model to a .tflite file, which is verified before it gets its name."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

import kzoo
from kzoo.detection.detector import Detector
from kzoo.files import replacing
from kzoo.qat import FakeQuant
from kzoo.quantization.calibration import check_calibration
from kzoo.quantization.quantize import check_model
from kzoo.quantization.ranges import CHANNELS, pixel_range
from kzoo.quantization.read import functional
from kzoo.tflite.convert.forms import require_fit
from kzoo.tflite.convert.postprocess import OPERATOR, PostProcess, with_postprocess
from kzoo.tflite.convert.prepare import absorb_preprocessing, copy_in_float32, fenced
from kzoo.tflite.convert.request import (
    Request,
    calibration_set,
    image_shape,
    output_names,
    requested,
)
from kzoo.tflite.convert.translation import SCHEMES, trace, translate
from kzoo.tflite.inspect.audit import Audit, audit, require_sound
from kzoo.tflite.metadata.reading import BoxOutputs, DetectionOutputs, Metadata
from kzoo.weights.readers.flatbuffer import read_tflite
from kzoo.weights.saved_model import load_model


def convert(
    model: keras.Model | str | os.PathLike[str] | Any,
    out: str | os.PathLike[str],
    *,
    scheme: Literal["float32", "float16", "dynamic", "int8", "int16x8"] | None = None,
    io: Literal["uint8", "float32", "int8"] | None = None,
    calibration: np.ndarray | None = None,
    calibrator: Literal["kzoo", "tensorflow"] = "kzoo",
    labels: Sequence[str] | None = None,
    metadata: Metadata | None = None,
    image_size: tuple[int, int] | None = None,
    batch_size: int = 1,
    postprocess: PostProcess | Literal["op"] | None = None,
    target: Literal["cpu", "gpu", "npu", "web", "micro", "edgetpu"] = "cpu",
    keep_float: Sequence[str] = (),
    progress: Callable[[str], None] = lambda step: None,
) -> Path:
    """Write `model` to the .tflite file `out` and return its path.

        kzoo.tflite.convert(model, "model.tflite", calibration=images[:200], labels=["cat", "dog"])

    model: a functional or sequential Keras model with one image input, or the path of a .keras
        file. Under JAX and PyTorch, TensorFlow converts it in a separate process. Also a tf-keras
        model with int8 ranges of tfmot (`kzoo.interop.quantize_model`).
    scheme: one of `kzoo.tflite.SCHEMES`. None: that of the target, which is int8 for the CPU.
    io: dtype of the input. None: that of the target if the scheme is the target's, else uint8 for
        int8 and float32 for the other schemes. A uint8 input takes the camera's bytes, an int8
        input the same minus 128: a Rescaling at the start of the model becomes the input's scale
        and zero point. For a model without one, the calibration images show whether it takes pixels
        in [0, 255], [0, 1] or [-1, 1]. With a float32 input an int8 file keeps the Rescaling, as
        two float operators. Outputs are float32, and so is a final softmax: an int8 one has steps
        of 1/256, too coarse for many classes.
    calibration: 100 to 500 representative images (N, H, W, C), uint8 or float, in the model's input
        range. Needed for int8 and int16x8, unless the model has ranges from `kzoo.quantize`.
    calibrator: what quantizes a float model. "kzoo" is `kzoo.quantize`; "tensorflow" is
        TensorFlow's converter, which supports more layers but leaves hard-swish to slow kernels and
        makes MobileNetV3's ranges too wide.
    labels: class names. They are written to labels.txt beside the file (NAME.labels.txt if that
        belongs to another file), and into the file if it has the input and output of a classifier
        or a segmenter.
    metadata: further metadata, see `Metadata`. `labels` take precedence over its labels.
    image_size: (H, W), for a model without a fixed input size.
    batch_size: fixed batch size of the file. Android needs 1.
    postprocess: for a `kzoo.Detector`, whose file has outputs "boxes" and "scores" and the anchors
        in its metadata. "op", or settings, adds the operator TFLite_Detection_PostProcess.
    target: where the file will run, one of `kzoo.tflite.FORMS`. It sets the scheme, input, form of
        hard-swish and dtype of the outputs, unless given here. A model from `kzoo.quantize` keeps
        its form of hard-swish. For "micro" and "edgetpu" no file is written if the target does not
        support one of its operators (see `kzoo.tflite.targets`).
    keep_float: names of layers that stay in float in an int8 file; `kzoo.quantize` takes more.
    progress: called with the name of each step when it begins: one of `STEPS`.

    A MobileNetV3-Large at 224 px takes 12 s of CPU time and 1.2 GB of memory to quantize with 100
    calibration images, then 5 s and 1.4 GB to convert (tests/bench/quantize_cost.py); 6 s and
    1.2 GB to float32. TensorFlow takes 0.7 GB of this.

    The file is written whole or not at all. Raises ValueError for arguments that do not fit and if
    the model cannot be converted, FileNotFoundError if the folder of `out` does not exist.
    """
    if isinstance(labels, str | Mapping):
        raise ValueError(
            "labels must be a list of class names, in the order of the model's outputs. Received: "
            f"{type(labels).__name__} {labels!r}"
        )
    lines = None if labels is None else tuple(labels)
    settings = PostProcess() if postprocess == "op" else postprocess
    request = requested(
        Path(out), target, scheme=scheme, io=io, labels=lines, image_size=image_size,
        calibrator=calibrator, metadata=metadata, batch_size=batch_size, postprocess=settings,
        keep_float=tuple(keep_float),
    )  # fmt: skip
    with drafted(model, request, calibration, progress):
        pass  # the caller has no further checks
    return request.out


@contextlib.contextmanager
def drafted(
    model: keras.Model | str | os.PathLike[str] | Any, request: Request,
    calibration: np.ndarray | None, progress: Callable[[str], None],
) -> Iterator[Path]:  # fmt: skip
    """Yield the path of a draft of the converted file, which is renamed to `out` after the block.

    The draft has been read back and run. Further checks go into the block: if it raises, the draft
    is deleted and an older file `out` stays unchanged.
    """
    if not request.out.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(request.out.parent)!r} to write into.")
    if request.out.is_dir():
        raise IsADirectoryError(f"{str(request.out)!r} is a folder: name a file in it.")
    is_keras = isinstance(model, keras.Model | str | os.PathLike)  # not tf-keras
    if is_keras and keras.backend.backend() != "tensorflow":
        progress(STEPS[2])
        content = lower_elsewhere(model, request, calibration)
    else:
        progress(STEPS[0])
        content = lower(load(model), request, calibration, progress)
    progress(STEPS[3])
    with contextlib.ExitStack() as files:
        draft = files.enter_context(replacing(request.out))
        draft.write_bytes(content)
        check(audit(draft), request)
        if request.target:
            require_fit(read_tflite(draft), request.target)
        yield draft
        if request.labels is not None:
            text = "".join(f"{label}\n" for label in request.labels)
            listed = labels_file(request.out, text)
            part = files.enter_context(replacing(listed))
            part.write_text(text, encoding="utf-8", errors="backslashreplace")


def labels_file(out: Path, text: str) -> Path:
    """Return the labels file of `out`: labels.txt beside it, or NAME.labels.txt.

    The latter if labels.txt exists with other labels.
    """
    listed = out.with_name("labels.txt")
    before = listed.read_text(encoding="utf-8", errors="replace") if listed.is_file() else text
    others = before.splitlines() != text.splitlines()
    return out.with_name(f"{out.stem}.labels.txt") if others else listed


STEPS = ("reading the model", "quantizing", "converting", "trying the file")


def load(model: keras.Model | str | os.PathLike[str]) -> keras.Model:
    if not isinstance(model, str | os.PathLike):
        return model
    return load_model(model)


def lower(
    model: keras.Model, request: Request, calibration: np.ndarray | None,
    progress: Callable[[str], None],
) -> bytes:  # fmt: skip
    """Return the bytes of the .tflite file; runs under the TensorFlow backend."""
    from kzoo.tflite.convert.finish import finish  # needs flatbuffers, which comes with TensorFlow
    from kzoo.tflite.metadata.writing import add_metadata, kind_by_shapes

    model = functional(model)
    shape = image_shape(model, request.image_size)
    names = output_names(model, request.labels)
    scheme, grid = SCHEMES[request.scheme], None
    ends: Sequence[float] | None = None
    is_keras = isinstance(model, keras.Model)
    body = copy_in_float32(model) if is_keras else model
    ranged = has_ranges(body)
    inner = next((x.name for x in body.layers if isinstance(x, keras.Model)), None)
    if ranged and inner:
        raise ValueError(
            f"{model.name!r} has a model with int8 ranges within, {inner!r}, as a layer. Continue "
            "its graph instead: keras.Model(quantized.input, layer(quantized.output))."
        )
    if ranged and request.scheme != "int8":
        raise ValueError(
            'The model holds int8 ranges (kzoo.quantize): convert it with scheme="int8", or the '
            f'float model that it was made from. Received: scheme="{request.scheme}"'
        )
    if is_keras:
        check_model(model)
    else:
        names = [name.removeprefix("quant_") for name in names]  # tfmot's prefix
        if scheme.calibrated and not ranged and request.calibrator == "kzoo":
            raise ValueError(
                f"{model.name!r} is a tf-keras model without int8 ranges: give it some with "
                'kzoo.interop.quantize_model, or use calibrator="tensorflow" take them.'
            )
    images = None
    if scheme.calibrated and not ranged:
        images = calibration_set(calibration, shape, request)
        if is_keras:
            check_calibration(model, iter([images]))
        if request.scheme == "int8" and request.calibrator == "kzoo":
            progress(STEPS[1])
            body = kzoo.quantize(
                body, calibration=images, hard_swish=request.hard_swish,
                keep_float=request.keep_float,
            )  # fmt: skip
            images = None
    metadata = request.metadata
    if isinstance(model, Detector):
        body, names = model.like(body.input, body.output).scored(), ["boxes", "scores"]
        metadata = dataclasses.replace(
            metadata or Metadata(), outputs=BoxOutputs(model.anchor_boxes)
        )
    elif request.postprocess:
        raise ValueError(
            f"postprocess is for detectors. Received: {type(model).__name__} {model.name!r}"
        )
    progress(STEPS[2])
    if is_keras and scheme.calibrated and request.io in ("uint8", "int8"):
        body, grid = absorb_preprocessing(body)
        if grid:
            ends = grid.real(np.array([0, 255])).tolist()
        elif images is not None and shape[-1] in CHANNELS:
            ends = pixel_range(float(images.min()), float(images.max()))
    graph = trace(
        fenced(body) if has_ranges(body) else body, (request.batch_size, *shape),
        from_bytes=request.io == "uint8" and not scheme.calibrated,
    )  # fmt: skip
    content = translate(graph, scheme, images, grid, ends)
    content = finish(
        content, input_name=model.inputs[0].name, output_names=names, io=request.io or "float32",
        outputs=request.outputs, through_float=request.float_first,
    )  # fmt: skip
    if request.postprocess and metadata and isinstance(metadata.outputs, BoxOutputs):
        content = with_postprocess(content, metadata.outputs, request.postprocess)
        metadata = dataclasses.replace(metadata, outputs=DetectionOutputs())
    if metadata is None and request.labels and kind_by_shapes(read_tflite(content).graphs[0]):
        metadata = Metadata()
    if metadata is None:
        return content
    return add_metadata(
        content, dataclasses.replace(metadata, labels=request.labels or metadata.labels)
    )


def has_ranges(model: keras.Model) -> bool:
    """Return whether the model has int8 ranges, of `kzoo.quantize` or, in tf-keras, of tfmot."""
    return any(
        isinstance(layer, FakeQuant) or type(layer).__name__ in TFMOT
        for layer in model._flatten_layers()
    )


TFMOT = ("QuantizeLayer", "QuantizeWrapper", "QuantizeWrapperV2")  # layers of its quantized models


def check(found: Audit, request: Request) -> None:
    """Raise ValueError if the file does not run or has another input dtype than requested."""
    require_sound(found, request.out, custom=OPERATOR if request.postprocess else None)
    if found.inputs[0].dtype != request.io:
        raise ValueError(
            f"{request.out} was not written: its input must be {request.io}, but is "
            f"{found.inputs[0]}."
        )


def require_tensorflow() -> None:
    """Raise ValueError if TensorFlow, which writes .tflite files, is not installed."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ValueError(
            "TensorFlow writes .tflite files, in a separate process on every backend, and "
            "is not installed: pip install 'kzoo[tensorflow]'."
        )


def lower_elsewhere(
    model: keras.Model | str | os.PathLike[str], request: Request, calibration: np.ndarray | None
) -> bytes:
    """Return what `lower` returns, computed in a separate process with TensorFlow."""
    require_tensorflow()
    with tempfile.TemporaryDirectory(prefix="kzoo_convert_") as folder:
        job = Path(folder, "job.pickle")
        if isinstance(model, keras.Model):
            model.save(Path(folder, "model.keras"))
            model = Path(folder, "model.keras")
        job.write_bytes(pickle.dumps((Path(model).absolute(), request)))
        if calibration is not None:
            np.save(Path(folder, "calibration.npy"), calibration)
        done = subprocess.run(
            [sys.executable, "-m", "kzoo.tflite", folder],
            env=os.environ | {"KERAS_BACKEND": "tensorflow"},
            capture_output=True,
            text=True,
            check=False,
        )
        failure = Path(folder, "error.json")
        if failure.is_file():
            kind, message = json.loads(failure.read_text())
            raise {"FileNotFoundError": FileNotFoundError}.get(kind, ValueError)(message)
        if done.returncode != 0:
            last = "\n".join(done.stderr.strip().splitlines()[-5:]) or "no message"
            raise RuntimeError(
                f"The process that converts ended with code {done.returncode}: {last}"
            )
        return Path(folder, "content.tflite").read_bytes()


def work(folder: Path) -> None:
    """Run the job that `lower_elsewhere` has written to `folder`; called in the other process."""
    model, request = pickle.loads(Path(folder, "job.pickle").read_bytes())
    images = Path(folder, "calibration.npy")
    calibration = np.load(images) if images.is_file() else None
    try:
        content = lower(load(model), request, calibration, lambda step: None)
        Path(folder, "content.tflite").write_bytes(content)
    except (ValueError, FileNotFoundError) as error:
        Path(folder, "error.json").write_text(json.dumps([type(error).__name__, str(error)]))
