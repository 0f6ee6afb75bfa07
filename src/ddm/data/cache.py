"""Decoded pictures on disk, so that a set is decoded once: memory-mapped, checked when read, published whole."""

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddm.data.source import BadPicture, Reading
from ddm.errors import DdmError, RequestError
from ddm.storage import digest_of, digest_of_file

PIXELS, LABELS, INFO = "pixels.npy", "labels.npy", "info.json"
SCRATCH = "scratch"
BUILDING = ".building-"
ABANDONED_AFTER = 24 * 3600
"""Seconds without a write after which an unfinished folder is taken for the remains of a killed process."""


@dataclass(frozen=True)
class Stored:
    """A set read from the cache.

    Args:
        pixels: uint8 ``[n, c, h, w]``, memory-mapped; writing to it never reaches the file.
        labels: int64 ``[n]`` or ``None``.
        classes: names of the labels.
        bad: pictures that could not be read.
        mean: of the pixels in [-1, 1].
        std: of the pixels in [-1, 1].
        digest: SHA-256 of pixels, labels and classes, whatever source they came from.
    """

    pixels: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    bad: tuple[BadPicture, ...]
    mean: float
    std: float
    digest: str


def stored(place: Path, read: Callable[[Path], Reading]) -> Stored:
    """The set kept at ``place``, read and written there first where it is missing or damaged.

    ``read`` is given a folder for temporary files. Several processes may do this at once: each writes beside the
    place, the first to finish publishes by renaming, the others use what it published.

    Raises:
        RequestError: not one picture could be read.
        DdmError: the folder cannot be written.
    """
    found = load(place)
    if found is not None:
        return found
    building = place.parent / f"{BUILDING}{uuid.uuid4().hex}"
    try:
        (building / SCRATCH).mkdir(parents=True)
        _sweep(place.parent)
        write(building, read(building / SCRATCH))
        shutil.rmtree(building / SCRATCH)
        _publish(building, place)
    except OSError as error:
        raise DdmError(
            f"cannot write the cache {place.parent}: {error.strerror or error}; HF_HOME says where it is"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    found = load(place)
    if found is None:
        raise DdmError(f"the cache {place} was damaged while it was being written; is the disk sound?")
    return found


def load(place: Path) -> Stored | None:
    """What is kept at ``place``, or ``None`` where any part of it is missing or not as it was written."""
    try:
        info = json.loads((place / INFO).read_text(encoding="utf-8"))
        if any(digest_of_file(place / name) != digest for name, digest in info["files"].items()):
            return None
        pixels = np.load(place / PIXELS, mmap_mode="c", allow_pickle=False)
        labels = np.load(place / LABELS, mmap_mode="c", allow_pickle=False) if LABELS in info["files"] else None
        bad = tuple(BadPicture(**each) for each in info["bad"])
        return Stored(pixels, labels, tuple(info["classes"]), bad, info["mean"], info["std"], info["digest"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(folder: Path, reading: Reading) -> None:
    """Write the pictures of a reading, one after the other, and what is to be known about them.

    Raises:
        RequestError: not one picture could be read.
    """
    good, bad = [], []
    writer = _PixelWriter(folder / PIXELS)
    with contextlib.closing(writer):
        for number, picture in enumerate(reading.pictures):
            if isinstance(picture, BadPicture):
                bad.append(picture)
            else:
                writer.append(picture)
                good.append(number)
    if not good:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in bad[:3])
        raise RequestError(f"none of its {len(bad)} pictures can be read ({reasons})" if bad else "it has no pictures")
    files = [PIXELS]
    if reading.labels is not None:
        np.save(folder / LABELS, np.asarray(reading.labels, dtype=np.int64)[good])
        files.append(LABELS)
    digests = {name: digest_of_file(folder / name) for name in files}
    info: dict[str, Any] = {
        "shape": writer.shape,
        "classes": reading.classes,
        "bad": [vars(each) for each in bad],
        **writer.moments(),
        "files": digests,
        "digest": digest_of(digests, reading.classes),
    }
    (folder / INFO).write_text(json.dumps(info, indent=2), encoding="utf-8")


class _PixelWriter:
    """A .npy file that grows picture by picture, so that a set never has to fit into memory."""

    def __init__(self, path: Path):
        self._file = path.open("w+b")
        self._histogram = np.zeros(256, dtype=np.int64)
        self.shape: tuple[int, ...] = ()

    def append(self, picture: np.ndarray) -> None:
        if not self.shape:
            self.shape = (0, *picture.shape)
            self._header()
        self.shape = (self.shape[0] + 1, *self.shape[1:])
        self._file.write(np.ascontiguousarray(picture, dtype=np.uint8).tobytes())
        self._histogram += np.bincount(picture.reshape(-1), minlength=256)

    def _header(self) -> None:
        # NumPy pads the header so that the first axis may grow in place.
        header = {"descr": "|u1", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def moments(self) -> dict[str, float]:
        """Mean and standard deviation of everything written, in [-1, 1]; exact, from the counts of the 256 levels."""
        levels, share = np.arange(256) / 127.5 - 1, self._histogram / self._histogram.sum()
        mean = float(levels @ share)
        return {"mean": mean, "std": float(np.sqrt((levels - mean) ** 2 @ share))}

    def close(self) -> None:
        if self.shape:
            self._file.seek(0)
            self._header()
        self._file.close()


def _publish(building: Path, place: Path) -> None:
    for path in (*building.iterdir(), building):
        _flush(path)
    for _ in range(3):
        with contextlib.suppress(OSError):
            building.rename(place)
            _flush(place.parent)
            return
        if load(place) is not None:  # somebody else was faster
            return
        aside = place.parent / f"{BUILDING}{uuid.uuid4().hex}"
        with contextlib.suppress(OSError):  # what is there is damaged: out of the way, in one step as well
            place.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _flush(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left."""
    for path in folder.glob(f"{BUILDING}*"):
        with contextlib.suppress(OSError):
            newest = max(each.stat().st_mtime for each in (path, *path.iterdir()))
            if time.time() - newest > ABANDONED_AFTER:
                shutil.rmtree(path, ignore_errors=True)
