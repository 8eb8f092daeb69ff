"""`read_checkpoint`: read a weight file of any format, recognized by its bytes, not its name."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

from kzoo.weights.checkpoint import Checkpoint
from kzoo.weights.published import PUBLISHED
from kzoo.weights.readers.flatbuffer import IDENTIFIER
from kzoo.weights.readers.keras_file import read_hdf5, read_keras
from kzoo.weights.readers.limits import FAULTS
from kzoo.weights.readers.tfjs_file import is_tfjs, read_tfjs
from kzoo.weights.readers.tflite_file import from_tflite
from kzoo.weights.readers.torch_file import (
    STREAM_START,
    is_safetensors,
    read_safetensors,
    read_stream,
    read_zip,
)
from kzoo.weights.readers.torch_names import read_torch

HDF5, ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Return the content of a weight file; the format is recognized by its bytes, not its name.

    Raises FileNotFoundError, and ValueError for folders, unknown formats and damaged files.
    """
    file = pathlib.Path(path)
    if file.is_dir():
        raise ValueError(
            f"weights={str(path)!r} is a folder. Pass one of the files in it (a SavedModel is "
            "not read: save the model as .keras, or convert it to .tflite)."
        )
    if not file.exists():
        raise FileNotFoundError(
            f'weights={str(path)!r}: there is no such file. weights is "imagenet", None or a path. '
            'kzoo.list_weights() lists all names, such as "imagenet:timm".'
        )
    data = file.read_bytes()
    recognised = [read for knows, read in FORMATS if knows(data)]
    if not recognised:
        raise ValueError(
            f"weights={str(path)!r} is in a format that kzoo does not read: it begins with "
            f"{data[:12]!r}. "
            "Pass a .weights.h5, .h5, .keras, .pth, .safetensors or .tflite file, or a model.json "
            "of TensorFlow.js."
        )
    try:
        checkpoint = recognised[0](data, file)
    except ValueError as error:
        raise ValueError(f"weights={str(path)!r} cannot be read. {error}") from error
    except FAULTS as error:  # damage that the reader does not check for
        raise ValueError(
            f"weights={str(path)!r} cannot be read: it is damaged "
            f"({type(error).__name__}: {error})."
        ) from error
    if not checkpoint.units:
        raise ValueError(
            f"weights={str(path)!r} holds no convolution: it is not the weights of an image model."
        )
    named = [row for row in PUBLISHED if (row.file, row.reader) == (file.name, checkpoint.kind)]
    return dataclasses.replace(checkpoint, **named[0].traits) if named else checkpoint


def zip_holds(name: str) -> Callable[[bytes], bool]:
    # By the bytes: a truncated zip has no directory, and its reader reports the truncation.
    return lambda data: data.startswith(ZIP) and name.encode() in data


FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes, pathlib.Path], Checkpoint]], ...] = (
    (lambda data: data[4:8] == IDENTIFIER, from_tflite),
    (lambda data: data.startswith(HDF5), read_hdf5),
    (zip_holds("config.json"), read_keras),
    (zip_holds("data.pkl"), read_torch(read_zip)),
    (lambda data: data.startswith(STREAM_START), read_torch(read_stream)),
    (is_safetensors, read_torch(read_safetensors)),
    (is_tfjs, read_tfjs),
)
