"""What a container may hold: nothing outside itself, and not a thousand times its own size."""

import contextlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

# What Keras, h5py, zipfile and the readers here raise on files that are damaged, by a byte of which
# nobody thought. Not MemoryError: that is the machine's. SystemError is h5py's, of C code.
FAULTS = (
    ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SystemError,
    TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
FREE_BYTES = 64 << 20  # a small file may unfold to this much, whatever its size
MOST_EXPANSION = 50  # Keras writes its archives uncompressed: 1; deflate reaches 1032


def require_bounded(unfolded: int, stored: int, what: str) -> None:
    """Raise ValueError where `what` would unfold to far more bytes than are stored."""
    if unfolded > max(FREE_BYTES, MOST_EXPANSION * stored):
        raise ValueError(
            f"{what} would expand {stored:,} bytes to {unfolded:,}: refused. Keras writes no such "
            "file; if it is yours, save the model again."
        )


def check_archive(archive: zipfile.ZipFile) -> None:
    """Raise ValueError where the files in an archive unfold to far more than it holds."""
    entries = archive.infolist()
    require_bounded(
        sum(entry.file_size for entry in entries),
        sum(entry.compress_size for entry in entries),
        "Its archive",
    )


@contextlib.contextmanager
def open_hdf5(data: bytes) -> Iterator[Any]:
    """Open an HDF5 file, given as bytes, for reading.

    Raises ValueError where it names other files, where its arrays have far more bytes than it, and
    where the HDF5 library would never come to an end.
    """
    import h5py  # as late as possible: `import kzoo` costs keras and numpy

    check_heaps(data)
    with h5py.File(io.BytesIO(data), "r") as root:
        check_links(root, len(data))
        yield root


HEAP, OBJECT = b"GCOL\x01\0\0\0", struct.Struct("<HHIQ")  # index, references, reserved, bytes


def check_heaps(data: bytes) -> None:
    """Raise ValueError where the free space of a heap of texts is smaller than its own header.

    The HDF5 library steps over free space by its size, and for 0 it stays there for ever.
    Format: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html, section III.E.
    """
    heap = data.find(HEAP)
    while heap >= 0:
        at = heap + 16
        end = min(len(data), heap + int.from_bytes(data[heap + 8 : at], "little"))
        while at + OBJECT.size <= end:
            index, _, _, size = OBJECT.unpack_from(data, at)
            if index == 0 and size < OBJECT.size:
                raise ValueError(f"Its HDF5 file is damaged: a heap at byte {heap} has no end.")
            at += size if index == 0 else OBJECT.size + -(-size // 8) * 8
        heap = data.find(HEAP, heap + len(HEAP))


def check_links(root: Any, stored: int) -> None:
    """Raise ValueError where an opened HDF5 file of `stored` bytes names other files.

    Also where its arrays have far more bytes than it.
    """
    import h5py

    def outside(name: str, link: Any) -> str | None:
        return name if isinstance(link, h5py.ExternalLink) else None  # a name ends the visit

    if linked := root.visititems_links(outside):
        raise ValueError(f"Its {linked!r} is a link to another file: refused.")
    arrays: list[h5py.Dataset] = []

    def gather(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            arrays.append(item)

    root.visititems(gather)
    for array in arrays:
        if array.external or array.is_virtual:
            raise ValueError(f"Its array {array.name!r} lies in another file: refused.")
    total = sum(array.size * array.dtype.itemsize for array in arrays)
    require_bounded(total, stored, "Its HDF5 file")


def parse_json(text: str | bytes, what: str) -> Any:
    """Return what a JSON text holds. Raises ValueError where it is damaged or nested too deeply."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not valid JSON ({error}).") from error
