"""The pixels of an opened image: upright, with 8 bits a channel, in RGB, of the first frame."""

import contextlib

import numpy as np
from PIL import Image

DARK = 64  # of 255: an image of 16 bits a channel with no higher value uses fewer bits
ORIENTATION = 0x0112  # the EXIF tag
TURNED = (5, 6, 7, 8)  # EXIF orientations that lay an image on its side
TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
UPRIGHT_FORMATS = ("TIFF",)  # that Pillow itself turns when it reads the pixels


class BadImageError(ValueError):
    """A file that is not a usable image; the message says why."""


def orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1 where it is none of these, or its EXIF is broken."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # of EXIF that is broken in any of many ways
        return 1
    return value if isinstance(value, int) and value in TRANSPOSED else 1


def turned(image: Image.Image, turn: int) -> Image.Image:
    """Return the image as an EXIF orientation has it seen.

    ImageOps.exif_transpose writes the EXIF anew, which fails on odd values.
    """
    return image.transpose(TRANSPOSED[turn]) if turn in TRANSPOSED else image


def upright(image: Image.Image) -> Image.Image:
    """Return an opened image as its EXIF has it seen."""
    return turned(image, left_to_turn(image))


def left_to_turn(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image; 1 where Pillow turns it by itself."""
    return 1 if image.format in UPRIGHT_FORMATS else orientation(image)


def upright_size_of(image: Image.Image) -> tuple[int, int]:
    """Return (H, W) of an opened image as it is seen."""
    across = left_to_turn(image) in TURNED
    return (image.width, image.height) if across else (image.height, image.width)


def has_16_bit_colours(image: Image.Image) -> bool:
    """Return whether an image that is not loaded yet has colours of 16 bits a channel."""
    tiles = getattr(image, "tile", ())  # none are left when EXIF has been read
    return image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile[3:]) for tile in tiles)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any of Pillow's modes as RGB."""
    return without_alpha(to_8_bits(image)[0])[0]


def to_8_bits(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Return an image of more bits, or of fractions, with 8 bits, and how its values were read.

    Pillow's own conversion saturates at 255. How many of the bits are used is told by the largest
    value: 8, 10, 12 and 14 bits in 16 are common.
    """
    if image.mode == "F":
        return from_fractions(np.asarray(image))
    if not image.mode.startswith("I"):
        return image, None
    values = np.asarray(image).astype(np.int64).clip(0)
    most = int(values.max(initial=0))
    bits = next((bits for bits in (8, 10, 12, 14) if most < 1 << bits), 16)
    if bits == 8 and most <= 1:  # nothing that tells black from 1 bit
        bits = 16 if most == 0 else 1
    scaled = (values.clip(max=65535) // 257) if bits == 16 else values * 255 // ((1 << bits) - 1)
    remark = None
    if bits < 16 and most:
        remark = f"holds values to {most} in 16 bits or more: read as {bits} bits"
    elif most > 65535:
        remark = f"holds values to {most}: those above 65535 are cut off"
    return Image.fromarray(scaled.astype("uint8")), remark


def from_fractions(values: np.ndarray) -> tuple[Image.Image, str | None]:
    """Return an image of floating point numbers with 8 bits: of [0, 1], [0, 255] or [0, 65535]."""
    if not np.isfinite(values).all():
        raise BadImageError("holds values that are not finite")
    most = float(values.max(initial=0))
    top = next((top for top in (1, 255, 65535) if most <= top), None)
    if top is None or float(values.min(initial=0)) < -0.01 * top:
        raise BadImageError(
            f"holds values from {values.min():g} to {most:g}: kzoo reads [0, 1], [0, 255] and "
            "[0, 65535]"
        )
    scaled = np.round(values.clip(0) * (255 / top)).astype("uint8")
    return Image.fromarray(scaled), f"holds floating point numbers: read as of [0, {top}]"


def dark(image: Image.Image) -> str | None:
    """Return the remark on an image of 16 bits a channel that uses few of them, or None.

    Pillow gives the upper 8 bits of colours alone.
    """
    most = int(np.asarray(image.convert("RGB")).max(initial=0))
    if most >= DARK or not most:
        return None
    return (
        f"has 16 bits a channel, of which the upper 8 are read: values to {most} of 255. Save it "
        "with 8 bits if it is brighter"
    )


def without_alpha(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Return an image of 8 bits as RGB on white, and a remark where nothing of it is left."""
    remark = None
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() == (0, 0):
            remark = "is transparent all over: read as white. If it is not, save it without alpha"
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB"), remark


def of_frames(image: Image.Image) -> str | None:
    """Return the remark on an opened animation or file of several pages; None of any other image.

    A TIFF's pages of other sizes are thumbnails, or the levels of a pyramid.
    """
    count = 1
    with contextlib.suppress(Exception):  # of frames that are damaged: the first one is not
        count = getattr(image, "n_frames", 1)
        if count > 1 and image.format == "TIFF":
            size = image.size
            count = sum(page_size(image, i) == size for i in range(count))
    return f"holds {count} frames: the first is read" if count > 1 else None


def page_size(image: Image.Image, i: int) -> tuple[int, int]:
    image.seek(i)
    return image.size
