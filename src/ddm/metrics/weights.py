"""Weights of other people's networks: found here or downloaded once, and used only with the right SHA-256."""

import hashlib
import os
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from filelock import FileLock
from torch import Tensor

from ddm.errors import DdmError, RequestError
from ddm.storage import cache_folder, digest_of_file
from ddm.version import __version__

OWN = "DDM_WEIGHTS"
"""The variable that names a folder with files of weights, or one such file."""
OFFLINE = "HF_HUB_OFFLINE"
PATIENCE = 30.0
"""Seconds without a byte after which a server is given up."""
PIECE = 1 << 20


def fetch(name: str, *, url: str, sha256: str, size: int, alternative: str) -> Path:
    """A file with exactly these bytes: from ``$DDM_WEIGHTS``, from the cache, or else downloaded into the cache.

    Several processes may do this at once: one downloads, the others wait and use what it published.

    Args:
        name: of the file, in the folder and in the cache.
        url: where it is to be had; not asked where ``HF_HUB_OFFLINE`` is set.
        sha256: of its content, as hexadecimal.
        size: of it, in bytes; a longer answer is not read to its end.
        alternative: what to do without the file, for the message.

    Raises:
        RequestError: ``$DDM_WEIGHTS`` has a file of that name with other content.
        DdmError: it cannot be had; says all that was tried.
    """
    own = _own(name)
    if own is not None:
        return _checked(own, sha256)
    place = cache_folder("weights") / name
    try:
        if _is_right(place, sha256):
            return place
        with FileLock(f"{place}.lock"):
            if not _is_right(place, sha256):
                place.unlink(missing_ok=True)
                _download(place, url, sha256, size)
    except (OSError, HTTPException, _Unavailable) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise DdmError(
            f"{name} cannot be had: {_absence()}; not in the cache {place.parent}; {url}: {said}; {alternative}"
        ) from error
    return place


def load_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch file whose SHA-256 was checked, on the CPU; nothing in it is run."""
    return torch.load(path, map_location="cpu", weights_only=True)


class _Unavailable(Exception):
    """The network was not asked, or sent something else."""


def _own(name: str) -> Path | None:
    value = os.environ.get(OWN)
    if not value:
        return None
    path = Path(value).expanduser()
    return next((each for each in (path / name, path) if each.is_file()), None)


def _absence() -> str:
    value = os.environ.get(OWN)
    return f"{OWN} is {value!r} and has no such file" if value else f"{OWN} is not set"


def _checked(path: Path, sha256: str) -> Path:
    try:
        found = digest_of_file(path)
    except OSError as error:
        raise RequestError(f"{OWN}: {path} cannot be read: {error.strerror or error}") from error
    if found != sha256:
        raise RequestError(f"{OWN}: {path} has SHA-256 {found}; allowed: {sha256}")
    return path


def _is_right(path: Path, sha256: str) -> bool:
    try:
        return digest_of_file(path) == sha256
    except FileNotFoundError:
        return False


def _download(place: Path, url: str, sha256: str, size: int) -> None:
    """Called under the lock, so that what a killed process left is overwritten and no two write one file."""
    if os.environ.get(OFFLINE, "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise _Unavailable(f"not asked, since {OFFLINE} is set")
    part = place.with_name(f"{place.name}.part")
    try:
        with _ask(url) as answer, part.open("wb") as file:
            count, found = _copy(answer, file, size)
        if count != size:
            raise _Unavailable(f"sent {'more than ' if count > size else ''}{min(count, size):,} of {size:,} bytes")
        if found != sha256:
            raise _Unavailable(f"sent a file with SHA-256 {found}, not {sha256}")
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)


def _ask(url: str) -> HTTPResponse:
    request = Request(url, headers={"User-Agent": f"denoising-diffusion-model/{__version__}"})
    try:
        return urlopen(request, timeout=PATIENCE)
    except HTTPError as error:
        error.close()  # it holds the connection
        raise


def _copy(answer: HTTPResponse, file: BinaryIO, size: int) -> tuple[int, str]:
    """How many bytes came, at most one piece more than ``size``, and their SHA-256."""
    digest, count = hashlib.sha256(), 0
    while count <= size and (piece := answer.read(PIECE)):
        file.write(piece)
        digest.update(piece)
        count += len(piece)
    file.flush()
    os.fsync(file.fileno())
    return count, digest.hexdigest()
