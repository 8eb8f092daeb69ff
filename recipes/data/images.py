"""A person's images: which files are images, what is wrong with them, and reading them.

Photos are read by Pillow, turned as their EXIF says and stretched to the model's input size, which
is what MediaPipe's ImageClassifier does to them on the phone.
"""

import contextlib
import dataclasses
import os
import threading
import warnings
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from kzoo.recipes.data.packed import DamagedError, Record
from kzoo.recipes.data.pixels import (
    TURNED,
    BadImageError,
    dark,
    has_16_bit_colours,
    of_frames,
    orientation,
    to_8_bits,
    upright,
    upright_size_of,
    without_alpha,
)
from kzoo.recipes.progress import track
from kzoo.sizes import Size, height_width, simplest

try:
    import pillow_heif
except ImportError:  # an optional extra: such photos are listed
    HEIC = False
else:
    pillow_heif.register_heif_opener()
    HEIC = True

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif",
    ".tiff", ".avif", ".heic", ".heif", ".hif", ".mpo", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm",
    ".pbm", ".pnm", ".tga",
)  # fmt: skip
HEIC_SUFFIXES = (".heic", ".heif", ".hif")
# Images in formats that are not read: they are told, not passed over.
UNREAD_SUFFIXES = {
    **dict.fromkeys((
        ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".dng", ".orf", ".rw2", ".raf",
        ".pef", ".srw", ".x3f", ".raw", ".3fr", ".iiq", ".kdc", ".mrw",
    ), "a raw photo"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".wmv"), "a video"),
    **dict.fromkeys((".svg", ".psd", ".xcf", ".ai", ".eps", ".pdf", ".exr", ".hdr", ".jxl", ".dcm",
                     ".fits", ".npy", ".nii", ".ico", ".icns", ".emf", ".wmf"), "of a kind"),
}  # fmt: skip
SMALLEST_SIDE = 8  # px; below, a file holds no image of anything
CACHE_BYTES = 2 << 30  # decoded images kept in memory, at the most
READERS = min(16, max(2, os.cpu_count() or 2))  # threads that read images

Source = Path | Record  # where an image is read from
Key = tuple[Path, Size] | tuple[Path, Size, str]  # of what is kept in memory


@dataclasses.dataclass(frozen=True)
class Look:
    """What opening an image has shown."""

    size: tuple[int, int] = (0, 0)  # (H, W) in px, upright
    orientation: int = 1  # as EXIF numbers them: 1 is upright as stored
    fault: str | None = None  # why the image cannot be used
    remark: str | None = None  # how its values were read, where that is not plain


def is_candidate(path: Path) -> bool:
    """Whether a file or folder claims by its name to be an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def why_unread(path: Path) -> str | None:
    """Return the remark on an image in a format that is not read; None for any other file."""
    kind = unread_kind(path)
    if kind is None or path.name.startswith("."):
        return None
    return f"is {kind}: left out. Save {'frames' if 'video' in kind else 'it'} as JPEG"


def unread_kind(path: Path) -> str | None:
    """Return "a video (.mp4) that kzoo does not read", or of another kind; None of any other."""
    kind = UNREAD_SUFFIXES.get(path.suffix.lower())
    return kind and f"{kind} ({path.suffix.lower()}) that kzoo does not read"


def look_at(path: Source) -> Look:
    """Open an image, and return what that shows; nothing in a file makes this raise."""
    try:
        return decode(path, SMALLEST_SIDE)[1]
    except BadImageError as error:
        return Look(fault=str(error))


def look_at_all(paths: Iterable[Source], description: str = "reading images") -> list[Look]:
    """Return a look at every image."""
    paths = list(paths)
    with ThreadPoolExecutor(READERS) as pool:
        return list(track(pool.map(look_at, paths), description, len(paths)))


def read_image(path: str | Source, size: Size) -> np.ndarray:
    """Return the image as uint8 (height, width, 3), RGB, upright, stretched to the size.

    Of an animation the first frame is read; transparent pixels become white; 16 bits become 8.
    Raises BadImageError for what is no image, or one of under 8 pixels a side.
    """
    return decode(Path(path) if isinstance(path, str) else path, size)[0]


def decode(path: Source, size: Size) -> tuple[np.ndarray, Look]:
    """Return the image as `read_image` does, and what opening it has shown."""
    image, look = open_upright(path, size)
    return np.asarray(image), look


def open_upright(path: Source, size: Size | None = None) -> tuple[Image.Image, Look]:
    """Return the image in RGB, upright, and what opening it has shown.

    size: that it is stretched to; None: its own.
    """
    with opened(path) as image:
        stored, halved = image, has_16_bit_colours(image)
        turn, own = orientation(image), upright_size_of(image)
        height, width = height_width(size) if size else own
        if size:  # lets JPEG decode at a fraction of its size; it is still as it was stored
            twice = (2 * height, 2 * width) if turn in TURNED else (2 * width, 2 * height)
            image.draft("RGB", twice)
        check_pixels(image)
        image, remark = to_8_bits(upright(image))
        plain = image.mode == "RGB" and "transparency" not in image.info  # to_rgb would copy it
        if not plain:
            image, transparent = without_alpha(image)
            remark = remark or transparent
        if halved and remark is None:
            remark = dark(image)
        # At its own size this copies: what is opened is not loaded yet.
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        remarks = "; ".join(filter(None, (remark, of_frames(stored))))
        return image, Look(own, turn, remark=remarks or None)


@contextlib.contextmanager
def opened(path: Source) -> Iterator[Image.Image]:
    """An opened image of 8 pixels a side at least; all that goes wrong within is BadImageError."""
    if isinstance(path, Path):
        if path.is_dir():
            raise BadImageError("a folder, not an image")
        if not path.exists():
            raise BadImageError("missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd but readable files
            with path.open("rb") as file, open_image(file) as image:
                if min(image.size) < SMALLEST_SIDE:
                    raise BadImageError(f"only {image.width} x {image.height} px")
                yield image
    except (BadImageError, DamagedError):
        raise
    except UnidentifiedImageError:
        raise BadImageError(unidentified(path)) from None
    except Image.DecompressionBombError:
        raise BadImageError("too many pixels (a decompression bomb?)") from None
    except PermissionError:
        raise BadImageError("no permission to read it") from None
    except MemoryError:
        raise BadImageError("too large for the memory of this machine") from None
    except Exception as error:  # of Pillow's decoders, which raise all kinds
        raise BadImageError(f"damaged ({error or type(error).__name__})") from None


def open_image(file: IO[bytes]) -> Image.Image:
    """Return the image in a file, its header read.

    A JPEG is opened without Pillow's limit on pixels: it is decoded at a fraction of its size, and
    photos of phones have 200 megapixels. `check_pixels` holds the limit for what is decoded.
    """
    head = file.read(3)
    file.seek(0)
    if head == b"\xff\xd8\xff":
        with contextlib.suppress(SyntaxError):
            return JpegImageFile(file)
        file.seek(0)
    return Image.open(file)


def check_pixels(image: Image.Image) -> None:
    """Raises DecompressionBombError for more pixels than Pillow would decode."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > 2 * limit:
        raise Image.DecompressionBombError


