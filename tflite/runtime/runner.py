"""`Runner`: run a .tflite file on images and return float arrays."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.arguments import renamed
from kzoo.detection.detections import OLD_NAMES, Detections
from kzoo.detection.detector import at_own_size
from kzoo.preprocessing import stretch
from kzoo.segmentation.masks import mask_at
from kzoo.sizes import Tiles
from kzoo.tflite.metadata.reading import Values, read_metadata
from kzoo.tflite.ports import Port, dequantize, from_pixels, names, port
from kzoo.tflite.runtime.find_objects import finding
from kzoo.tflite.runtime.trial import open_interpreter
from kzoo.tflite.xnnpack import risks
from kzoo.weights.readers.flatbuffer import read_tflite


class Runner:
    """Runs a .tflite file: `Runner(path)(images)` returns its outputs as float arrays.

    images: (H, W, C) or (N, H, W, C), uint8 or float, in the input range of the Keras model:
        [0, 255] unless it was built with preprocessing=None.
    threads: number of CPU threads.

    Returns an array (N, ...), dequantized, or a dict of arrays by name if the file has several
    outputs. Raises FileNotFoundError, and ValueError for a file that is damaged, cannot be opened
    or has several inputs, and for images of another shape or range.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1):
        self.path: Path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"There is no file {str(self.path)!r}.")
        file = read_tflite(self.path)
        graph = file.graphs[0]
        if found := list(risks(graph)):
            raise ValueError(
                f"{self.path} can kill the process that runs it: {', '.join(found)}. Convert the "
                "model again, with ranges from kzoo.quantize."
            )
        inputs, outputs = names(file)
        if len(inputs) != 1:
            raise ValueError(
                f"{self.path} has {len(inputs)} inputs ({', '.join(inputs)}); Runner feeds one. "
                "Use ai_edge_litert.interpreter.Interpreter for it."
            )
        ((name, self._input_index),) = inputs.items()
        self.input: Port = port(name, graph.tensors[self._input_index])
        self.outputs: tuple[Port, ...] = tuple(
            port(name, graph.tensors[i]) for name, i in outputs.items()
        )
        self._output_indices = tuple(outputs.values())
        self._interpreter = open_interpreter(self.path, threads)

    def __call__(self, images: np.ndarray) -> Any:
        stored, batch = self._stored(np.asarray(images)), self.input.shape[0]
        results: list[list[np.ndarray]] = [[] for _ in self.outputs]
        for i in range(0, len(stored), batch):
            some = stored[i : i + batch]
            if len(some) < batch:  # pad the batch with the last image
                some = np.concatenate([some, np.repeat(some[-1:], batch - len(some), axis=0)])
            self._interpreter.set_tensor(self._input_index, some)
            try:
                self._interpreter.invoke()
            except RuntimeError as error:
                raise ValueError(f"LiteRT cannot run {str(self.path)!r}: {error}") from error
            for values, output, index in zip(
                results, self.outputs, self._output_indices, strict=True
            ):
                values.append(dequantize(self._interpreter.get_tensor(index), output))
        stacked = {
            output.name: np.concatenate(values)[: len(stored)]
            for output, values in zip(self.outputs, results, strict=True)
        }
        return stacked if len(stacked) > 1 else stacked[self.outputs[0].name]

    def on_pixels(self, images: np.ndarray) -> Any:
        """Return the outputs for images in [0, 255], normalized as the file's metadata say.

        Files of kzoo take pixels unchanged; float inputs of others may need (pixel - mean) / std.
        """
        mean, std = self._normalization
        if self.input.dtype == "float32" and (mean, std) != (0, 1):
            images = (np.asarray(images, np.float32) - np.array(mean, np.float32)) / np.array(
                std, np.float32
            )
        return self(images)

    @functools.cached_property
    def _normalization(self) -> tuple[Values, Values]:
        metadata = read_metadata(self.path)
        return metadata.normalization if metadata else (0.0, 1.0)

    @renamed(pictures="images", **OLD_NAMES)
    def detect(
        self, images: Sequence[np.ndarray], *, score_threshold: float = 0.4,
        tiles: Tiles | None = None, **options: Any,
    ) -> list[Detections]:  # fmt: skip
        """Return the objects in images (H, W, C) of any sizes, one `Detections` each, boxes in px.

        For a detector's file; the arguments are those of `kzoo.Detector.detect`. Images are resized
        to the input's size with Pillow's bilinear filter (`kzoo.preprocessing.stretch`), as in
        training and in `kzoo predict`. Raises ValueError for a file that is not a detector.
        """
        find = functools.partial(self._find, score_threshold=score_threshold, **options)
        return at_own_size(find, images, self.input.shape[1:3], tiles, options)

    @functools.cached_property
    def _find(self) -> Callable[..., list[Detections]]:
        return finding(self)

    def mask(self, image: np.ndarray) -> np.ndarray:
        """Return the class ids (H, W), uint8, of an image (H, W, C) of any size.

        For a segmenter's file. The image is resized to the input's size as in `detect`.
        """
        outputs = self.on_pixels(stretch(image, self.input.shape[1:3]))
        if isinstance(outputs, dict):
            raise ValueError(
                f"{self.path} has {len(outputs)} outputs: it is not a segmenter. Call "
                "Runner(path)(images) for its raw outputs."
            )
        return mask_at(outputs[0], np.shape(image)[:2])

    def invoke(self) -> None:
        """Run the file on the last image again, without copying inputs and outputs."""
        self._interpreter.invoke()

    def _stored(self, images: np.ndarray) -> np.ndarray:
        """Return images as (N, H, W, C) in the input's dtype."""
        wanted = self.input.shape[1:]
        single = images.shape == wanted
        if not single and (images.ndim != len(wanted) + 1 or images.shape[1:] != wanted):
            raise ValueError(
                f"{self.path} takes images of shape {wanted} or (N, {str(wanted)[1:]}. "
                f"Received: shape {images.shape}."
            )
        if images.dtype.kind not in "uif":
            raise ValueError(f"Images must be numbers. Received: dtype {images.dtype}.")
        if len(images) == 0:
            raise ValueError(f"There is no image. Received: shape {images.shape}.")
        return from_pixels(images[None] if single else images, self.input.dtype)
