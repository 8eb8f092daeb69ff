"""Readers of the tensors in a PyTorch file (.pth, .pt) or a .safetensors file, without PyTorch.

A .pth is a pickle, which can run any code. The unpickler here allows only the names that plain
tensors need. A file with any other name is refused, and none of its code is run.
Formats: https://github.com/pytorch/pytorch/blob/v2.13.0/torch/serialization.py (the zip format
since PyTorch 1.6, and the older stream format of torchvision's first files) and
https://github.com/huggingface/safetensors#format.
"""

import collections
import dataclasses
import io
import json
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

STREAM_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number, pickled
STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8",
    "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
    "BoolStorage": "?",
}  # fmt: skip
SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U8": "<u1", "BOOL": "?",
}  # fmt: skip
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Storage:
    """An array of numbers that tensors are views of."""

    dtype: str
    key: str
    length: int


@dataclasses.dataclass(frozen=True)
class View:
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, data: bytes) -> np.ndarray:
        """Return the tensor from its storage's bytes; raise ValueError if it exceeds them."""
        numbers = (self.offset, *self.shape, *self.strides)
        plain = len(self.shape) == len(self.strides) and all(
            isinstance(n, int) and n >= 0 for n in numbers
        )
        size = math.prod(self.shape) if plain else 0
        last = sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=False))
        dtype = np.dtype(self.storage.dtype)
        # A view that repeats elements (stride 0) could have any size: `size` limits it.
        if not plain or max(self.offset + last + 1, size) * dtype.itemsize > len(data):
            raise ValueError(
                f"A tensor of shape {self.shape} lies outside its storage of {len(data)} bytes: "
                "the file is cut off or damaged."
            )
        flat = np.frombuffer(data, dtype)[self.offset :]
        steps = tuple(step * dtype.itemsize for step in self.strides)
        return np.lib.stride_tricks.as_strided(flat, self.shape, steps, writeable=False).copy()


class TensorUnpickler(pickle.Unpickler):
    """Unpickles ordered dicts, tensors, parameters and storages; refuses any other name."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            ("torch._utils", "_rebuild_parameter"): self.parameter,
            **{("torch", storage): dtype for storage, dtype in STORAGES.items()},
        }
        if (module, name) not in known:
            raise ValueError(
                f"The file holds {module}.{name}, which is not part of a plain state_dict: "
                "refused, and none of it was run. Save only the weights: "
                "torch.save(model.state_dict(), path)."
            )
        return known[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, length, *_ = pid
        if kind != "storage" or dtype not in STORAGES.values():
            raise ValueError(
                f"The file refers to a {kind!r} that is not a storage of plain numbers."
            )
        return Storage(dtype, str(key), int(length))

    def tensor(
        self,
        storage: Storage,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        *_: Any,
    ) -> View:
        if not isinstance(storage, Storage):
            raise ValueError(f"The pickle has a tensor of {type(storage).__name__}: it is damaged.")
        return View(storage, offset, tuple(shape), tuple(strides))

    def parameter(self, data: View, *_: Any) -> View:
        return data


def unpickle(stream: io.BytesIO) -> Any:
    """Return the next object of the stream; raise ValueError for a damaged pickle."""
    try:
        start, size = stream.tell(), stream.seek(0, io.SEEK_END)
        stream.seek(start)
        for op, argument, _ in pickletools.genops(stream):
            # The memo is as long as its largest index: a few bytes could allocate 64 GB.
            if "PUT" in op.name and argument is not None and argument > size:
                raise ValueError(f"The pickle numbers an object {argument}: the file is damaged.")
        stream.seek(start)
        return TensorUnpickler(stream).load()
    except ValueError:
        raise
    except Exception as error:  # the unpickler raises nearly any type on damaged bytes
        raise ValueError(f"The pickle is cut off or damaged ({error}).") from error


def arrays(state: Any, data: Callable[[Storage], bytes]) -> Arrays:
    """Return the tensors of a state_dict, which may be nested once ({"state_dict": ...})."""
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    views = state.items() if isinstance(state, Mapping) else ()
    return {
        str(name): view.array(data(view.storage)) for name, view in views if isinstance(view, View)
    }


def read_zip(data: bytes) -> Arrays:
    """Read the format of PyTorch 1.6 and later."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        names = archive.namelist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("Its zip is compressed, which PyTorch never does: refused.")
        (pickled,) = (name for name in names if name.rpartition("/")[2] == "data.pkl")
        folder = pickled.removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError(
                "The file was written on a big-endian machine, which kzoo does not read."
            )
        state = unpickle(io.BytesIO(archive.read(pickled)))
        return arrays(state, lambda storage: archive.read(f"{folder}data/{storage.key}"))
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"The zip of the .pth is cut off or damaged ({error}).") from error


def read_stream(data: bytes) -> Arrays:
    """Read the format before PyTorch 1.6: five pickles, then each storage's length and bytes."""
    stream = io.BytesIO(data)
    _magic, _version, machine, state, keys = (unpickle(stream) for _ in range(5))
    if not isinstance(machine, dict) or not machine.get("little_endian"):
        raise ValueError("The file was written on a big-endian machine, which kzoo does not read.")
    used: dict[str, Storage] = {}
    views = list(state.values()) if isinstance(state, Mapping) else []
    for inner in views:
        views.extend(inner.values() if isinstance(inner, Mapping) else ())
        if isinstance(inner, View):
            used[inner.storage.key] = inner.storage
    contents = {}
    for key in map(str, keys):
        if key not in used:
            raise ValueError(
                f"No tensor uses storage {key}: the file is damaged, or holds more than tensors."
            )
        head = stream.read(8)
        size = used[key].length * np.dtype(used[key].dtype).itemsize
        contents[key] = stream.read(max(size, 0))
        if (
            len(head) < 8
            or struct.unpack("<q", head)[0] != used[key].length
            or len(contents[key]) != size
        ):
            raise ValueError(
                f"The .pth is cut off or damaged at byte {stream.tell()} of {len(data)}."
            )
    missing = set(used) - set(contents)
    if missing:
        raise ValueError(f"The .pth is damaged: storages {sorted(missing)} are not in it.")
    return arrays(state, lambda storage: contents[storage.key])


def is_safetensors(data: bytes) -> bool:
    """Return whether bytes begin with the length of a JSON header and the header."""
    return (
        len(data) > 9 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8
    )


def read_safetensors(data: bytes) -> Arrays:
    """Read a .safetensors file; bfloat16, which NumPy does not have, becomes float32."""
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8:start])
        found = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            shape, raw = tuple(entry["shape"]), data[start + begin : start + end]
            if begin < 0 or len(raw) != end - begin:
                raise ValueError(f"{name} lies outside the file")
            if entry["dtype"] == "BF16":
                raw = (np.frombuffer(raw, "<u2").astype("<u4") << 16).tobytes()
            dtype = {**SAFETENSORS, "BF16": "<f4"}[entry["dtype"]]
            found[name] = np.frombuffer(raw, dtype).reshape(shape)
        return found
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"The .safetensors file is cut off or damaged ({error}).") from error
