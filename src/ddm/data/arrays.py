"""NumPy files."""

import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ddm.data.pictures import PREPARATION, Mode, as_array, square, to_mode
from ddm.data.source import Reading, Source, sources
from ddm.errors import RequestError, unknown
from ddm.images import MODES
from ddm.storage import digest_of, digest_of_file

IMAGES = ("images", "image", "arr_0", "x", "data", "pixels")
LABELS = ("labels", "label", "y", "arr_1")
MAX_BYTES = 2**35
"""An array that claims to unpack to more (32 GiB) is refused: the file says so, and may be lying about the rest."""


@sources.register
def arrays(
    *,
    path: str,
    column: str | None = None,
    label: str | None = None,
    low: float | None = None,
    high: float | None = None,
    mode: Mode = "RGB",
) -> Source:
    """A .npy or .npz file of pictures: uint8 ``[n, h, w]``, ``[n, h, w, c]`` or ``[n, c, h, w]``, c = 1, 3 or 4.

    Other numbers are scaled to 0 to 255 and rounded. Where they are floats that reach from exactly 0 to 1 or from
    exactly -1 to 1, that is taken for their range; otherwise ``low`` and ``high`` have to say it.

    Args:
        path: the file; ``~`` is the home folder.
        column: name of the array in a .npz; the only one, or images, image, arr_0, x, data or pixels.
        label: name of the labels in a .npz, whole numbers ``[n]``; labels, label, y or arr_1 if there; "" for none.
        low: the value of black.
        high: the value of white.
        mode: gray, colour, or colour with transparency.

    Raises:
        RequestError: no such file or array, a shape that is not pictures, numbers that are not finite, or a range
            that is not known.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise RequestError(f"{file} is {'a folder, not a file' if file.exists() else 'not there'}")
    read = partial(_read, file, column, label, (low, high), mode)
    digest = digest_of("arrays", PREPARATION, digest_of_file(file), column, label, low, high, mode)
    return Source(digest, read)


def _read(
    file: Path,
    column: str | None,
    label: str | None,
    ends: tuple[float | None, float | None],
    mode: Mode,
    size: int,
    scratch: Path,
) -> Reading:
    pixels, labels = _load(file, column, label)
    pixels, (low, high) = _channels_last(pixels), _range(pixels, *ends)
    if labels is None:
        return Reading(_pictures(pixels, low, high, mode, size))
    if labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iub":
        raise RequestError(f"labels are {labels.dtype} {list(labels.shape)}, not a whole number for each picture")
    names, numbers = np.unique(labels, return_inverse=True)
    classes = tuple(str(name) for name in names.tolist())
    return Reading(_pictures(pixels, low, high, mode, size), numbers.reshape(-1).tolist(), classes)


def _load(file: Path, column: str | None, label: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with file.open("rb") as opened:
            zipped = opened.read(2) == b"PK"
        if not zipped:
            return np.load(file, mmap_mode="r", allow_pickle=False), None
        with zipfile.ZipFile(file) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
        with np.load(file, allow_pickle=False) as content:
            name, label_name = _names(content.files, column, label)
            for each in filter(None, (name, label_name)):
                if sizes[each] > MAX_BYTES:
                    raise RequestError(f"{each} would unpack to {sizes[each]:,} bytes; allowed: {MAX_BYTES:,}")
            return content[name], content[label_name] if label_name else None
    except RequestError:
        raise
    except Exception as error:  # damaged archives raise almost anything
        raise RequestError(f"{file} cannot be read as .npy or .npz: {' '.join(str(error).split())}") from error


def stored_size(file: Path, column: str | None = None, label: str | None = None) -> tuple[int, int]:
    """Width and height of the pictures of a file that :func:`arrays` can read, from its header alone."""
    if not zipfile.is_zipfile(file):
        shape = np.load(file, mmap_mode="r", allow_pickle=False).shape
    else:
        with zipfile.ZipFile(file) as archive:
            name, _ = _names([each.removesuffix(".npy") for each in archive.namelist()], column, label)
            with archive.open(f"{name}.npy") as array:
                version = np.lib.format.read_magic(array)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, _ = read(array)
    _, height, width, _ = _channels_last(np.broadcast_to(np.uint8(0), shape)).shape
    return width, height


def _names(names: list[str], column: str | None, label: str | None) -> tuple[str, str | None]:
    for option, value in (("column", column), ("label", label)):
        if value and value not in names:
            raise unknown(option, value, names)
    label = next((name for name in LABELS if name in names), None) if label is None else label or None
    rest = [name for name in names if name != label and name not in LABELS]
    column = column or next((name for name in IMAGES if name in rest), rest[0] if len(rest) == 1 else None)
    if column is None:
        raise RequestError(f"it has several arrays; write column= and one of {', '.join(rest)}")
    return column, label


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    """A view ``[n, h, w, c]`` of the pictures."""
    shape, wrong = pixels.shape, "write [n, h, w], [n, h, w, c] or [n, c, h, w] with c = 1, 3 or 4"
    if len(shape) == 3:
        return pixels[..., None]
    last, first = len(shape) == 4 and shape[3] in MODES, len(shape) == 4 and shape[1] in MODES
    if last == first:
        problem = "could be read in two ways" if last else "is not pictures"
        raise RequestError(f"its shape {list(shape)} {problem}; {wrong}")
    return pixels if last else pixels.transpose(0, 2, 3, 1)


def _range(pixels: np.ndarray, low: float | None, high: float | None) -> tuple[float, float]:
    """The values of black and white."""
    if pixels.dtype == np.uint8 and low is None and high is None:
        return 0, 255
    if pixels.dtype.kind not in "iuf":
        raise RequestError(f"its numbers are {pixels.dtype}; write uint8")
    ends = (pixels.min(), pixels.max()) if pixels.size else (0, 0)
    if not np.isfinite(ends).all():
        first = next(number for number, picture in enumerate(pixels) if not np.isfinite(picture).all())
        raise RequestError(f"picture {first} has numbers that are not finite (NaN or infinity); make it again")
    least, most = float(ends[0]), float(ends[1])
    if low is None and high is None and pixels.dtype.kind == "f" and most == 1 and least in (0, -1):
        return least, most
    found = f"its numbers are {pixels.dtype} from {least:g} to {most:g}"
    if low is None or high is None:
        raise RequestError(f"{found}, which leaves open what is black and what is white; write both low= and high=")
    if not (low < high and low <= least and most <= high):
        raise RequestError(f"{found}, which do not lie between low={low:g} and high={high:g}")
    return low, high


def _pictures(pixels: np.ndarray, low: float, high: float, mode: Mode, size: int) -> Iterator[np.ndarray]:
    for picture in pixels:
        if (low, high) != (0, 255) or picture.dtype != np.uint8:
            picture = np.rint((picture.astype(np.float64) - low) / (high - low) * 255).astype(np.uint8)
        picture = np.ascontiguousarray(picture)
        stored = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
        yield as_array(square(to_mode(stored, mode), size))
