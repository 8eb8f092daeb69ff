"""Bounds-checked reading of flatbuffer tables: damaged bytes raise ValueError.

https://flatbuffers.dev/internals/: a table's vtable has the offsets of its fields, each optional.
"""

import struct
from typing import Any

import numpy as np


class Reader:
    """Bounds-checked access to the bytes of a flatbuffer.

    Tables can refer to each other in cycles, so that reading a small damaged file might never end.
    `allowance` limits the number of elements read: valid files have at most about one per byte.
    """

    def __init__(self, data: bytes) -> None:
        self.data: memoryview = memoryview(data)
        self.allowance: int = 4 * len(data) + 4096

    def scalar(self, form: str, at: int) -> Any:
        self.check(at, struct.calcsize(f"<{form}"), 1)
        return struct.unpack_from(f"<{form}", self.data, at)[0]

    def span(self, at: int, count: int, size: int) -> memoryview:
        self.check(at, count * size, count)
        return self.data[at : at + count * size]

    def check(self, at: int, size: int, elements: int) -> None:
        self.allowance -= elements
        if at < 0 or size < 0 or at + size > len(self.data) or self.allowance < 0:
            raise ValueError(
                f"This .tflite file is cut off or damaged: byte {at} of {len(self.data)} is read."
            )


class Table:
    """A flatbuffer table: numbered fields, each of which may be missing."""

    def __init__(self, file: Reader, at: int) -> None:
        self.file = file
        self.at = at
        vtable = at - file.scalar("i", at)
        size = file.scalar("H", vtable)
        self.fields: list[int] = np.frombuffer(
            file.span(vtable + 4, max(size - 4, 0) // 2, 2), "<u2"
        ).tolist()

    def where(self, field: int) -> int:
        """Return the field's position in the file; 0 if it is missing."""
        offset = self.fields[field] if field < len(self.fields) else 0
        return self.at + offset if offset else 0

    def scalar(self, field: int, form: str, default: Any) -> Any:
        at = self.where(field)
        return self.file.scalar(form, at) if at else default

    def table(self, field: int) -> "Table | None":
        at = self.where(field)
        return Table(self.file, at + self.file.scalar("I", at)) if at else None

    def span(self, field: int, size: int) -> memoryview:
        """Return the bytes of a vector with `size` bytes per element; empty if it is missing."""
        at = self.where(field)
        if not at:
            return memoryview(b"")
        at += self.file.scalar("I", at)
        return self.file.span(at + 4, self.file.scalar("I", at), size)

    def vector(self, field: int, dtype: str) -> tuple[Any, ...]:
        return tuple(np.frombuffer(self.span(field, np.dtype(dtype).itemsize), dtype).tolist())

    def text(self, field: int) -> str:
        return bytes(self.span(field, 1)).decode("utf-8", "replace")

    def tables(self, field: int) -> "tuple[Table, ...]":
        at = self.where(field)
        first = at + self.file.scalar("I", at) + 4 if at else 0
        return tuple(
            Table(self.file, first + 4 * i + offset)
            for i, offset in enumerate(self.vector(field, "<u4"))
        )
