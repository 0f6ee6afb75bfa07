"""From an encoded picture to the square uint8 array of the mode and size that a network takes."""

import itertools
import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ddm.data.source import BadPicture

Mode = Literal["L", "RGB", "RGBA"]
"""Gray, colour, or colour with transparency."""

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
}
"""The formats that are read, each with the endings of its files; no other decoder is ever given a file."""

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded: a few kilobytes may unpack to gigabytes."""

CHUNK = 256
"""Pictures that are decoded before the first of them is handed on."""

THUMBNAIL = 8192
"""Bytes below which a stored picture counts as a thumbnail."""

PREPARATION = 1
"""Increase it when any array made here changes, so that caches are made anew."""


class Encoded(NamedTuple):
    """A picture as it was stored: its name in messages, and its bytes or its file (``None``: it is empty)."""

    name: str
    data: bytes | Path | None


def prepare_all(pictures: Iterable[Encoded], mode: Mode, size: int) -> Iterator[np.ndarray | BadPicture]:
    """Decode pictures in their order on all cores.

    Yields:
        uint8 ``[c, size, size]`` for each picture, or what was wrong with it.
    """
    waiting, attempt = iter(pictures), partial(_attempt, mode=mode, size=size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(waiting, CHUNK)):
            with warnings.catch_warnings():
                # What Pillow warns of is either harmless or makes the decoding fail; bombs have our own limit.
                warnings.simplefilter("ignore")
                # Threads help where a decoder works long enough without Python; thumbnails they only slow down.
                thumbnails = all(isinstance(each.data, bytes) and len(each.data) < THUMBNAIL for each in chunk)
                done = [attempt(each) for each in chunk] if thumbnails else list(pool.map(attempt, chunk))
            yield from done


def _attempt(picture: Encoded, mode: Mode, size: int) -> np.ndarray | BadPicture:
    if picture.data is None:
        return BadPicture(picture.name, "empty")
    try:
        return prepare(picture.data, mode, size)
    except UnidentifiedImageError:
        return BadPicture(picture.name, f"not a {', '.join(FORMATS)} picture")
    except Exception as error:  # a damaged file can make a decoder raise almost anything
        return BadPicture(picture.name, " ".join(str(error).split()) or type(error).__name__)


def prepare(data: bytes | Path, mode: Mode, size: int) -> np.ndarray:
    """Decode one picture (the first frame of an animation), turn it upright, convert, crop and resize it.

    Returns:
        uint8 ``[c, size, size]``.

    Raises:
        Exception: the picture is damaged, too large or of no known format; which one depends on the decoder.
    """
    with Image.open(BytesIO(data) if isinstance(data, bytes) else data, formats=list(FORMATS)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} is more than {MAX_PIXELS:,} pixels")
        image.load()
        return as_array(square(to_mode(ImageOps.exif_transpose(image), mode), size))


def as_array(image: Image.Image) -> np.ndarray:
    """A picture of mode L, RGB or RGBA as uint8 ``[c, h, w]``."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def square(image: Image.Image, size: int) -> Image.Image:
    """The centre square of a picture at ``size`` x ``size``; a picture that has this size is returned as it is.

    Reduced by Lanczos with antialiasing, enlarged by bicubic interpolation. The square starts at a whole pixel, so
    that a picture which only needs cropping is not blurred by half a pixel.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if side == size:
        return image if image.width == image.height else image.crop(box)
    kernel = Image.Resampling.LANCZOS if side > size else Image.Resampling.BICUBIC
    return image.resize((size, size), kernel, box=box)


def to_mode(image: Image.Image, mode: Mode) -> Image.Image:
    """Convert a picture of any mode; what is transparent becomes white unless ``mode`` can keep it.

    Raises:
        ValueError: the picture's levels have no defined white (floats, 32-bit integers).
    """
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image)
    if image.has_transparency_data and mode != "RGBA":
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255, which turns most of a 16-bit picture white.
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
        raise ValueError(f"levels of mode {image.mode} have no defined white; save it with 8 or 16 bits")
    return Image.fromarray(((levels.astype(np.uint32) + 128) // 257).astype(np.uint8))
