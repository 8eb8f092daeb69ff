"""keras.applications' ImageNet files: which there are, where, and how a download is checked.

The MD5 sums of V3's files are Keras' own. For V1 and V2 Keras states none: a file is checked by its
length, its HDF5 structure and its shapes, the best known one by a SHA-256 that two projects state.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Sequence

import keras

from kzoo.weights.reading import read_checkpoint

URL = "https://storage.googleapis.com/tensorflow/keras-applications/"

# Alpha: the image sizes trained at, which are those of the paper's repository.
V2_SIZES = {
    0.35: (96, 128, 160, 192, 224),
    0.5: (96, 128, 160, 192, 224),
    0.75: (96, 128, 160, 192, 224),
    1.0: (96, 128, 160, 192, 224),
    1.3: (224,),
    1.4: (224,),
}
V1_SIZES = dict.fromkeys((0.25, 0.5, 0.75, 1.0), (128, 160, 192, 224))
V2_SHA256 = {
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5":
        "3e195a2857356cfc092cbbb460beb2a5bce279015d7792598b8d3d9e451902e3",
}  # fmt: skip

# (model, alpha): MD5 with and without top.
V3_MD5 = {
    ("mobilenet_v3_large", 0.75): (
        "765b44a33ad4005b3ac83185abf1d0eb", "40af19a13ebea4e2ee0c676887f69a2e"),
    ("mobilenet_v3_large", 1.0): (
        "59e551e166be033d707958cf9e29a6a7", "07fb09a5933dd0c8eaafa16978110389"),
    ("mobilenet_v3_large_minimalistic", 1.0): (
        "675e7b876c45c57e9e63e6d90a36599c", "ec5221f64a2f6d1ef965a614bdae7973"),
    ("mobilenet_v3_small", 0.75): (
        "cb65d4e5be93758266aa0a7f2c6708b7", "ebdb5cc8e0b497cd13a7c275d475c819"),
    ("mobilenet_v3_small", 1.0): (
        "8768d4c2e7dee89b9d02b2d03d65d862", "d3e8ec802a04aa4fc771ee12a9a9b836"),
    ("mobilenet_v3_small_minimalistic", 1.0): (
        "99cd97fb2fcdad2bf028eb838de69e37", "cde8136e733e811080d9fcd8a252f7e4"),
}  # fmt: skip

# Folder, and name without its ending.
NAMES = {
    "mobilenet_v1": lambda alpha, size: (
        "mobilenet/",
        f"mobilenet_{ {1.0: '1_0', 0.75: '7_5', 0.5: '5_0', 0.25: '2_5'}[alpha] }_{size}_tf",
    ),
    "mobilenet_v2": lambda alpha, size: (
        "mobilenet_v2/",
        f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{size}",
    ),
}


@dataclasses.dataclass(frozen=True)
class Official:
    """One file of keras.applications; `digest` is MD5 or SHA-256, None where none is known."""

    folder: str
    name: str
    digest: str | None


def official(
    model_name: str, alpha: float, *, include_top: bool, sides: Sequence[int | None]
) -> Official:
    """A model's file; of V1 and V2 that of its image size, or 224. ValueError where none is."""
    trained_at: dict[tuple[str, float], tuple[int, ...]]
    trained_at = {("mobilenet_v1", width): sizes for width, sizes in V1_SIZES.items()}
    trained_at |= {("mobilenet_v2", width): sizes for width, sizes in V2_SIZES.items()}
    known = {*trained_at, *V3_MD5}
    if (model_name, alpha) not in known:
        there = {
            name: sorted(a for other, a in known if other == name) for name, _ in sorted(known)
        }
        table = "; ".join(f"{name} {', '.join(map(str, there[name]))}" for name in there)
        raise ValueError(
            f'weights="imagenet": there are none for {model_name} at alpha {alpha}. '
            f"There are: {table}. Use one of these, weights=None, or the path of a file."
        )
    if (model_name, alpha) in trained_at:
        square = len(set(sides)) == 1 and sides[0] in trained_at[model_name, alpha]
        size = sides[0] if square else 224  # as keras.applications chooses
        ending = "" if include_top else "_no_top"
        folder, stem = NAMES[model_name](float(alpha), size)
        return Official(folder, f"{stem}{ending}.h5", V2_SHA256.get(f"{stem}{ending}.h5"))
    kind = model_name.removeprefix("mobilenet_v3_")
    top, no_top = V3_MD5[model_name, alpha]
    name = f"weights_mobilenet_v3_{kind}_224_{float(alpha)}_float"
    ending, digest = (".h5", top) if include_top else ("_no_top_v2.h5", no_top)
    return Official("mobilenet_v3/", name + ending, digest)


def fetch(file: Official) -> pathlib.Path:
    """The file from Keras' cache, downloaded if it is not there or damaged.

    It appears in the cache whole and checked, or not at all. Raises ConnectionError where it cannot
    be fetched, ValueError where what came is not the file.
    """
    home = pathlib.Path(os.environ.get("KERAS_HOME", pathlib.Path.home() / ".keras"))
    kept = home / "models" / file.name
    if kept.is_file() and fault(kept, file) is None:
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    url = f"{URL}{file.folder}{file.name}"
    instead = (
        f"Fetch it by other means and pass its path, weights='.../{file.name}', or put it into "
        f"{kept.parent}. weights=None starts from random weights."
    )
    part = kept.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        try:
            keras.utils.get_file(part.name, url, cache_dir=str(home), cache_subdir="models")
        except Exception as error:  # get_file raises a bare Exception
            raise ConnectionError(f"{url} cannot be downloaded: {error}. {instead}") from error
        reason = fault(part, file)
        if reason:
            raise ValueError(f"What came from {url} is not the file: {reason}. {instead}")
        part.replace(kept)
    finally:
        part.unlink(missing_ok=True)
    return kept


def fault(path: pathlib.Path, file: Official) -> str | None:
    """Why this is not the file whole, or None."""
    if file.digest is None:
        try:
            read_checkpoint(path)
        except ValueError as error:
            return str(error)
        return None
    method = {32: "md5", 64: "sha256"}[len(file.digest)]
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, method).hexdigest()
    return None if found == file.digest else f"its {method} is {found}, not {file.digest}"
