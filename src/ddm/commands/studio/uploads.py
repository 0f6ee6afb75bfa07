"""Pictures and masks that come from a browser: text in a request, checked before anything is decoded."""

import base64
import binascii
import io
import warnings
from collections.abc import Sequence

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ddm.data.pictures import Encoded, Mode, prepare_all
from ddm.data.source import BadPicture
from ddm.errors import RequestError
from ddm.images import MODES

FORMATS = ("PNG", "JPEG", "WEBP")
"""Told by the content; no other decoder is ever given an upload."""

SCANS = 100
"""Passes over a JPEG: a few bytes each, and each may take the decoder over the whole picture again."""

SCAN = b"\xff\xda"
"""How a pass begins; within one, FF is never followed by DA."""

WORDS = "a PNG, JPEG or WebP file"


def picture_from(text: object, shape: Sequence[int], *, most_bytes: int, most_pixels: int) -> Tensor:
    """An uploaded picture as the data pipeline prepares one: upright, cropped to the centre, resized; its first frame.

    Args:
        text: the file in base64, with or without ``data:image/png;base64,`` before it.
        shape: of the model's pictures.
        most_bytes: of the file.
        most_pixels: of the picture, known from its header before anything is decoded.

    Returns:
        uint8 ``[c, h, w]``.

    Raises:
        RequestError: there is none, it is too large, of another type or damaged.
    """
    data = decoded(text, most_bytes)
    check_header(data, most_pixels)
    mode: Mode = MODES[shape[0]]  # pyright: ignore[reportAssignmentType]
    (found,) = prepare_all([Encoded("the upload", data)], mode, shape[1])
    if isinstance(found, BadPicture):
        raise RequestError("picture: it is damaged and cannot be read; allowed: " + WORDS)
    return torch.tensor(found)


def decoded(text: object, most_bytes: int) -> bytes:
    """The bytes of a file in base64; raises :class:`RequestError` as :func:`picture_from` does."""
    if not isinstance(text, str) or not text.strip():
        raise RequestError("picture: there is none yet; upload one, or pick one")
    head, comma, rest = text.partition(",")
    body = rest if comma and head.startswith("data:") else text
    most = 4 * (most_bytes // 3 + 1)
    if len(body) > most:
        raise RequestError(
            f"picture: a file of {_size(len(body) * 3 // 4)} is not allowed; allowed: up to {_size(most_bytes)}"
        )
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"picture: that is not a file in base64; allowed: {WORDS}") from None
    return data


def check_header(data: bytes, most_pixels: int) -> None:
    """Raise :class:`RequestError` for what is no picture, or one that would take long or much memory to decode."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, for which we have our own limit
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError:
        raise RequestError(f"picture: it has far too many pixels; allowed: {most_pixels:,}") from None
    except UnidentifiedImageError:
        raise RequestError(f"picture: this type of file is not allowed; allowed: {WORDS}") from None
    except Exception:  # a damaged file can make a decoder raise almost anything
        raise RequestError(f"picture: it is damaged and cannot be read; allowed: {WORDS}") from None
    if width * height > most_pixels:
        raise RequestError(f"picture: {width:,}x{height:,} pixels are not allowed; allowed: {most_pixels:,} in all")
    if data.startswith(b"\xff\xd8") and data.count(SCAN) > SCANS:
        raise RequestError(f"picture: {data.count(SCAN):,} passes over a JPEG are not allowed; allowed: {SCANS}")


def mask_from(text: object, shape: Sequence[int]) -> Tensor:
    """A painted mask: a 1 for every pixel that is made anew and a 0 for every one that is kept, row by row.

    Args:
        text: ``height * width`` digits; line breaks and blanks between them do not count.
        shape: of the model's pictures.

    Returns:
        bool ``[1, h, w]``.

    Raises:
        RequestError: it has other signs, is of another size, or has no 1.
    """
    _, height, width = shape
    if not isinstance(text, str) or len(text) > 4 * height * width:
        raise RequestError(f"mask: that is no mask; allowed: {height * width:,} digits 0 and 1, row by row")
    digits = "".join(text.split())
    if set(digits) - {"0", "1"} or len(digits) not in (0, height * width):
        raise RequestError(
            f"mask: {len(digits):,} signs are not allowed; allowed: {height * width:,} digits 0 and 1, row by row"
        )
    if "1" not in digits:
        raise RequestError("mask: nothing is painted, so that nothing would be made anew; paint over what should go")
    return torch.tensor([digit == "1" for digit in digits]).reshape(1, height, width)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1_000_000 else f"{count / 1000:.0f} kB"