def unidentified(path: Source) -> str:
    if isinstance(path, Path):
        if path.stat().st_size == 0:
            return "empty"
        if path.suffix.lower() in HEIC_SUFFIXES and not HEIC:
            return "a HEIC photo: pip install 'kzoo[heic]' reads it"
        if kind := unread_kind(path):
            return kind
    return "not an image that Pillow can read"


def upright_size(path: Source) -> tuple[int, int]:
    """Return (H, W) of an image as it is seen, by its header alone. Raises BadImageError."""
    with opened(path) as image:
        return upright_size_of(image)


class Decoded:
    """Decoded images by (file, size), `CACHE_BYTES` of them at the most.

    Masks are kept by (file of the image, size, "mask").

    Where these are reached, sizes that no living `Images` reads any more make room: of a stage of
    training that has ended.
    """

    def __init__(self) -> None:
        self.images: dict[Key, np.ndarray] = {}
        self.bytes = 0
        self.sizes: set[Size] = set()  # of these images
        self.readers: weakref.WeakSet[Images] = weakref.WeakSet()
        self.changing = threading.Lock()

    def keep(self, key: Key, image: np.ndarray) -> None:
        with self.changing:
            if key in self.images:  # another thread has decoded it too
                return
            if self.bytes + image.nbytes > CACHE_BYTES:
                self.forget_all_but({reader.size for reader in self.readers})
            if self.bytes + image.nbytes <= CACHE_BYTES:
                self.images[key] = image
                self.bytes += image.nbytes
                self.sizes.add(key[1])

    def forget_all_but(self, sizes: set[Size]) -> None:
        if self.sizes - sizes:
            self.images = {key: image for key, image in self.images.items() if key[1] in sizes}
            self.bytes = sum(image.nbytes for image in self.images.values())
            self.sizes &= sizes


shared: list[Decoded] = []  # of the run that is under way


def forget_training_images(size: Size) -> None:
    """Free the images that the run under way has decoded at other sizes than `size`.

    For the time after training: TensorFlow refers to every data set that it has read until the
    process ends, and so to the images' readers.
    """
    for decoded in shared[-1:]:
        with decoded.changing:
            decoded.forget_all_but({simplest(*height_width(size))})


@contextlib.contextmanager
def decoded_once() -> Iterator[None]:
    """Let all `Images` made within share what they decode: stages and reports read the same."""
    own = Decoded()
    shared.append(own)
    try:
        yield
    finally:
        shared.remove(own)  # another thread's run may have come after it


class Images(Sequence[Any]):
    """Files as uint8 images (height, width, 3), kept in memory as far as `CACHE_BYTES` goes.

    Packed images are decoded again each time: there may be any number of them. `keep=False` is for
    images that are read once.
    """

    def __init__(self, paths: Sequence[Source], size: Size, *, keep: bool = True):
        self.paths = paths
        self.size = simplest(*height_width(size))
        self.keep = keep
        self.decoded = shared[-1] if shared else Decoded()
        self.decoded.readers.add(self)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return np.stack([self[j] for j in range(*i.indices(len(self)))])
        path = self.paths[i]
        if not isinstance(path, Path):
            return read_image(path, self.size)
        image = self.decoded.images.get((path, self.size))
        if image is None:
            image = read_image(path, self.size)
            if self.keep:
                self.decoded.keep((path, self.size), image)
        return image
