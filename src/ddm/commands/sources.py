"""The pictures that ``ddm sample`` starts from: files at the model's size, and a mask that fits them."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ddm.data.folder import pictures_below
from ddm.data.pictures import FORMATS, Encoded, Mode, prepare_all
from ddm.data.source import BadPicture
from ddm.errors import RequestError
from ddm.images import MODES

WHITE = 128
"""Levels of a mask from here on are white."""

ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)
"""The EXIF tag that says how a camera was held, and its values for pictures that lie on their side."""


def read_pictures(named: Sequence[str], shape: tuple[int, int, int], count: int | None) -> tuple[Tensor, list[Path]]:
    """The pictures of files and folders as the data pipeline prepares them: upright, cropped to the centre, resized.

    Args:
        named: files or folders.
        shape: of the model's pictures.
        count: how many are wanted, in turn where that is more than there are; all of them by default.

    Returns:
        uint8 ``[count, c, h, w]``, and the files that were read.

    Raises:
        RequestError: a file that is not there or is no picture, or a folder without any.
    """
    files = list(islice(_files(named), count))
    mode: Mode = MODES[shape[0]]  # pyright: ignore[reportAssignmentType]
    pixels = torch.stack([_read(file, mode, shape[1], "from") for file in files])
    return pixels[torch.arange(count or len(files)) % len(files)], files


def read_mask(name: str, files: Sequence[Path], shape: tuple[int, int, int]) -> Tensor:
    """Where a mask is white, bool ``[1, h, w]``.

    Args:
        name: of the file: of the model's size, or of that of the pictures, with which it is cropped and resized then.
        files: of the pictures.
        shape: of the model's pictures.

    Raises:
        RequestError: it is not there, no picture, of another size, or black all over.
    """
    pixels, found = _read(Path(name).expanduser(), "L", shape[1], "mask"), _size(Path(name).expanduser())
    sizes = {(shape[2], shape[1]), *({_size(files[0])} if len({_size(file) for file in files}) == 1 else ())}
    if found not in sizes:
        allowed = " or ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise RequestError(f"mask: {name!r} is {found[0]}x{found[1]}; allowed: {allowed}, the size of the pictures")
    unknown = pixels >= WHITE
    if not unknown.any():
        raise RequestError(f"mask: {name!r} has no white, so that nothing would be made anew")
    return unknown


def _files(named: Sequence[str]) -> Iterator[Path]:
    for name in named:
        path = Path(name).expanduser()
        if path.is_dir():
            found = pictures_below(path)
            if not found:
                raise RequestError(f"from: {name!r} has no pictures; allowed: {', '.join(FORMATS)} files")
            yield from found
        else:
            yield path


def _read(path: Path, mode: Mode, size: int, flag: str) -> Tensor:
    if not path.is_file():  # also keeps us from waiting at a pipe
        raise RequestError(f"{flag}: {str(path)!r} is {'not a file' if path.exists() else 'not there'}")
    (found,) = prepare_all([Encoded(path.name, path)], mode, size)
    if isinstance(found, BadPicture):
        raise RequestError(f"{flag}: {str(path)!r} cannot be read: {found.reason}")
    return torch.tensor(found)


def _size(path: Path) -> tuple[int, int]:
    """Width and height of a picture that can be read, upright."""
    with Image.open(path, formats=list(FORMATS)) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(ORIENTATION) in SIDEWAYS else (width, height)
