"""Writing of flatbuffers from Python values: a table is a dict {field number: value}.

The type of a value determines how it is written: NumPy scalars as scalars of that width, arrays as
vectors; str, bytes, lists of strings or tables, and dicts (tables) as offsets.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flatbuffers
import numpy as np

from kzoo.weights.readers.flatbuffer import IDENTIFIER

FIRST_BYTES = 1 << 20  # initial size of a builder, which grows by doubling


class AlignedBuilder(flatbuffers.Builder):
    """A builder that aligns byte vectors to 16, as the schema requires and Python's does not.

    Equal vectors of zeros are written once: the zero points of weights, 8 bytes a channel for
    kernel and bias each, would be a tenth of the file of a small int8 net.
    """

    def __init__(self, size: int):
        super().__init__(size)
        self.zeros: dict[tuple[str, int], int] = {}  # offsets of zero vectors by dtype and length

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        if x.any():
            return super().CreateNumpyVector(x)
        key = x.dtype.str, x.size
        if key not in self.zeros:
            self.zeros[key] = super().CreateNumpyVector(x)
        return self.zeros[key]

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)


def tflite_content(model: Any) -> bytes:
    """Return the bytes of the .tflite file of a `ModelT`, the schema's object of a model."""
    builder = AlignedBuilder(FIRST_BYTES)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def as_text(name: bytes | str) -> str:
    """Return a name of a `ModelT` as str: it is bytes after reading, str after assignment."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name


def flat(table: Mapping[int, Any], identifier: bytes) -> bytes:
    """Return the bytes of a flatbuffer with this root table."""
    builder = AlignedBuilder(1024)
    builder.Finish(put(builder, table), file_identifier=identifier)
    return bytes(builder.Output())


def put(builder: Any, value: Any) -> int:
    """Write a value that is stored by offset and return its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, bytes):
        return builder.CreateByteVector(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, list):
        inside = [put(builder, one) for one in value]
        builder.StartVector(4, len(inside), 4)
        for offset in reversed(inside):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    fields = {i: x for i, x in value.items() if not (isinstance(x, str | list) and not x)}
    offsets = {i: put(builder, x) for i, x in fields.items() if not isinstance(x, np.generic)}
    builder.StartObject(max(fields, default=-1) + 1)
    for i, x in fields.items():
        if isinstance(x, np.generic):
            SLOT[x.dtype.char](builder)(i, x.item(), 0)
        else:
            builder.PrependUOffsetTRelativeSlot(i, offsets[i], 0)
    return builder.EndObject()


SLOT: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "b": lambda b: b.PrependInt8Slot, "B": lambda b: b.PrependUint8Slot,
    "i": lambda b: b.PrependInt32Slot, "I": lambda b: b.PrependUint32Slot,
    "f": lambda b: b.PrependFloat32Slot, "?": lambda b: b.PrependBoolSlot,
}  # fmt: skip
