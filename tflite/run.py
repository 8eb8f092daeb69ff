"""Run a .tflite file: pictures in, float arrays out.

`python -P tflite/run.py FILE` opens and invokes a file once and prints what XNNPACK took, as JSON:
a bad file can abort the process, so `trial` has that done in a child, which shall start fast.
Hence the imports inside functions.
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kzoo.detection import Detections
    from kzoo.flatbuffer import TfliteModel, TfliteTensor

TRIAL_SECONDS = 120  # opening and running a MobileNet takes less than one


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or output: real value = scale * (stored - zero_point), scale 0 for floats."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int

    def __str__(self) -> str:
        grid = f", {self.scale:.6g} * (q - {self.zero_point})" if self.scale else ""
        return f"{self.name}: {self.dtype} {list(self.shape)}{grid}"


def port(name: str, tensor: "TfliteTensor") -> Port:
    scale = tensor.scales[0] if tensor.scales else 0.0
    zero_point = tensor.zero_points[0] if tensor.zero_points else 0
    return Port(name, tensor.shape, tensor.dtype, scale, zero_point)


def from_pixels(pictures: np.ndarray, dtype: str) -> np.ndarray:
    """Pictures with values in [0, 255] as an input of that dtype stores them.

    A camera's byte is the stored uint8 value, whatever scale the file declares, and 128 less in
    int8: that is what Android hands over, and what image models with such an input are made for. A
    float input takes its pictures as they are.
    """
    if dtype == "float32":
        return pictures.astype(np.float32)
    if dtype not in PIXEL_OFFSET:
        raise ValueError(
            f"The file's input is {dtype}; pictures can be given to one of float32, "
            f"{', '.join(PIXEL_OFFSET)}. Convert it with another io=."
        )
    if pictures.dtype != np.uint8:
        low, high = float(pictures.min()), float(pictures.max())
        if low < 0 or high > 255 or (high <= 1 and np.any(pictures % 1)):
            raise ValueError(
                f"The file's input is {dtype}: it takes pictures with values in [0, 255]. "
                f"Received values in [{low:g}, {high:g}]. Pass the pixels as they are, unscaled."
            )
        pictures = np.rint(pictures)
    return (pictures.astype(np.int16) - PIXEL_OFFSET[dtype]).astype(dtype)


PIXEL_OFFSET = {"uint8": 0, "int8": 128}


class Runner:
    """`Runner(path)(pictures)`: the outputs as floats, scales and zero points applied.

    Pictures are (H, W, C) or (N, H, W, C), uint8 or float, in the range that the model took in
    Keras: [0, 255] unless it was built with preprocessing=None. Returns an array (N, ...), or a
    dict of them by name where the file has several outputs. Raises ValueError for a file that is
    damaged or cannot be opened, and for pictures that do not fit.
    """

    def __init__(self, path: str | os.PathLike, *, threads: int = 1):
        from kzoo.flatbuffer import read_tflite
        from kzoo.tflite.limits import risks

        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"There is no file {str(self.path)!r}.")
        file = read_tflite(self.path)
        graph = file.graphs[0]
        if found := list(risks(graph)):
            raise ValueError(f"{self.path} can kill the process that runs it: {', '.join(found)}.")
        inputs, outputs = names(file)
        if len(inputs) != 1:
            raise ValueError(
                f"{self.path} has {len(inputs)} inputs ({', '.join(inputs)}); Runner feeds one."
            )
        ((name, self._input_index),) = inputs.items()
        self.input = port(name, graph.tensors[self._input_index])
        self.outputs = tuple(port(name, graph.tensors[i]) for name, i in outputs.items())
        self._output_indices = tuple(outputs.values())
        self._interpreter = open_interpreter(self.path, threads)

    def __call__(self, pictures: np.ndarray) -> Any:
        stored, batch = self._stored(np.asarray(pictures)), self.input.shape[0]
        results: list[list[np.ndarray]] = [[] for _ in self.outputs]
        for i in range(0, len(stored), batch):
            some = stored[i : i + batch]
            if len(some) < batch:  # the last one again, to fill the batch up
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

    def detect(
        self, pictures: Sequence[np.ndarray], *, threshold: float = 0.4, **options: Any
    ) -> "list[Detections]":
        """What is on pictures (H, W, C) of any sizes, by a detector's file; boxes in their pixels.

        As `Detector.detect` of the Keras model; `options` are those of `kzoo.detections`.
        """
        from kzoo.detector import at_own_size

        find = functools.partial(self._find, threshold=threshold, **options)
        return at_own_size(find, pictures, self.input.shape[1:3])

    @functools.cached_property
    def _find(self) -> Callable[..., "list[Detections]"]:
        from kzoo.tflite.detect import finding

        return finding(self)

    def mask(self, picture: np.ndarray) -> np.ndarray:
        """The class ids (H, W), uint8, of a picture (H, W, C) of any size: a segmenter's."""
        from kzoo.detector import resized
        from kzoo.masks import mask_at

        outputs = self(resized(picture, self.input.shape[1:3]))
        if isinstance(outputs, dict):
            raise ValueError(f"{self.path} has {len(outputs)} outputs: it is no segmenter.")
        return mask_at(outputs[0], np.shape(picture)[:2])

    def invoke(self) -> None:
        """Run the file on the picture it was given last: what `benchmark` times."""
        self._interpreter.invoke()

    def _stored(self, pictures: np.ndarray) -> np.ndarray:
        """(N, H, W, C), as the input stores it."""
        wanted = self.input.shape[1:]
        single = pictures.shape == wanted
        if not single and (pictures.ndim != len(wanted) + 1 or pictures.shape[1:] != wanted):
            raise ValueError(
                f"{self.path} takes pictures of shape {wanted} or (N, {str(wanted)[1:]}. "
                f"Received: shape {pictures.shape}."
            )
        if pictures.dtype.kind not in "uif":
            raise ValueError(f"Pictures must be numbers. Received: dtype {pictures.dtype}.")
        if len(pictures) == 0:
            raise ValueError(f"There is no picture. Received: shape {pictures.shape}.")
        return from_pixels(pictures[None] if single else pictures, self.input.dtype)


