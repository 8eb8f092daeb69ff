"""Safety checks of containers: no links to other files, no decompression bombs."""

import contextlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

# Exceptions that Keras, h5py, zipfile and the readers here raise for damaged files. MemoryError is
# left out: it depends on the machine. SystemError comes from h5py's C code.
FAULTS = (
    ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SystemError,
    TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
FREE_BYTES = 64 << 20  # any file may decompress to this size
MOST_EXPANSION = 50  # largest ratio above it. Keras writes uncompressed archives; deflate has 1032


def require_bounded(unfolded: int, stored: int, what: str) -> None:
    """Raise ValueError if `what` would decompress to far more bytes than are stored."""
    if unfolded > max(FREE_BYTES, MOST_EXPANSION * stored):
        raise ValueError(
            f"{what} would expand {stored:,} bytes to {unfolded:,}: refused. Keras writes no such "
            "file; if it is yours, save the model again."
        )


def check_archive(archive: zipfile.ZipFile) -> None:
    """Raise ValueError if the files in an archive decompress to far more than their size."""
    entries = archive.infolist()
    require_bounded(
        sum(entry.file_size for entry in entries),
        sum(entry.compress_size for entry in entries),
        "Its archive",
    )


@contextlib.contextmanager
def open_hdf5(data: bytes) -> Iterator[Any]:
    """Open an HDF5 file, given as bytes, for reading.

    Raises ValueError if it refers to other files, if its arrays are far larger than the file, and
    for damage on which the HDF5 library would loop forever.
    """
    import h5py  # imported late, to keep `import kzoo` fast

    check_heaps(data)
    with h5py.File(io.BytesIO(data), "r") as root:
        check_links(root, len(data))
        yield root


HEAP, OBJECT = b"GCOL\x01\0\0\0", struct.Struct("<HHIQ")  # index, references, reserved, bytes


def check_heaps(data: bytes) -> None:
    """Raise ValueError if the free space in a global heap is smaller than its header.

    The HDF5 library skips free space by its size, and loops forever if that is 0.
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
    """Raise ValueError if an open HDF5 file of `stored` bytes refers to other files.

    Also if its arrays are far larger than the file.
    """
    import h5py

    def outside(name: str, link: Any) -> str | None:
        return name if isinstance(link, h5py.ExternalLink) else None  # not None stops the visit

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
    """Return the value of a JSON text; raise ValueError if it is invalid or nested too deeply."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not valid JSON ({error}).") from error