def by_name(outputs: dict | Sequence | np.ndarray, wanted: list[str]) -> dict[str, np.ndarray]:
    """Outputs of Keras or of `Runner`, as {name: array}."""
    if not isinstance(outputs, dict | list | tuple):
        outputs = [outputs]
    if not isinstance(outputs, dict):
        outputs = dict(zip(wanted, outputs, strict=True))
    if set(outputs) != set(wanted):
        raise ValueError(
            f"The model's outputs are {sorted(outputs)}, the file's are {sorted(wanted)}."
        )
    return {name: np.asarray(outputs[name]) for name in wanted}


def dequantize(stored: np.ndarray, output: Port) -> np.ndarray:
    if not output.scale:
        return stored.copy()
    return (stored.astype(np.float32) - output.zero_point) * np.float32(output.scale)


def open_interpreter(path: str | os.PathLike, threads: int = 1) -> Any:
    """A LiteRT interpreter with its tensors allocated. Raises ValueError where it refuses."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"LiteRT cannot open {str(path)!r}: {error}") from error
    return interpreter


def names(file: "TfliteModel") -> tuple[dict[str, int], dict[str, int]]:
    """({name: tensor} of the inputs, of the outputs), as the signature has them where there is one.

    The graph may hold its outputs in any order.
    """
    graph = file.graphs[0]
    if len(file.signatures) == 1 and file.signatures[0].graph == 0:
        return dict(file.signatures[0].inputs), dict(file.signatures[0].outputs)
    inputs, outputs = (
        {graph.tensors[i].name: i for i in ends} for ends in (graph.inputs, graph.outputs)
    )
    return inputs, outputs


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a file did when it was opened and invoked once, on one thread with XNNPACK."""

    partitions: int  # of XNNPACK; 1 is a whole file without a way out and back
    outside: tuple[int, ...]  # operators, by index, that XNNPACK left to the reference kernels
    load_ms: float
    memory_mb: float  # what the process grew by; nan where the system does not tell


def trial(path: str | os.PathLike) -> Trial:
    """Open and invoke a file in a process of its own. Raises ValueError if that one fails."""
    command = [sys.executable, "-P", __file__, str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TRIAL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{path} did not come to an end within {TRIAL_SECONDS} s.") from None
    if done.returncode != 0:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"{path} cannot be run, the process that tried ended with {how}: {last}")
    values = json.loads(done.stdout.splitlines()[-1])
    return Trial(values.pop("partitions"), tuple(values.pop("outside")), **values)


def try_here(path: str) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter  # noqa: F401, before its growth is measured

    before, start = resident_mb(), time.perf_counter()
    interpreter = open_interpreter(path)
    load_ms = 1e3 * (time.perf_counter() - start)
    for detail in interpreter.get_input_details():
        # Mid-range: all-zero bytes would be a black picture, which leaves half the net unused.
        value = {"uint8": 128, "int8": 0}.get(np.dtype(detail["dtype"]).name, 0)
        interpreter.set_tensor(
            detail["index"], np.full(detail["shape"], value, dtype=detail["dtype"])
        )
    interpreter.invoke()
    partitions, outside = delegated(interpreter._get_ops_details())
    grown = resident_mb() - before
    return {"partitions": partitions, "outside": outside, "load_ms": load_ms, "memory_mb": grown}


def resident_mb() -> float:
    """The memory of this process, at its largest where the system tells no more; or nan."""
    with contextlib.suppress(OSError):
        return (
            int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        )
    if sys.platform not in PEAK_UNIT:
        return math.nan  # Windows has no `resource`
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT[sys.platform] / 1e6


PEAK_UNIT = {"linux": 1024, "darwin": 1}  # bytes, of ru_maxrss: getrusage(2) of each


def delegated(operators: list[dict[str, Any]]) -> tuple[int, list[int]]:
    """(Partitions, operators outside them), from a list of the file's own and then DELEGATEs.

    LiteRT does not say what a DELEGATE replaced: it is what lies between its inputs and its
    outputs.
    """
    own = [op for op in operators if op["op_name"] != "DELEGATE"]
    producer = {int(t): op for op in own for t in op["outputs"]}
    partitions = [op for op in operators if op["op_name"] == "DELEGATE"]
    inside = set()
    for partition in partitions:
        stop = {int(t) for t in partition["inputs"]}
        todo = [int(t) for t in partition["outputs"]]
        while todo:
            tensor = todo.pop()
            op = producer.get(tensor)
            if tensor in stop or op is None or op["index"] in inside:
                continue
            inside.add(op["index"])
            todo += [int(t) for t in op["inputs"]]
    return len(partitions), [op["index"] for op in own if op["index"] not in inside]


if __name__ == "__main__":
    print(json.dumps(try_here(sys.argv[1])))
